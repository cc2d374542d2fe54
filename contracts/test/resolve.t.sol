// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {Test} from "./Base.sol";

contract ResolveTest is Test {
    bytes32 internal id;

    function setUp() public override {
        super.setUp();
        id = open();
        credit(id, 0, ALICE, 1_000);
        dispute(id, ALICE, 400);
    }

    function test_splits_exactly(uint64 toProvider) public {
        toProvider = toProvider % 401;
        vm.expectEmit(address(escrow));
        emit IBudgetPool.DisputeResolved(id, ALICE, REF, toProvider, 400 - toProvider, false);
        rule(id, ALICE, toProvider);
        eq(line(id, ALICE).matured, toProvider, "matured at once");
        eq(line(id, ALICE).pending, 600, "pending");
        eq(free(id), DEPOSIT - 600 - toProvider, "free");
        eq(escrow.pool(id).disputed, 0, "disputed");
        eq(escrow.totalHeld(), DEPOSIT, "held");
        IBudgetPool.DisputeState memory d = escrow.disputeOf(id, ALICE, REF);
        vm.assertTrue(d.status == IBudgetPool.DisputeStatus.Resolved && d.amount == 400, "resolved");
    }

    function test_what_returns_to_the_payer_can_be_spent_again() public {
        rule(id, ALICE, 0);
        credit(id, 1, BOB, 400);
        eq(free(id), DEPOSIT - 1_000, "free");
    }

    function test_at_most_what_is_disputed() public {
        refused(
            id,
            vm.addr(ARBITER),
            ruling(id, ALICE, 401),
            reason(IBudgetPool.RulingOverDispute.selector, abi.encode(401, 400))
        );
    }

    function test_only_the_arbiter_rules() public {
        address payer = vm.addr(PAYER);
        bytes memory notArbiter = reason(IBudgetPool.NotArbiter.selector, abi.encode(payer, vm.addr(ARBITER)));
        refused(id, payer, ruling(id, ALICE, 0), notArbiter);
    }

    function test_the_arbiter_is_the_one_of_the_pools_own_terms() public {
        IBudgetPool.Terms memory t = terms();
        t.arbiter = vm.addr(STRANGER);
        refused(
            id,
            t.arbiter,
            abi.encodeCall(escrow.resolve, (t, ALICE, REF, 0)),
            reason(IBudgetPool.NoSuchPool.selector, abi.encode(escrow.poolIdOf(t)))
        );
    }

    function test_rules_once_and_only_what_is_open() public {
        rule(id, ALICE, 100);
        bytes memory gone = reason(IBudgetPool.NoOpenDispute.selector, abi.encode(id, ALICE, REF));
        refused(id, vm.addr(ARBITER), ruling(id, ALICE, 100), gone);
        vm.warp(START + 14 days);
        refused(id, vm.addr(STRANGER), abi.encodeCall(escrow.resolveByTimeout, (id, ALICE, REF)), gone);
        bytes memory never = reason(IBudgetPool.NoOpenDispute.selector, abi.encode(id, BOB, REF));
        refused(id, vm.addr(ARBITER), ruling(id, BOB, 0), never);
        vm.assertTrue(escrow.disputeOf(id, BOB, REF).status == IBudgetPool.DisputeStatus.None, "none");
    }

    function test_silence_pays_the_provider_and_ends_the_arbiters_say() public {
        uint256 timeout = START + 14 days;
        vm.warp(timeout - 1);
        refused(
            id,
            vm.addr(STRANGER),
            abi.encodeCall(escrow.resolveByTimeout, (id, ALICE, REF)),
            reason(IBudgetPool.TimeoutTooEarly.selector, abi.encode(timeout, timeout - 1))
        );
        vm.warp(timeout);
        refused(
            id,
            vm.addr(ARBITER),
            ruling(id, ALICE, 0),
            reason(IBudgetPool.RulingTooLate.selector, abi.encode(timeout, timeout))
        );
        vm.expectEmit(address(escrow));
        emit IBudgetPool.DisputeResolved(id, ALICE, REF, 400, 0, true);
        vm.prank(vm.addr(STRANGER));
        escrow.resolveByTimeout(id, ALICE, REF);
        eq(line(id, ALICE).matured, 1_000, "matured");
        eq(escrow.pool(id).disputed, 0, "disputed");
    }

    function test_the_arbiter_may_rule_in_the_last_second() public {
        vm.warp(START + 14 days - 1);
        rule(id, ALICE, 0);
        eq(free(id), DEPOSIT - 600, "free");
    }

    function test_what_does_not_fit_the_free_money_is_refused_and_silence_still_pays() public {
        uint256 max = type(uint56).max;
        id = open(terms(), max);
        credit(id, 0, ALICE, 1_000);
        dispute(id, ALICE, 1_000);
        usdc.mint(vm.addr(PAYER), 1_000);
        vm.prank(vm.addr(PAYER));
        usdc.approve(address(escrow), 1_000);
        vm.prank(vm.addr(PAYER));
        escrow.topUpDirect(id, 1_000);
        bytes memory tooLarge = reason(IBudgetPool.DepositTooLarge.selector, abi.encode(1, 0));
        refused(id, vm.addr(ARBITER), ruling(id, ALICE, 999), tooLarge);
        vm.warp(START + 14 days);
        escrow.resolveByTimeout(id, ALICE, REF);
        eq(line(id, ALICE).matured, 1_000, "matured");
        eq(free(id), max, "free");
    }
}
