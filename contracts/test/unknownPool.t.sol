// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {Test} from "./Base.sol";

contract UnknownPoolTest is Test {
    bytes32 internal constant NOBODY = bytes32("nobody");

    function unknown(bytes memory call) internal {
        refused(NOBODY, vm.addr(PAYER), call, reason(IBudgetPool.NoSuchPool.selector, abi.encode(NOBODY)));
    }

    function test_no_verb_adds_to_it() public {
        unknown(abi.encodeCall(escrow.topUp, (NOBODY, 1, ALICE, 0, 1, 0, "")));
        unknown(abi.encodeCall(escrow.topUpDirect, (NOBODY, 1)));
        unknown(abi.encodeCall(escrow.allowProviders, (NOBODY, list(ALICE))));
        unknown(abi.encodeCall(escrow.allowProvidersWithSig, (NOBODY, list(ALICE), 0, FOREVER, "")));
    }

    function test_no_verb_spends_it() public {
        unknown(abi.encodeCall(escrow.settle, (NOBODY, "", ROOT, FOREVER, "")));
        unknown(abi.encodeCall(escrow.withdraw, (NOBODY, ALICE)));
        unknown(abi.encodeCall(escrow.dispute, (NOBODY, ALICE, 1, REF)));
        unknown(abi.encodeCall(escrow.disputeWithSig, (NOBODY, ALICE, 1, REF, FOREVER, "")));
        unknown(abi.encodeCall(escrow.resolveByTimeout, (NOBODY, ALICE, REF)));
        unknown(abi.encodeCall(escrow.reclaim, (NOBODY)));
    }

    function test_no_verb_changes_it() public {
        unknown(abi.encodeCall(escrow.requestClose, (NOBODY)));
        unknown(abi.encodeCall(escrow.requestCloseWithSig, (NOBODY, FOREVER, "")));
        unknown(abi.encodeCall(escrow.setAuthorizer, (NOBODY, BOB)));
        unknown(abi.encodeCall(escrow.setAuthorizerWithSig, (NOBODY, BOB, 0, FOREVER, "")));
        unknown(abi.encodeCall(escrow.applyAuthorizer, (NOBODY)));
        unknown(abi.encodeCall(escrow.setPayout, (NOBODY, BOB)));
        unknown(abi.encodeCall(escrow.setPayoutWithSig, (NOBODY, ALICE, BOB, 0, FOREVER, "")));
    }

    function test_its_views_say_so_or_are_empty() public {
        unknown(abi.encodeCall(escrow.pool, (NOBODY)));
        unknown(abi.encodeCall(escrow.lineOf, (NOBODY, ALICE)));
        vm.assertTrue(!escrow.isSettled(NOBODY, 0), "settled");
        (address next,) = escrow.nextAuthorizer(NOBODY);
        (address payout,,) = escrow.payoutOf(NOBODY, ALICE);
        vm.assertTrue(next == address(0) && payout == ALICE, "keys");
        vm.assertTrue(escrow.disputeOf(NOBODY, ALICE, REF).status == IBudgetPool.DisputeStatus.None, "dispute");
    }
}
