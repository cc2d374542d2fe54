// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Walking} from "./walk/Walking.sol";

interface GasVm {
    function pauseGasMetering() external;
}

/// @dev A run in which everything is refused proves nothing. These walks are the same every time, and every action must
/// have passed often, every verb at least once.
contract LongWalkTest is Walking {
    uint256 internal constant WALKS = 8;
    uint256 internal constant STEPS = 150;
    uint256 internal constant ACTIONS = 23;

    uint256[ACTIONS] internal tries;
    uint256[ACTIONS] internal passes;
    mapping(bytes32 verb => uint256) internal done;

    function actions() internal view returns (bytes4[ACTIONS] memory) {
        return [
            walk.allowProviders.selector,
            walk.applyAuthorizer.selector,
            walk.blacklist.selector,
            walk.dispute.selector,
            walk.donate.selector,
            walk.hostileBatch.selector,
            walk.multicall.selector,
            walk.open.selector,
            walk.pass.selector,
            walk.pauseDeposits.selector,
            walk.reclaim.selector,
            walk.requestClose.selector,
            walk.resolve.selector,
            walk.resolveByTimeout.selector,
            walk.setAuthorizer.selector,
            walk.setPayout.selector,
            walk.setTvlCap.selector,
            walk.settle.selector,
            walk.settleMany.selector,
            walk.topUp.selector,
            walk.withdraw.selector,
            walk.withdrawFees.selector,
            walk.withdrawMany.selector
        ];
    }

    function verbs() internal pure returns (bytes32[25] memory) {
        return [
            bytes32("openPool"),
            "openPoolDirect",
            "openPoolWithPermit",
            "topUp",
            "topUpDirect",
            "allowProviders",
            "allowProvidersWithSig",
            "settle",
            "settleMany",
            "multicall",
            "withdraw",
            "withdrawMany",
            "withdrawFees",
            "dispute",
            "disputeWithSig",
            "resolve",
            "resolveByTimeout",
            "requestClose",
            "requestCloseWithSig",
            "reclaim",
            "setAuthorizer",
            "setAuthorizerWithSig",
            "applyAuthorizer",
            "setPayout",
            "setPayoutWithSig"
        ];
    }

    function test_every_action_passes_often_and_the_books_stay_right() public {
        GasVm(address(vm)).pauseGasMetering(); // it is far longer than a block
        for (uint256 i = 0; i < WALKS; ++i) {
            this.stroll(i);
        }
        for (uint256 i = 0; i < ACTIONS; ++i) {
            vm.assertTrue(tries[i] >= WALKS, "an action was hardly tried");
            vm.assertTrue(passes[i] * 10 >= tries[i] * 3, string(abi.encodePacked("seldom passes: ", actions()[i])));
        }
        bytes32[25] memory all = verbs();
        for (uint256 v = 0; v < all.length; ++v) {
            vm.assertTrue(done[all[v]] != 0, string(abi.encodePacked("never passed: ", all[v])));
        }
    }

    /// @dev A call of its own, so that what it needs of memory is given back.
    function stroll(uint256 seed) external {
        setUp();
        for (uint256 step = 0; step < STEPS; ++step) {
            take(uint256(keccak256(abi.encode(seed, step))));
            walk.everyUnitIsAccountedFor();
            walk.moneyGoesOnlyWhereItMay();
            walk.poolsAndLinesAreAsTheBooksSay();
            walk.noCallDidWhatTheBooksForbid();
        }
        bytes32[25] memory all = verbs();
        for (uint256 v = 0; v < all.length; ++v) done[all[v]] += walk.done(all[v]);
        drain();
    }

    function take(uint256 dice) internal {
        uint256 which = dice % ACTIONS;
        bytes4 action = actions()[which];
        uint256 first = dice >> 128;
        if (action == walk.pauseDeposits.selector || action == walk.blacklist.selector) first %= 2;
        ++tries[which];
        (bool passed,) = address(walk).call(abi.encodeWithSelector(action, first, dice >> 8));
        if (passed) ++passes[which];
    }
}
