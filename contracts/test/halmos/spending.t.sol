// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Symbolic} from "./Symbolic.sol";

contract SpendingChecks is Symbolic {
    /// @dev I4: whatever the amounts, a number that was used refuses another batch that has it, for ever.
    function check_I4_a_sequence_number_settles_once(uint40 a, uint40 b, uint32 time) public {
        vm.assume(settle(two(7, a, b)));
        vm.assume(time >= START);
        vm.warp(time);
        assert(escrow.isSettled(id, 7) && escrow.isSettled(id, 8));
        assert(!escrow.isSettled(id, 6) && !escrow.isSettled(id, 9));
        assert(!settle(one(8, ALICE, b)));
        assert(!settle(two(6, a, b)));
    }

    /// @dev I4: any one number, on its own.
    function check_I4_any_one_number(uint32 seq, uint32 other, uint40 amount) public {
        vm.assume(settle(one(seq, ALICE, amount)));
        assert(escrow.isSettled(id, seq));
        assert(other == seq || !escrow.isSettled(id, other));
        assert(!settle(one(seq, BOB, amount)));
    }

    /// @dev I5: what passes is exactly what was signed.
    function check_I5_nothing_passes_but_what_was_signed(
        uint40 amount,
        uint40 signedAmount,
        bytes32 root,
        bytes32 signedRoot,
        uint64 deadline,
        uint64 signedDeadline
    ) public {
        wallet.sign(digest(id, keccak256(one(0, ALICE, signedAmount)), signedRoot, signedDeadline));
        if (settle(id, one(0, ALICE, amount), root, deadline)) {
            assert(amount == signedAmount && root == signedRoot && deadline == signedDeadline);
            assert(deadline >= START);
        }
    }

    /// @dev I5: whatever digest was signed, it is not good for the same batch in two pools.
    function check_I5_a_batch_is_for_one_pool(uint40 amount, bytes32 salt, bytes32 signed) public {
        vm.assume(salt != 0 && signed != 0);
        bytes32 other = id;
        terms.salt = salt;
        id = open();
        vm.assume(id != other);
        wallet.sign(signed);
        bool here = settle(one(0, ALICE, amount));
        assert(!here || !settle(other, one(0, ALICE, amount), 0, type(uint64).max));
    }

    /// @dev I6: two records at any time.
    function check_I6_caps_and_the_end(uint40 a, uint40 b, uint32 time) public {
        vm.assume(time >= START);
        vm.warp(time);
        uint256 before = free();
        bool passed = settle(two(0, a, b));
        uint256 total = uint256(a) + b;
        bool may = a != 0 && b != 0 && a <= RECORD_CAP && b <= RECORD_CAP && total <= WINDOW_CAP && time < END;
        assert(!passed || may);
        assert(free() == (passed ? before - total : before));
    }

    /// @dev I6: two batches of one window are together below its cap.
    function check_I6_the_window_counts_every_batch(uint40 a, uint40 b, uint32 time) public {
        vm.assume(settle(one(0, ALICE, a)));
        vm.assume(time >= START && time < END);
        vm.warp(time);
        bool same = time / (4 * W) == START / (4 * W);
        bool passed = settle(one(1, BOB, b));
        assert(!passed || !same || uint256(a) + b <= WINDOW_CAP);
    }

    /// @dev I6: nothing settles from the end on that a close brought forward.
    function check_I6_nothing_after_a_close(uint40 amount, uint32 asked, uint32 time) public {
        vm.assume(asked >= START && asked < END && time >= asked);
        vm.warp(asked);
        vm.prank(PAYER);
        escrow.requestClose(id);
        uint256 endsAt = escrow.pool(id).endsAt;
        assert(endsAt <= END && endsAt <= uint256(asked) + W);
        vm.warp(time);
        if (settle(one(0, ALICE, amount))) assert(time < endsAt);
    }

    function digest(bytes32 pool, bytes32 packedHash, bytes32 root, uint64 deadline) internal view returns (bytes32) {
        bytes32 typeHash = keccak256("Batch(bytes32 poolId,bytes packed,bytes32 root,uint64 deadline)");
        bytes32 structHash = keccak256(abi.encode(typeHash, pool, packedHash, root, deadline));
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("BudgetPool"),
                keccak256("1"),
                block.chainid,
                address(escrow)
            )
        );
        return keccak256(abi.encodePacked(hex"1901", domain, structHash));
    }
}
