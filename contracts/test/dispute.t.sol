// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {Test} from "./Base.sol";

contract DisputeTest is Test {
    bytes32 internal id;

    function setUp() public override {
        super.setUp();
        id = open();
        credit(id, 0, ALICE, 1_000);
    }

    function asPayer() internal {
        vm.prank(vm.addr(PAYER));
    }

    function signed(uint256 key, uint64 amount, bytes32 ref, uint64 deadline) internal view returns (bytes memory) {
        bytes32 typeHash =
            keccak256("Dispute(bytes32 poolId,address provider,uint64 amount,bytes32 ref,uint64 deadline)");
        return sign(key, typed(keccak256(abi.encode(typeHash, id, ALICE, amount, ref, deadline))));
    }

    function test_moves_unmatured_money_aside() public {
        vm.expectEmit(address(escrow));
        emit IBudgetPool.Disputed(id, ALICE, REF, 400);
        asPayer();
        escrow.dispute(id, ALICE, 400, REF);
        eq(line(id, ALICE).pending, 600, "pending");
        eq(escrow.pool(id).disputed, 400, "disputed");
        eq(free(id), DEPOSIT - 1_000, "free");
        IBudgetPool.DisputeState memory d = escrow.disputeOf(id, ALICE, REF);
        vm.assertTrue(d.status == IBudgetPool.DisputeStatus.Open, "open");
        eq(d.amount, 400, "amount");
        eq(d.openedAt, START, "openedAt");
        eq(d.timeoutAt, START + 14 days, "timeoutAt");
        vm.warp(START + 2 * W);
        eq(line(id, ALICE).matured, 600, "the rest matures in its time");
    }

    function test_takes_what_matures_first_first() public {
        vm.warp(START + W);
        credit(id, 1, ALICE, 50);
        asPayer();
        escrow.dispute(id, ALICE, 1_001, REF);
        IBudgetPool.LineState memory l = line(id, ALICE);
        eq(l.pending, 49, "pending");
        eq(l.nextAmount, 49, "nextAmount");
        eq(l.nextAt, START + 3 * W, "nextAt");
        vm.warp(START + 2 * W);
        eq(line(id, ALICE).matured, 0, "not before its time");
    }

    function test_never_touches_matured_money() public {
        vm.warp(START + W);
        credit(id, 1, ALICE, 50);
        vm.warp(START + 2 * W);
        refused(
            id,
            vm.addr(PAYER),
            abi.encodeCall(escrow.dispute, (id, ALICE, 51, REF)),
            reason(IBudgetPool.DisputeOverPending.selector, abi.encode(51, 50))
        );
        asPayer();
        escrow.dispute(id, ALICE, 50, REF);
        eq(line(id, ALICE).matured, 1_000, "matured");
        eq(line(id, ALICE).pending, 0, "pending");
    }

    function test_all_that_is_pending_and_not_a_unit_more() public {
        refused(
            id,
            vm.addr(PAYER),
            abi.encodeCall(escrow.dispute, (id, ALICE, 1_001, REF)),
            reason(IBudgetPool.DisputeOverPending.selector, abi.encode(1_001, 1_000))
        );
        asPayer();
        escrow.dispute(id, ALICE, 1_000, REF);
        refused(
            id,
            vm.addr(PAYER),
            abi.encodeCall(escrow.dispute, (id, BOB, 1, REF)),
            reason(IBudgetPool.DisputeOverPending.selector, abi.encode(1, 0))
        );
        refused(
            id,
            vm.addr(PAYER),
            abi.encodeCall(escrow.dispute, (id, ALICE, 0, REF)),
            reason(IBudgetPool.ZeroAmount.selector)
        );
    }

    function test_a_reference_works_once() public {
        asPayer();
        escrow.dispute(id, ALICE, 1, REF);
        bytes memory used = reason(IBudgetPool.RefUsed.selector, abi.encode(id, ALICE, REF));
        refused(id, vm.addr(PAYER), abi.encodeCall(escrow.dispute, (id, ALICE, 1, REF)), used);
        rule(id, ALICE, 0);
        refused(id, vm.addr(PAYER), abi.encodeCall(escrow.dispute, (id, ALICE, 1, REF)), used);
        asPayer();
        escrow.dispute(id, ALICE, 1, "dispute two");
    }

    function test_only_the_payer_disputes() public {
        address authorizer = vm.addr(AUTHORIZER);
        bytes memory notPayer = reason(IBudgetPool.NotPayer.selector, abi.encode(authorizer, vm.addr(PAYER)));
        refused(id, authorizer, abi.encodeCall(escrow.dispute, (id, ALICE, 1, REF)), notPayer);
    }

    function test_the_payers_signature_disputes_once_from_anyones_hand() public {
        bytes memory signature = signed(PAYER, 400, REF, uint64(START));
        escrow.disputeWithSig(id, ALICE, 400, REF, uint64(START), signature);
        eq(line(id, ALICE).pending, 600, "pending");
        refused(
            id,
            vm.addr(STRANGER),
            abi.encodeCall(escrow.disputeWithSig, (id, ALICE, 400, REF, uint64(START), signature)),
            reason(IBudgetPool.RefUsed.selector, abi.encode(id, ALICE, REF))
        );
    }

    function test_refuses_a_strange_or_late_signature() public {
        bytes memory signature = signed(AUTHORIZER, 400, REF, FOREVER);
        refused(
            id,
            vm.addr(STRANGER),
            abi.encodeCall(escrow.disputeWithSig, (id, ALICE, 400, REF, FOREVER, signature)),
            reason(IBudgetPool.BadSignature.selector, abi.encode(vm.addr(PAYER)))
        );
        signature = signed(PAYER, 400, REF, FOREVER);
        refused(
            id,
            vm.addr(STRANGER),
            abi.encodeCall(escrow.disputeWithSig, (id, ALICE, 401, REF, FOREVER, signature)),
            reason(IBudgetPool.BadSignature.selector, abi.encode(vm.addr(PAYER)))
        );
        signature = signed(PAYER, 400, REF, uint64(START - 1));
        refused(
            id,
            vm.addr(STRANGER),
            abi.encodeCall(escrow.disputeWithSig, (id, ALICE, 400, REF, uint64(START - 1), signature)),
            reason(IBudgetPool.DeadlinePassed.selector, abi.encode(START - 1, START))
        );
    }

    function test_without_a_dispute_window_nothing_can_be_disputed() public {
        IBudgetPool.Terms memory t = terms();
        t.disputeWindow = 0;
        id = open(t, DEPOSIT);
        credit(id, 0, ALICE, 100);
        refused(
            id,
            vm.addr(PAYER),
            abi.encodeCall(escrow.dispute, (id, ALICE, 1, REF)),
            reason(IBudgetPool.DisputeOverPending.selector, abi.encode(1, 0))
        );
    }

    function test_refuses_more_than_a_pool_can_count_as_disputed() public {
        IBudgetPool.Terms memory t = terms();
        (t.perRecordCap, t.windowCap, t.windowLength) = (type(uint40).max, type(uint56).max, 1);
        uint256 half = uint256(type(uint40).max) << 16;
        id = open(t, half);
        bytes memory records = record(0, type(uint40).max);
        for (uint256 i = 0; i < 16; ++i) {
            records = abi.encodePacked(records, records);
        }
        settle(id, batch(0, ALICE, records));
        usdc.mint(address(this), half);
        usdc.approve(address(escrow), half);
        escrow.topUpDirect(id, half);
        vm.warp(START + 1);
        settle(id, batch(1 << 16, ALICE, records));
        refused(
            id,
            vm.addr(PAYER),
            abi.encodeCall(escrow.dispute, (id, ALICE, uint64(2 * half), REF)),
            reason(SafeCast.SafeCastOverflowedUintDowncast.selector, abi.encode(56, 2 * half))
        );
        dispute(id, ALICE, uint64(half));
        eq(line(id, ALICE).pending, half, "pending");
    }
}
