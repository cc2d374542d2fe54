// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {TestUSDC} from "../src/test/TestUSDC.sol";
import {Test} from "./Base.sol";

/// @dev A token that calls back on a transfer, or that does nothing and says so.
contract HostileToken is TestUSDC("USDC") {
    address private _target;
    bytes private _call;
    bool private _idle;

    function reenter(address target, bytes calldata call) external {
        (_target, _call) = (target, call);
    }

    function idle() external {
        _idle = true;
    }

    function transfer(address to, uint256 value) public override returns (bool) {
        if (_idle) return false;
        (bool passed, bytes memory why) = _target.call(_call);
        if (passed) return super.transfer(to, value);
        assembly {
            revert(add(why, 0x20), mload(why))
        }
    }
}

contract HostileTokenTest is Test {
    HostileToken internal hostile;
    bytes32 internal id;

    function setUp() public override {
        super.setUp();
        hostile = new HostileToken();
        usdc = hostile;
        escrow = deploy(address(usdc), FEES);
        id = open();
        credit(id, 0, ALICE, 1_000);
        dispute(id, ALICE, 100);
        vm.warp(START + 30 days);
    }

    function withdrawing() internal view returns (bytes memory) {
        return abi.encodeCall(escrow.withdraw, (id, ALICE));
    }

    function test_no_verb_that_moves_money_can_be_entered_while_money_leaves() public {
        IBudgetPool.Terms memory t;
        bytes[16] memory calls = [
            abi.encodeCall(escrow.openPool, (t, list(ALICE), 1, 0, 0, "")),
            abi.encodeCall(escrow.openPoolDirect, (t, list(ALICE), 1)),
            abi.encodeCall(escrow.openPoolWithPermit, (t, list(ALICE), 1, 0, "")),
            abi.encodeCall(escrow.topUp, (id, 1, ALICE, 0, 0, 0, "")),
            abi.encodeCall(escrow.topUpDirect, (id, 1)),
            abi.encodeCall(escrow.allowProviders, (id, list(CAROL))),
            abi.encodeCall(escrow.settle, (id, "", ROOT, FOREVER, "")),
            withdrawing(),
            abi.encodeCall(escrow.withdrawFees, ()),
            abi.encodeCall(escrow.dispute, (id, ALICE, 1, REF)),
            abi.encodeCall(escrow.resolve, (t, ALICE, REF, 1)),
            abi.encodeCall(escrow.resolveByTimeout, (id, ALICE, REF)),
            abi.encodeCall(escrow.requestClose, (id)),
            abi.encodeCall(escrow.reclaim, (id)),
            abi.encodeCall(escrow.setAuthorizer, (id, BOB)),
            abi.encodeCall(escrow.setPayout, (id, BOB))
        ];
        for (uint256 i = 0; i < calls.length; ++i) {
            hostile.reenter(address(escrow), calls[i]);
            bytes memory guarded = reason(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
            refused(id, vm.addr(STRANGER), withdrawing(), guarded);
        }
    }

    function test_what_is_made_of_many_is_guarded_item_by_item() public {
        IBudgetPool.Claim[] memory claims = new IBudgetPool.Claim[](1);
        claims[0] = IBudgetPool.Claim(id, ALICE);
        hostile.reenter(address(escrow), abi.encodeCall(escrow.withdrawMany, (claims)));
        vm.expectEmit(address(escrow));
        emit IBudgetPool.WithdrawalRejected(
            id, ALICE, reason(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector)
        );
        escrow.withdraw(id, ALICE);
        eq(usdc.balanceOf(ALICE), 878, "once");
    }

    function test_a_token_that_moves_nothing_is_refused() public {
        hostile.idle();
        bytes memory failed = reason(SafeERC20.SafeERC20FailedOperation.selector, abi.encode(address(usdc)));
        refused(id, vm.addr(STRANGER), withdrawing(), failed);
        refused(id, vm.addr(STRANGER), abi.encodeCall(escrow.reclaim, (id)), failed);
    }
}
