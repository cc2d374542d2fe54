// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../../src/interfaces/IBudgetPool.sol";
import {Base} from "../Base.sol";
import {Books} from "./Books.sol";
import {Handler} from "./Handler.sol";

/// @title What holds after every call of a walk. `Handler` makes the calls; `Books` says what each must have changed.
abstract contract Walk is Base {
    Handler internal handler;

    function setUp() public virtual {
        handler = new Handler();
        (escrow, usdc) = (handler.escrowOf(), handler.usdcOf());
    }

    /// @dev I4, I5, I6, I9, I10: what a call itself found wrong.
    function noCallDidWhatTheBooksForbid() internal view {
        string memory broken = handler.broken();
        vm.assertTrue(bytes(broken).length == 0, broken);
    }

    /// @dev I1, I2.
    function everyUnitIsAccountedFor() internal view {
        uint256 all = escrow.fees();
        for (uint256 i = 0; i < handler.count(); ++i) {
            bytes32 id = handler.ids(i);
            Books.Book memory b = handler.bookOf(id);
            uint256 here = inside(id);
            eq(b.deposited, here + b.withdrawn + b.reclaimed, "I2");
            all += here;
        }
        eq(escrow.totalHeld(), all, "I1 held");
        eq(usdc.balanceOf(address(escrow)), all + handler.donated(), "I1 balance");
        vm.assertTrue(escrow.solvent(), "I1 solvent");
    }

    /// @dev I3, I11, I14: everybody has exactly what the books say was paid, and nobody else has anything.
    function moneyGoesOnlyWhereItMay() internal view {
        uint256 known = usdc.balanceOf(address(escrow));
        for (uint256 who = 0; who < 3; ++who) {
            known += holds(handler.provider(who)) + holds(handler.payee(who));
        }
        known += holds(FEES) + holds(handler.payers(0)) + holds(handler.payers(1));
        eq(usdc.totalSupply(), known, "I3 somebody else was paid");
        eq(escrow.fees(), handler.feesDue(), "I11 fees");
    }

    /// @dev I6, I7, I8, I15.
    function poolsAndLinesAreAsTheBooksSay() internal view {
        for (uint256 i = 0; i < handler.count(); ++i) {
            bytes32 id = handler.ids(i);
            samePool(id, handler.bookOf(id));
            for (uint256 who = 0; who < 3; ++who) sameLine(id, who);
        }
    }

    function samePool(bytes32 id, Books.Book memory b) internal view {
        IBudgetPool.PoolState memory p = escrow.pool(id);
        vm.assertTrue(escrow.poolIdOf(b.terms) == id && p.payer == b.terms.payer, "I15 terms");
        vm.assertTrue(p.perRecordCap == b.terms.perRecordCap && p.windowCap == b.terms.windowCap, "I15 caps");
        vm.assertTrue(p.windowLength == b.terms.windowLength && p.feeBps == b.terms.feeBps, "I15 window, fee");
        vm.assertTrue(p.disputeWindow == b.terms.disputeWindow && p.closeDelay == b.terms.closeDelay, "I15 delays");
        vm.assertTrue(p.authorizer == handler.authorizers(b.key - AUTHORIZER), "authorizer");
        vm.assertTrue(p.endsAt == b.endsAt && p.closing == b.closing && p.endsAt <= b.terms.expiry, "end");
        eq(p.free, b.free, "free");
        eq(p.disputed, b.disputed, "disputed");
        uint256 spent = b.window == now_() / b.terms.windowLength ? b.spent : 0;
        eq(p.windowRemaining, b.terms.windowCap - spent, "I6 window");
    }

    /// @dev To the unit, and at the second.
    function sameLine(bytes32 id, uint256 who) internal view {
        IBudgetPool.LineState memory l = escrow.lineOf(id, handler.provider(who));
        (bool allowed, uint256 matured, uint256 pending) = handler.lineAt(id, who);
        eq(l.matured, matured, "I7, I8 matured");
        eq(l.pending, pending, "I8 pending");
        eq(l.nextAt, handler.maturesAt(id, who), "I8 next");
        vm.assertTrue(l.allowed == allowed, "allowed");
    }

    /// @dev I13, and I14: calls that need nobody's consent empty the contract, but for what is owed to an account that the
    /// token itself stops, until it no longer does.
    function drain() internal {
        uint256 last = now_();
        for (uint256 i = 0; i < handler.count(); ++i) {
            uint256 end = handler.bookOf(handler.ids(i)).endsAt + 14 days + 2 * W;
            if (end > last) last = end;
        }
        vm.warp(last);
        for (uint256 i = 0; i < handler.disputeCount(); ++i) {
            Books.Dispute memory d = handler.disputeAt(i);
            if (d.open) escrow.resolveByTimeout(d.id, handler.provider(d.who), bytes32(i));
        }
        uint256 stuck = emptyLines();
        for (uint256 i = 0; i < handler.count(); ++i) {
            if (free(handler.ids(i)) != 0) escrow.reclaim(handler.ids(i));
        }
        if (escrow.fees() != 0) escrow.withdrawFees();
        eq(escrow.totalHeld(), stuck, "I13 held");
        if (!handler.blacklisted()) {
            eq(stuck, 0, "I14");
            return;
        }
        handler.blacklist(false);
        eq(emptyLines(), 0, "I13 lines");
        if (escrow.fees() != 0) escrow.withdrawFees();
        eq(escrow.totalHeld(), 0, "I13");
    }

    function emptyLines() private returns (uint256 left) {
        IBudgetPool.Claim[] memory claims = new IBudgetPool.Claim[](3 * handler.count());
        for (uint256 i = 0; i < claims.length; ++i) {
            claims[i] = IBudgetPool.Claim(handler.ids(i / 3), handler.provider(i % 3));
        }
        escrow.withdrawMany(claims);
        for (uint256 i = 0; i < claims.length; ++i) {
            IBudgetPool.LineState memory l = escrow.lineOf(claims[i].poolId, claims[i].provider);
            left += l.matured;
            eq(l.pending, 0, "I13 still waiting");
        }
    }

    function inside(bytes32 id) internal view returns (uint256 sum) {
        IBudgetPool.PoolState memory p = escrow.pool(id);
        sum = uint256(p.free) + p.disputed;
        for (uint256 who = 0; who < 3; ++who) {
            IBudgetPool.LineState memory l = escrow.lineOf(id, handler.provider(who));
            sum += uint256(l.matured) + l.pending;
        }
    }

    function holds(address who) internal view returns (uint256 balance) {
        balance = usdc.balanceOf(who);
        eq(balance, handler.paid(who), "I3 paid");
    }
}
