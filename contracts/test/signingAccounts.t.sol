// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {SlowAccount} from "./Accounts.sol";
import {Test} from "./Base.sol";

/// @dev ERC-1271 authorizers and gas: what an account burns is its own item's, and want of gas is nobody's fault.
contract SigningAccountsTest is Test {
    function signedBy(address authorizer) internal returns (IBudgetPool.SignedBatch memory) {
        IBudgetPool.Terms memory t = terms();
        t.authorizer = authorizer;
        return IBudgetPool.SignedBatch(open(t, DEPOSIT), batch(0, ALICE, record(0, 7)), ROOT, FOREVER, "anything");
    }

    function keyed() internal returns (IBudgetPool.SignedBatch memory) {
        bytes32 id = open();
        bytes memory packed = batch(0, ALICE, record(0, 7));
        return
            IBudgetPool.SignedBatch(id, packed, ROOT, FOREVER, batchSignature(AUTHORIZER, id, packed, FOREVER));
    }

    function pending(IBudgetPool.SignedBatch memory one) internal view returns (uint256) {
        return line(one.poolId, ALICE).pending;
    }

    function sent(IBudgetPool.SignedBatch[] memory all, uint256 gas) internal returns (bool passed, bytes memory reason) {
        (passed, reason) = address(escrow).call{gas: gas}(abi.encodeCall(escrow.settleMany, (all)));
    }

    function test_an_account_that_starves_its_own_batch_stops_no_other() public {
        IBudgetPool.SignedBatch[] memory all = new IBudgetPool.SignedBatch[](3);
        all[0] = keyed();
        all[1] = signedBy(address(new SlowAccount(type(uint256).max, 3_000)));
        all[2] = keyed();
        (bool passed,) = sent(all, 3_000_000);
        vm.assertTrue(passed, "the others were stopped");
        eq(pending(all[0]) + pending(all[2]), 14, "the others landed");
    }

    /// @dev At any gas at all a good batch lands, or nothing does and the caller is told to send more: never `BadSignature`.
    function test_want_of_gas_never_makes_a_good_signature_bad() public {
        IBudgetPool.SignedBatch[] memory all = new IBudgetPool.SignedBatch[](1);
        all[0] = signedBy(address(new SlowAccount(300_000, 0)));
        bool landed;
        for (uint256 gas = 40_000; !landed; gas += 9_000) {
            (bool passed, bytes memory reason) = sent(all, gas);
            landed = pending(all[0]) == 7;
            vm.assertTrue(passed == landed, "it passed, and left the batch out");
            bytes memory hint = abi.encodeWithSelector(IBudgetPool.ItemOutOfGas.selector, 0);
            vm.assertTrue(landed || reason.length == 0 || keccak256(reason) == keccak256(hint), "another reason");
        }
    }

    function test_an_account_has_so_much_gas_and_no_more() public {
        bytes32 id = signedBy(address(new SlowAccount(escrow.SIGNATURE_GAS() - 5_000, 0))).poolId;
        escrow.settle(id, batch(0, ALICE, record(0, 7)), ROOT, FOREVER, "");
        address greedy = address(new SlowAccount(escrow.SIGNATURE_GAS() + 1, 0));
        id = signedBy(greedy).poolId;
        bytes memory call = abi.encodeCall(escrow.settle, (id, batch(0, ALICE, record(0, 7)), ROOT, FOREVER, ""));
        refused(id, address(this), call, reason(IBudgetPool.BadSignature.selector, abi.encode(greedy)));
    }
}
