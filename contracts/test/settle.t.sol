// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {ContractAccount} from "./Accounts.sol";
import {Test} from "./Base.sol";

contract SettleTest is Test {
    bytes32 internal id;

    function setUp() public override {
        super.setUp();
        id = open();
    }

    function test_credits_the_net_of_each_provider() public {
        bytes memory packed =
            batch(4, ALICE, BOB, abi.encodePacked(record(0, 10), record(1, 20), record(0, 1_000_000)));
        bytes memory signature = batchSignature(AUTHORIZER, id, packed, FOREVER);
        vm.expectEmit(address(escrow));
        emit IBudgetPool.Credited(id, ALICE, 1_000_010, 4);
        vm.expectEmit(address(escrow));
        emit IBudgetPool.Credited(id, BOB, 20, 4);
        vm.expectEmit(address(escrow));
        emit IBudgetPool.BatchSettled(id, 4, 3, 1_000_030, ROOT);
        vm.prank(vm.addr(STRANGER));
        escrow.settle(id, packed, ROOT, FOREVER, signature);
        eq(line(id, ALICE).pending, 1_000_010, "alice");
        eq(line(id, BOB).pending, 20, "bob");
        eq(free(id), DEPOSIT - 1_000_030, "free");
        eq(escrow.totalHeld(), DEPOSIT, "held");
        for (uint256 seq = 0; seq < 9; ++seq) {
            vm.assertTrue(escrow.isSettled(id, seq) == (seq >= 4 && seq < 7), "bits");
        }
    }

    function test_a_provider_listed_twice_gets_both() public {
        settle(id, batch(0, ALICE, ALICE, abi.encodePacked(record(0, 3), record(1, 4))));
        eq(line(id, ALICE).pending, 7, "alice");
    }

    function test_a_sequence_number_settles_once() public {
        settle(id, batch(10, ALICE, abi.encodePacked(record(0, 1), record(0, 1))));
        already(10, 1, 10);
        already(11, 1, 11);
        already(9, 2, 10);
        already(8, 8, 10);
        credit(id, 9, ALICE, 1);
        credit(id, 12, ALICE, 1);
        already(0, 40, 9);
    }

    function already(uint256 first, uint256 count, uint256 clash) internal {
        refused(id, batch(first, ALICE, repeated(count)), reason(IBudgetPool.AlreadySettled.selector, abi.encode(id, clash)));
    }

    function repeated(uint256 count) internal pure returns (bytes memory all) {
        for (uint256 i = 0; i < count; ++i) {
            all = abi.encodePacked(all, record(0, 1));
        }
    }

    function test_bits_across_words() public {
        settle(id, batch(250, ALICE, repeated(300)));
        vm.assertTrue(!escrow.isSettled(id, 249) && escrow.isSettled(id, 250), "first");
        vm.assertTrue(escrow.isSettled(id, 255) && escrow.isSettled(id, 256), "word");
        vm.assertTrue(escrow.isSettled(id, 511) && escrow.isSettled(id, 512), "word");
        vm.assertTrue(escrow.isSettled(id, 549) && !escrow.isSettled(id, 550), "last");
        already(549, 1, 549);
        already(511, 2, 511);
        settle(id, batch(768, ALICE, repeated(256)));
        already(767, 2, 768);
        already(1023, 1, 1023);
        credit(id, 767, ALICE, 1);
        credit(id, 1024, ALICE, 1);
    }

    function test_the_last_sequence_number() public {
        uint256 last = type(uint32).max;
        credit(id, last, ALICE, 1);
        vm.assertTrue(escrow.isSettled(id, last), "last");
        refused(
            id,
            batch(last, ALICE, repeated(2)),
            reason(IBudgetPool.SequenceOverflow.selector, abi.encode(last, 2))
        );
    }

    function test_refuses_bytes_that_are_no_batch() public {
        bytes[7] memory bad = [
            bytes(""),
            hex"00000000",
            hex"0000000000",
            hex"0000000001",
            abi.encodePacked(uint32(0), uint8(0), record(0, 1)),
            batch(0, ALICE, ""),
            abi.encodePacked(batch(0, ALICE, record(0, 1)), uint8(0))
        ];
        for (uint256 i = 0; i < bad.length; ++i) {
            refused(id, bad[i], reason(IBudgetPool.BadWire.selector, abi.encode(bad[i].length)));
        }
    }

    function test_refuses_bad_records_by_name() public {
        bytes memory good = record(0, 1_000_000);
        refused(
            id,
            batch(7, ALICE, abi.encodePacked(good, record(1, 1))),
            reason(IBudgetPool.BadProviderIndex.selector, abi.encode(8, 1, 1))
        );
        refused(
            id,
            batch(7, ALICE, abi.encodePacked(good, record(255, 0))),
            reason(IBudgetPool.BadProviderIndex.selector, abi.encode(8, 255, 1))
        );
        refused(
            id, batch(7, ALICE, abi.encodePacked(good, record(0, 0))), reason(IBudgetPool.ZeroRecord.selector, abi.encode(8))
        );
        refused(
            id,
            batch(7, ALICE, abi.encodePacked(good, record(0, 1_000_001))),
            reason(IBudgetPool.RecordOverCap.selector, abi.encode(8, 1_000_001, 1_000_000))
        );
        refused(
            id,
            batch(7, ALICE, BOB, abi.encodePacked(good, good)),
            reason(IBudgetPool.UnusedProvider.selector, abi.encode(BOB))
        );
        refused(
            id,
            batch(7, ALICE, CAROL, abi.encodePacked(good, record(1, 1))),
            reason(IBudgetPool.ProviderNotAllowed.selector, abi.encode(id, CAROL))
        );
    }

    function test_the_window_lets_its_cap_through_and_not_a_unit_more() public {
        bytes memory three = abi.encodePacked(record(0, 1_000_000), record(0, 1_000_000), record(0, 1_000_000));
        settle(id, batch(0, ALICE, three));
        eq(escrow.pool(id).windowRemaining, 1_000_000, "remaining");
        refused(
            id,
            batch(3, ALICE, abi.encodePacked(record(0, 1_000_000), record(0, 1))),
            reason(IBudgetPool.WindowOverCap.selector, abi.encode(4_000_001, 4_000_000))
        );
        credit(id, 3, ALICE, 1_000_000);
        eq(escrow.pool(id).windowRemaining, 0, "remaining");
        uint256 next = (START / 6 hours + 1) * 6 hours;
        vm.warp(next - 1);
        refused(
            id, batch(4, ALICE, record(0, 1)), reason(IBudgetPool.WindowOverCap.selector, abi.encode(4_000_001, 4_000_000))
        );
        vm.warp(next);
        eq(escrow.pool(id).windowRemaining, 4_000_000, "remaining");
        credit(id, 4, ALICE, 1);
        eq(escrow.pool(id).windowRemaining, 3_999_999, "remaining");
        refused(
            id,
            batch(5, ALICE, abi.encodePacked(three, record(0, 1_000_000))),
            reason(IBudgetPool.WindowOverCap.selector, abi.encode(4_000_001, 4_000_000))
        );
    }

    function test_spends_all_that_is_free_and_not_a_unit_more() public {
        id = open(terms(), 1_500_000);
        refused(
            id,
            batch(0, ALICE, abi.encodePacked(record(0, 1_000_000), record(0, 500_001))),
            reason(IBudgetPool.InsufficientFree.selector, abi.encode(1_500_001, 1_500_000))
        );
        settle(id, batch(0, ALICE, abi.encodePacked(record(0, 1_000_000), record(0, 500_000))));
        eq(free(id), 0, "free");
    }

    function test_the_deadline_is_the_last_second() public {
        bytes memory packed = batch(0, ALICE, record(0, 1));
        uint64 deadline = uint64(START + 10);
        bytes memory signature = batchSignature(AUTHORIZER, id, packed, deadline);
        vm.warp(deadline + 1);
        refused(
            id,
            address(this),
            abi.encodeCall(escrow.settle, (id, packed, ROOT, deadline, signature)),
            reason(IBudgetPool.DeadlinePassed.selector, abi.encode(deadline, deadline + 1))
        );
        vm.warp(deadline);
        escrow.settle(id, packed, ROOT, deadline, signature);
    }

    function test_only_the_authorizers_signature_over_exactly_this() public {
        bytes memory packed = batch(0, ALICE, record(0, 1));
        bytes32 other = open();
        badSignature(packed, ROOT, FOREVER, batchSignature(PAYER, id, packed, FOREVER));
        badSignature(packed, ROOT, FOREVER, batchSignature(AUTHORIZER, other, packed, FOREVER));
        badSignature(packed, ROOT, FOREVER - 1, batchSignature(AUTHORIZER, id, packed, FOREVER));
        badSignature(packed, bytes32(0), FOREVER, batchSignature(AUTHORIZER, id, packed, FOREVER));
        badSignature(batch(0, ALICE, record(0, 2)), ROOT, FOREVER, batchSignature(AUTHORIZER, id, packed, FOREVER));
        badSignature(packed, ROOT, FOREVER, "");
        badSignature(packed, ROOT, FOREVER, new bytes(65));
        settle(id, packed);
    }

    function badSignature(bytes memory packed, bytes32 root, uint64 deadline, bytes memory signature) internal {
        refused(
            id,
            address(this),
            abi.encodeCall(escrow.settle, (id, packed, root, deadline, signature)),
            reason(IBudgetPool.BadSignature.selector, abi.encode(vm.addr(AUTHORIZER)))
        );
    }

    function test_an_erc1271_authorizer() public {
        IBudgetPool.Terms memory t = terms();
        t.authorizer = address(new ContractAccount(vm.addr(AUTHORIZER)));
        id = open(t, DEPOSIT);
        credit(id, 0, ALICE, 5);
        eq(line(id, ALICE).pending, 5, "pending");
    }

    function test_an_authorizer_whose_account_got_code_still_signs() public {
        vm.etch(vm.addr(AUTHORIZER), hex"00");
        credit(id, 0, ALICE, 5);
        eq(line(id, ALICE).pending, 5, "pending");
    }

    function test_nothing_settles_from_the_end_on() public {
        uint256 end = escrow.pool(id).endsAt;
        vm.warp(end - 1);
        credit(id, 0, ALICE, 1);
        vm.warp(end);
        refused(id, batch(1, ALICE, record(0, 1)), reason(IBudgetPool.PoolEnded.selector, abi.encode(end, end)));
    }
}
