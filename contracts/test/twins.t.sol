// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {Test} from "./Base.sol";

interface SnapshotVm {
    function snapshotState() external returns (uint256 id);
    function revertToState(uint256 id) external returns (bool);
}

/// @dev Two courses of one history, from the same state: a list with an item that must fail, and the list without it.
contract TwinsTest is Test {
    SnapshotVm internal constant fork = SnapshotVm(address(vm));
    uint256 internal constant POISONS = 9;

    bytes32 internal id;
    bytes32 internal other;

    function setUp() public override {
        super.setUp();
        id = open();
        other = open();
        credit(id, 100, ALICE, 1_000);
        credit(other, 100, BOB, 1_000);
    }

    // ------------------------------------------------------------------ I16

    function test_settleMany_is_the_same_list_without_the_item_that_fails(uint256 seed, uint8 poison, uint8 place) public {
        IBudgetPool.SignedBatch[] memory good = new IBudgetPool.SignedBatch[](3);
        for (uint256 i = 0; i < 3; ++i) {
            uint256 dice = uint256(keccak256(abi.encode(seed, i)));
            bytes memory records = abi.encodePacked(record(0, 1 + dice % 1e6), record(1, 1 + (dice >> 32) % 1e6));
            good[i] = signed(AUTHORIZER, dice % 2 == 0 ? id : other, batch(2 * i, ALICE, BOB, records), FOREVER);
        }
        compare(good, poisoned(poison % POISONS), place % 4);
    }

    function test_the_same_whichever_way_an_item_fails_and_wherever_it_stands() public {
        IBudgetPool.SignedBatch[] memory good = new IBudgetPool.SignedBatch[](3);
        for (uint256 i = 0; i < 3; ++i) {
            bytes memory records = abi.encodePacked(record(0, 1 + i), record(1, 1e6));
            good[i] = signed(AUTHORIZER, i == 1 ? other : id, batch(2 * i, ALICE, BOB, records), FOREVER);
        }
        for (uint256 i = 0; i < POISONS * 4; ++i) compare(good, poisoned(i / 4), i % 4);
    }

    function compare(IBudgetPool.SignedBatch[] memory good, IBudgetPool.SignedBatch memory bad, uint256 place) internal {
        IBudgetPool.SignedBatch[] memory longer = new IBudgetPool.SignedBatch[](good.length + 1);
        for (uint256 i = 0; i < longer.length; ++i) {
            longer[i] = i == place ? bad : good[i < place ? i : i - 1];
        }
        bytes32 before = both();
        uint256 start = fork.snapshotState();
        escrow.settleMany(good);
        bytes32 without = both();
        vm.assertTrue(without != before, "the list does something");
        vm.assertTrue(fork.revertToState(start), "back");
        escrow.settleMany(longer);
        vm.assertTrue(both() == without, "I16");
        vm.assertTrue(fork.revertToState(start), "back");
    }

    function signed(uint256 key, bytes32 pool, bytes memory packed, uint64 deadline)
        internal
        view
        returns (IBudgetPool.SignedBatch memory)
    {
        return IBudgetPool.SignedBatch(pool, packed, ROOT, deadline, batchSignature(key, pool, packed, deadline));
    }

    function poisoned(uint256 kind) internal view returns (IBudgetPool.SignedBatch memory) {
        if (kind == 0) return signed(STRANGER, id, batch(50, ALICE, record(0, 1)), FOREVER);
        if (kind == 1) return signed(AUTHORIZER, id, batch(100, ALICE, record(0, 1)), FOREVER); // settled before
        if (kind == 2) return signed(AUTHORIZER, id, batch(50, CAROL, record(0, 1)), FOREVER); // not listed
        if (kind == 3) return signed(AUTHORIZER, id, batch(50, ALICE, record(0, 1e6 + 1)), FOREVER); // over its cap
        if (kind == 4) return signed(AUTHORIZER, id, batch(50, ALICE, record(0, 1)), uint64(START - 1)); // too late
        if (kind == 5) return signed(AUTHORIZER, bytes32("none"), batch(50, ALICE, record(0, 1)), FOREVER);
        if (kind == 6) return signed(AUTHORIZER, id, hex"0102", FOREVER);
        if (kind == 7) return signed(AUTHORIZER, id, batch(50, ALICE, BOB, record(0, 1)), FOREVER); // BOB unused
        bytes memory five;
        for (uint256 i = 0; i < 5; ++i) five = abi.encodePacked(five, record(0, 1e6));
        return signed(AUTHORIZER, id, batch(50, ALICE, five), FOREVER); // over the window
    }

    // ------------------------------------------------------------------ I14

    function test_who_is_blacklisted_changes_nobody_elses_outcome(uint256 place, uint32 amount) public {
        amount = 1 + amount % 1_000_000;
        credit(id, 0, BOB, amount);
        vm.warp(START + 2 * W);
        usdc.blacklist(ALICE);
        IBudgetPool.Claim[] memory without = new IBudgetPool.Claim[](2);
        (without[0], without[1]) = (IBudgetPool.Claim(id, BOB), IBudgetPool.Claim(other, BOB));
        IBudgetPool.Claim[] memory claims = new IBudgetPool.Claim[](3);
        place %= 3;
        for (uint256 i = 0; i < 3; ++i) {
            claims[i] = i == place ? IBudgetPool.Claim(id, ALICE) : without[i < place ? i : i - 1];
        }
        uint256 start = fork.snapshotState();
        escrow.withdrawMany(without);
        bytes32 expected = both();
        vm.assertTrue(usdc.balanceOf(BOB) != 0, "the list does something");
        vm.assertTrue(fork.revertToState(start), "back");
        escrow.withdrawMany(claims);
        vm.assertTrue(both() == expected, "I14");
        eq(line(id, ALICE).matured, 1_000, "hers waits");
    }

    function both() internal view returns (bytes32) {
        return keccak256(abi.encode(money(id), money(other)));
    }
}
