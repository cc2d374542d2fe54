// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../../src/interfaces/IBudgetPool.sol";
import {Handler} from "./Handler.sol";

/// @title What holds after every call of a walk. `Handler` makes the calls; `Books` says what each must have changed.
contract Walk is Handler {
    /// @dev I4, I5, I6, I9, I10: what a call itself found wrong.
    function noCallDidWhatTheBooksForbid() external view {
        vm.assertTrue(bytes(broken).length == 0, broken);
    }

    /// @dev I1, I2.
    function everyUnitIsAccountedFor() external view {
        uint256 all = escrow.fees();
        for (uint256 i = 0; i < ids.length; ++i) {
            bytes32 id = ids[i];
            Book storage b = books[id];
            uint256 here = inside(id);
            eq(b.deposited, here + b.withdrawn + b.reclaimed, "I2");
            all += here;
        }
        eq(escrow.totalHeld(), all, "I1 held");
        eq(usdc.balanceOf(address(escrow)), all + donated, "I1 balance");
        vm.assertTrue(escrow.solvent(), "I1 solvent");
    }

    /// @dev I3, I11, I14: everybody has exactly what the books say was paid, and nobody else has anything.
    function moneyGoesOnlyWhereItMay() external view {
        uint256 known = usdc.balanceOf(address(escrow));
        for (uint256 who = 0; who < 3; ++who) {
            known += holds(provider(who)) + holds(payee(who));
        }
        known += holds(FEES) + holds(payers[0]) + holds(payers[1]);
        eq(usdc.totalSupply(), known, "I3 somebody else was paid");
        eq(escrow.fees(), feesDue, "I11 fees");
    }

    /// @dev I6, I7, I8, I15.
    function poolsAndLinesAreAsTheBooksSay() external view {
        for (uint256 i = 0; i < ids.length; ++i) {
            bytes32 id = ids[i];
            samePool(id, books[id]);
            for (uint256 who = 0; who < 3; ++who) sameLine(id, who);
        }
    }

    function samePool(bytes32 id, Book storage b) private view {
        IBudgetPool.PoolState memory p = escrow.pool(id);
        vm.assertTrue(p.payer == b.terms.payer, "I15 payer");
        vm.assertTrue(p.perRecordCap == b.terms.perRecordCap && p.windowCap == b.terms.windowCap, "I15 caps");
        vm.assertTrue(p.windowLength == b.terms.windowLength && p.feeBps == b.terms.feeBps, "I15 window, fee");
        vm.assertTrue(p.disputeWindow == b.terms.disputeWindow && p.closeDelay == b.terms.closeDelay, "I15 delays");
        vm.assertTrue(p.authorizer == authorizers[b.key - AUTHORIZER], "authorizer");
        vm.assertTrue(p.endsAt == b.endsAt && p.closing == b.closing && p.endsAt <= b.terms.expiry, "end");
        eq(p.free, b.free, "free");
        eq(p.disputed, b.disputed, "disputed");
        uint256 spent = b.window == now_() / b.terms.windowLength ? b.spent : 0;
        eq(p.windowRemaining, b.terms.windowCap - spent, "I6 window");
    }

    /// @dev To the unit, and at the second.
    function sameLine(bytes32 id, uint256 who) private view {
        IBudgetPool.LineState memory l = escrow.lineOf(id, provider(who));
        (bool allowed, uint256 matured, uint256 pending) = lineAt(id, who);
        eq(l.matured, matured, "I7, I8 matured");
        eq(l.pending, pending, "I8 pending");
        eq(l.nextAt, maturesAt(id, who), "I8 next");
        vm.assertTrue(l.allowed == allowed, "allowed");
    }

    function inside(bytes32 id) private view returns (uint256 sum) {
        IBudgetPool.PoolState memory p = escrow.pool(id);
        sum = uint256(p.free) + p.disputed;
        for (uint256 who = 0; who < 3; ++who) {
            IBudgetPool.LineState memory l = escrow.lineOf(id, provider(who));
            sum += uint256(l.matured) + l.pending;
        }
    }

    function holds(address who) private view returns (uint256 balance) {
        balance = usdc.balanceOf(who);
        eq(balance, paid[who], "I3 paid");
    }
}
