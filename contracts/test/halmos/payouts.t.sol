// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../../src/interfaces/IBudgetPool.sol";
import {Symbolic} from "./Symbolic.sol";

contract PayoutChecks is Symbolic {
    /// @dev A line of ALICE's with `a` matured, `b` still waiting.
    function fill(uint40 a, uint40 b) internal {
        vm.assume(settle(one(0, ALICE, a)));
        vm.warp(START + 2 * W);
        vm.assume(settle(one(1, ALICE, b)));
        assert(lineOf(ALICE).matured == a && lineOf(ALICE).pending == b);
    }

    /// @dev I7: whoever disputes how much, what has matured stays.
    function check_I7_a_dispute_never_touches_what_matured(uint40 a, uint40 b, uint64 amount, address caller) public {
        fill(a, b);
        vm.prank(caller);
        (bool passed,) = address(escrow).call(abi.encodeCall(escrow.dispute, (id, ALICE, amount, REF)));
        assert(passed == (caller == PAYER && amount != 0 && amount <= b));
        assert(lineOf(ALICE).matured == a);
        assert(lineOf(ALICE).pending == (passed ? b - amount : b));
    }

    /// @dev I7: neither the payer's close and reclaim nor anybody's withdrawal for another takes from what matured.
    function check_I7_the_end_takes_nothing_of_a_line(uint40 a, uint40 b, uint32 time) public {
        fill(a, b);
        vm.assume(time >= END);
        vm.warp(time);
        escrow.reclaim(id);
        assert(uint256(lineOf(ALICE).matured) + lineOf(ALICE).pending == uint256(a) + b);
        assert(token.balanceOf(address(escrow)) == uint256(a) + b);
    }

    /// @dev I9: only from the end on, all that is free, only to the payer, whoever asks.
    function check_I9_reclaim(uint40 amount, uint32 time, address caller) public {
        vm.assume(caller != address(escrow));
        vm.assume(settle(one(0, ALICE, amount)));
        vm.assume(time >= START);
        vm.warp(time);
        vm.prank(caller);
        (bool passed,) = address(escrow).call(abi.encodeCall(escrow.reclaim, (id)));
        assert(passed == (time >= END));
        assert(token.balanceOf(PAYER) == (passed ? DEPOSIT - amount : 0));
        assert(token.balanceOf(address(escrow)) == DEPOSIT - token.balanceOf(PAYER));
        assert(free() == (passed ? 0 : DEPOSIT - amount));
    }

    /// @dev I9: a close brings the end forward to its delay, and not further.
    function check_I9_reclaim_after_a_close(uint32 asked, uint32 time, address caller) public {
        vm.assume(asked >= START && asked < END && time >= asked);
        vm.warp(asked);
        vm.prank(caller);
        (bool closing,) = address(escrow).call(abi.encodeCall(escrow.requestClose, (id)));
        assert(closing == (caller == PAYER));
        vm.warp(time);
        (bool passed,) = address(escrow).call(abi.encodeCall(escrow.reclaim, (id)));
        assert(passed == (time >= END || (closing && time >= uint256(asked) + W)));
    }

    /// @dev I10: the arbiter alone, at most what is disputed, and not a unit is made or lost.
    function check_I10_a_ruling_conserves(uint40 a, uint64 amount, uint64 share, address caller, uint32 time) public {
        vm.assume(settle(one(0, ALICE, a)));
        uint256 before = free();
        vm.prank(PAYER);
        (bool open_,) = address(escrow).call(abi.encodeCall(escrow.dispute, (id, ALICE, amount, REF)));
        vm.assume(open_);
        vm.assume(time >= START);
        vm.warp(time);
        vm.prank(caller);
        (bool passed,) = address(escrow).call(abi.encodeCall(escrow.resolve, (terms, ALICE, REF, share)));
        assert(passed == (caller == ARBITER && share <= amount && time < START + 14 days));
        IBudgetPool.LineState memory line = lineOf(ALICE);
        uint256 held = free() + escrow.pool(id).disputed + line.matured + line.pending;
        assert(held == before + a);
        assert(free() == (passed ? before + amount - share : before));
    }

    /// @dev I10: silence pays the provider, after fourteen days, once, also where another dispute would pay for it.
    function check_I10_silence_pays_the_provider(uint40 a, uint40 amount, uint40 more, uint32 time) public {
        vm.assume(settle(one(0, ALICE, a)));
        uint256 before = free();
        vm.assume(amount != 0 && more != 0 && uint256(amount) + more <= a);
        vm.prank(PAYER);
        escrow.dispute(id, ALICE, amount, REF);
        vm.prank(PAYER);
        escrow.dispute(id, ALICE, more, "another");
        vm.assume(time >= START);
        vm.warp(time);
        bytes memory data = abi.encodeCall(escrow.resolveByTimeout, (id, ALICE, REF));
        (bool passed,) = address(escrow).call(data);
        assert(passed == (time >= START + 14 days));
        (bool again,) = address(escrow).call(data);
        assert(!again);
        assert(free() == before);
        assert(escrow.pool(id).disputed == (passed ? more : uint256(amount) + more));
    }

    /// @dev I11: what leaves and what is kept make what had matured; only the provider is paid, whoever asks.
    function check_I11_net_and_fee_make_what_matured(uint40 a, uint40 b, address caller) public {
        fill(a, b);
        vm.assume(caller != address(escrow));
        uint256 held = escrow.totalHeld();
        vm.prank(caller);
        (bool passed,) = address(escrow).call(abi.encodeCall(escrow.withdraw, (id, ALICE)));
        if (!passed) return; // that it passes, and at which rate the fee is, is fuzzed: a division is too hard here
        uint256 net = token.balanceOf(ALICE);
        assert(net + escrow.fees() == a);
        assert(escrow.totalHeld() == held - net && token.balanceOf(address(escrow)) == held - net);
        assert(lineOf(ALICE).matured == 0 && lineOf(ALICE).pending == b);
    }
}
