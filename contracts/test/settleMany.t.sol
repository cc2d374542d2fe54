// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {ContractAccount, GasBurner} from "./Accounts.sol";
import {Test} from "./Base.sol";

contract SettleManyTest is Test {
    bytes32 internal id;

    function setUp() public override {
        super.setUp();
        id = open();
    }

    function item(bytes32 poolId, bytes memory packed) internal view returns (IBudgetPool.SignedBatch memory) {
        bytes memory signature = batchSignature(AUTHORIZER, poolId, packed, FOREVER);
        return IBudgetPool.SignedBatch(poolId, packed, ROOT, FOREVER, signature);
    }

    function one(bytes32 poolId, uint256 seq, uint256 amount) internal view returns (IBudgetPool.SignedBatch memory) {
        return item(poolId, batch(seq, ALICE, record(0, amount)));
    }

    function test_of_forty_pools_one_poisoned_stops_nobody_else() public {
        IBudgetPool.SignedBatch[] memory all = new IBudgetPool.SignedBatch[](40);
        for (uint256 i = 0; i < all.length; ++i) {
            all[i] = one(open(), 0, i + 1);
        }
        all[17].signature = "";
        bytes32 poisoned = all[17].poolId;
        bytes32 state = keccak256(abi.encode(escrow.pool(poisoned), line(poisoned, ALICE)));
        vm.expectEmit(address(escrow));
        emit IBudgetPool.Credited(all[16].poolId, ALICE, 17, 0);
        vm.expectEmit(address(escrow));
        emit IBudgetPool.BatchSettled(all[16].poolId, 0, 1, 17, ROOT);
        vm.expectEmit(address(escrow));
        emit IBudgetPool.ItemRejected(
            poisoned, reason(IBudgetPool.BadSignature.selector, abi.encode(vm.addr(AUTHORIZER)))
        );
        vm.expectEmit(address(escrow));
        emit IBudgetPool.Credited(all[18].poolId, ALICE, 19, 0);
        vm.prank(vm.addr(STRANGER));
        escrow.settleMany(all);
        for (uint256 i = 0; i < all.length; ++i) {
            eq(line(all[i].poolId, ALICE).pending, i == 17 ? 0 : i + 1, "pending");
        }
        vm.assertTrue(state == keccak256(abi.encode(escrow.pool(poisoned), line(poisoned, ALICE))), "poisoned");
        eq(escrow.totalHeld(), 41 * DEPOSIT, "held");
    }

    // ------------------------------------------------------------------ why one was left out

    /// @dev Alone and in the midst of others: the reason is the revert data of `settle`, and nothing of the pool's moved.
    function rejected(IBudgetPool.SignedBatch memory bad, bytes memory expected) internal {
        bytes memory call =
            abi.encodeCall(escrow.settle, (bad.poolId, bad.packed, bad.root, bad.deadline, bad.signature));
        refused(bad.poolId, address(this), call, expected);
        bytes32 other = open();
        IBudgetPool.SignedBatch[] memory all = new IBudgetPool.SignedBatch[](3);
        (all[0], all[1], all[2]) = (one(other, 0, 1), bad, one(other, 1, 1));
        bytes32 before = money(bad.poolId);
        vm.expectEmit(address(escrow));
        emit IBudgetPool.ItemRejected(bad.poolId, expected);
        escrow.settleMany(all);
        eq(line(other, ALICE).pending, 2, "the others");
        unmoved(bad.poolId, before);
    }

    function rejected(bytes memory packed, bytes memory expected) internal {
        rejected(item(id, packed), expected);
    }

    function test_every_bad_batch_is_named() public {
        bytes memory good = record(0, 1);
        credit(id, 5, ALICE, 1);
        rejected(bytes(""), reason(IBudgetPool.BadWire.selector, abi.encode(0)));
        rejected(
            batch(type(uint32).max, ALICE, abi.encodePacked(good, good)),
            reason(IBudgetPool.SequenceOverflow.selector, abi.encode(type(uint32).max, 2))
        );
        rejected(
            batch(4, ALICE, abi.encodePacked(good, good)),
            reason(IBudgetPool.AlreadySettled.selector, abi.encode(id, 5))
        );
        rejected(batch(6, ALICE, record(1, 1)), reason(IBudgetPool.BadProviderIndex.selector, abi.encode(6, 1, 1)));
        rejected(batch(6, ALICE, record(0, 0)), reason(IBudgetPool.ZeroRecord.selector, abi.encode(6)));
        rejected(
            batch(6, ALICE, record(0, 1_000_001)),
            reason(IBudgetPool.RecordOverCap.selector, abi.encode(6, 1_000_001, 1_000_000))
        );
        rejected(batch(6, CAROL, good), reason(IBudgetPool.ProviderNotAllowed.selector, abi.encode(id, CAROL)));
        rejected(batch(6, ALICE, BOB, good), reason(IBudgetPool.UnusedProvider.selector, abi.encode(BOB)));
    }

    function test_every_signature_that_does_not_hold_is_named() public {
        IBudgetPool.SignedBatch memory bad = one(id, 0, 1);
        bad.root = "another";
        rejected(bad, reason(IBudgetPool.BadSignature.selector, abi.encode(vm.addr(AUTHORIZER))));
        bad.deadline = uint64(START - 1);
        rejected(bad, reason(IBudgetPool.DeadlinePassed.selector, abi.encode(START - 1, START)));
        bad.poolId = "nobody";
        rejected(bad, reason(IBudgetPool.NoSuchPool.selector, abi.encode(bytes32("nobody"))));
    }

    function test_every_limit_is_named() public {
        bytes memory most = record(0, 1_000_000);
        bytes32 poor = open(terms(), 999_999);
        rejected(
            item(poor, batch(0, ALICE, most)),
            reason(IBudgetPool.InsufficientFree.selector, abi.encode(1_000_000, 999_999))
        );
        rejected(
            batch(0, ALICE, abi.encodePacked(most, most, most, most, record(0, 1))),
            reason(IBudgetPool.WindowOverCap.selector, abi.encode(4_000_001, 4_000_000))
        );
        IBudgetPool.Terms memory t = terms();
        t.expiry = uint64(START + 1);
        bytes32 brief = open(t, DEPOSIT);
        vm.warp(START + 1);
        rejected(one(brief, 0, 1), reason(IBudgetPool.PoolEnded.selector, abi.encode(START + 1, START + 1)));
    }

    // ------------------------------------------------------------------ one pool, and none

    function test_batches_of_one_pool_land_in_order_and_the_same_one_once() public {
        IBudgetPool.SignedBatch[] memory all = new IBudgetPool.SignedBatch[](4);
        (all[0], all[1], all[2], all[3]) = (one(id, 0, 10), one(id, 1, 200), one(id, 0, 10), one(id, 2, 3_000));
        vm.expectEmit(address(escrow));
        emit IBudgetPool.ItemRejected(id, reason(IBudgetPool.AlreadySettled.selector, abi.encode(id, 0)));
        escrow.settleMany(all);
        eq(line(id, ALICE).pending, 3_210, "pending");
        eq(free(id), DEPOSIT - 3_210, "free");
    }

    function test_an_empty_list_is_no_error() public {
        bytes32 before = money(id);
        escrow.settleMany(new IBudgetPool.SignedBatch[](0));
        unmoved(id, before);
    }

    // ------------------------------------------------------------------ gas

    function test_an_authorizer_that_burns_gas_burns_only_its_share() public {
        IBudgetPool.Terms memory t = terms();
        t.authorizer = address(new GasBurner());
        bytes32 burning = open(t, DEPOSIT);
        IBudgetPool.SignedBatch[] memory all = new IBudgetPool.SignedBatch[](4);
        (all[0], all[1], all[2], all[3]) = (one(id, 0, 1), one(burning, 0, 1), one(id, 1, 1), one(id, 2, 1));
        all[1].signature = "";
        bytes32 before = money(burning);
        vm.expectEmit(address(escrow));
        emit IBudgetPool.ItemRejected(burning, reason(IBudgetPool.BadSignature.selector, abi.encode(t.authorizer)));
        uint256 gas = gasleft();
        escrow.settleMany{gas: 2_000_000}(all);
        vm.assertTrue(gas - gasleft() < 800_000, "a quarter, and what the others need");
        eq(line(id, ALICE).pending, 3, "the others");
        unmoved(burning, before);
    }

    function test_too_little_gas_lands_nothing_and_never_passes_for_a_batchs_own_fault() public {
        IBudgetPool.Terms memory t = terms();
        t.authorizer = address(new ContractAccount(vm.addr(AUTHORIZER)));
        bytes32 wallet = open(t, DEPOSIT);
        IBudgetPool.SignedBatch[] memory all = new IBudgetPool.SignedBatch[](3);
        (all[0], all[1], all[2]) = (one(id, 0, 1), one(wallet, 0, 1), one(id, 1, 1));
        bytes memory call = abi.encodeCall(escrow.settleMany, (all));
        bytes32 before = money(id);
        bytes32 beforeWallet = money(wallet);
        uint256[3] memory starved;
        for (uint256 gas = 30_000;; gas += 1_000) {
            (bool landed, bytes memory why) = address(escrow).call{gas: gas}(call);
            if (landed) break;
            unmoved(id, before);
            unmoved(wallet, beforeWallet);
            for (uint256 i = 0; i < starved.length; ++i) {
                if (keccak256(why) == keccak256(reason(IBudgetPool.ItemOutOfGas.selector, abi.encode(i)))) ++starved[i];
            }
        }
        vm.assertTrue(starved[0] != 0, "the first");
        vm.assertTrue(starved[1] != 0, "the second");
        eq(line(id, ALICE).pending, 2, "all at once");
        eq(line(wallet, ALICE).pending, 1, "all at once");
    }
}
