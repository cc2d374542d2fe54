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
        vm.prank(vm.addr(PAYER));
        escrow.dispute(id, ALICE, 400, REF);
    }

    function asArbiter() internal {
        vm.prank(vm.addr(ARBITER));
    }

    function test_splits_exactly(uint64 toProvider) public {
        toProvider = toProvider % 401;
        vm.expectEmit(address(escrow));
        emit IBudgetPool.DisputeResolved(id, ALICE, REF, toProvider, 400 - toProvider, false);
        asArbiter();
        escrow.resolve(id, ALICE, REF, toProvider);
        eq(line(id, ALICE).matured, toProvider, "matured at once");
        eq(line(id, ALICE).pending, 600, "pending");
        eq(free(id), DEPOSIT - 600 - toProvider, "free");
        eq(escrow.pool(id).disputed, 0, "disputed");
        eq(escrow.totalHeld(), DEPOSIT, "held");
        IBudgetPool.DisputeState memory d = escrow.disputeOf(id, ALICE, REF);
        vm.assertTrue(d.status == IBudgetPool.DisputeStatus.Resolved && d.amount == 400, "resolved");
    }

    function test_what_returns_to_the_payer_can_be_spent_again() public {
        asArbiter();
        escrow.resolve(id, ALICE, REF, 0);
        credit(id, 1, BOB, 400);
        eq(free(id), DEPOSIT - 1_000, "free");
    }

    function test_at_most_what_is_disputed() public {
        bytes32 before = money(id);
        asArbiter();
        vm.expectRevert(reason(IBudgetPool.RulingOverDispute.selector, abi.encode(401, 400)));
        escrow.resolve(id, ALICE, REF, 401);
        unmoved(id, before);
    }

    function test_only_the_arbiter_rules() public {
        address payer = vm.addr(PAYER);
        bytes memory notArbiter = reason(IBudgetPool.NotArbiter.selector, abi.encode(payer, vm.addr(ARBITER)));
        vm.prank(payer);
        vm.expectRevert(notArbiter);
        escrow.resolve(id, ALICE, REF, 0);
    }

    function test_rules_once_and_only_what_is_open() public {
        asArbiter();
        escrow.resolve(id, ALICE, REF, 100);
        bytes32 before = money(id);
        asArbiter();
        vm.expectRevert(reason(IBudgetPool.NoOpenDispute.selector, abi.encode(id, ALICE, REF)));
        escrow.resolve(id, ALICE, REF, 100);
        vm.warp(START + 14 days);
        vm.expectRevert(reason(IBudgetPool.NoOpenDispute.selector, abi.encode(id, ALICE, REF)));
        escrow.resolveByTimeout(id, ALICE, REF);
        vm.warp(START);
        unmoved(id, before);
        asArbiter();
        vm.expectRevert(reason(IBudgetPool.NoOpenDispute.selector, abi.encode(id, BOB, REF)));
        escrow.resolve(id, BOB, REF, 0);
        vm.assertTrue(escrow.disputeOf(id, BOB, REF).status == IBudgetPool.DisputeStatus.None, "none");
    }

    function test_silence_pays_the_provider_and_ends_the_arbiters_say() public {
        uint256 timeout = START + 14 days;
        vm.warp(timeout - 1);
        vm.expectRevert(reason(IBudgetPool.TimeoutTooEarly.selector, abi.encode(timeout, timeout - 1)));
        escrow.resolveByTimeout(id, ALICE, REF);
        vm.warp(timeout);
        asArbiter();
        vm.expectRevert(reason(IBudgetPool.RulingTooLate.selector, abi.encode(timeout, timeout)));
        escrow.resolve(id, ALICE, REF, 0);
        vm.expectEmit(address(escrow));
        emit IBudgetPool.DisputeResolved(id, ALICE, REF, 400, 0, true);
        vm.prank(vm.addr(STRANGER));
        escrow.resolveByTimeout(id, ALICE, REF);
        eq(line(id, ALICE).matured, 1_000, "matured");
        eq(escrow.pool(id).disputed, 0, "disputed");
    }

    function test_the_arbiter_may_rule_in_the_last_second() public {
        vm.warp(START + 14 days - 1);
        asArbiter();
        escrow.resolve(id, ALICE, REF, 0);
        eq(free(id), DEPOSIT - 600, "free");
    }
}
