// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../../src/interfaces/IBudgetPool.sol";
import {Base} from "../Base.sol";
import {Books} from "./Books.sol";
import {Walk} from "./Walk.sol";

/// @title A test that walks, and what it finds at the end of the walk.
abstract contract Walking is Base {
    Walk internal walk;

    function setUp() public virtual {
        walk = new Walk();
        (escrow, usdc) = (walk.escrowOf(), walk.usdcOf());
    }

    /// @dev I13, and I14: calls that need nobody's consent empty the contract, but for what is owed to an account that the
    /// token itself stops, until it no longer does.
    function drain() internal {
        uint256 last = now_();
        for (uint256 i = 0; i < walk.count(); ++i) {
            uint256 end = walk.endOf(walk.ids(i)) + 14 days + 2 * W;
            if (end > last) last = end;
        }
        vm.warp(last);
        for (uint256 i = 0; i < walk.disputeCount(); ++i) {
            Books.Dispute memory d = walk.disputeAt(i);
            if (d.open) escrow.resolveByTimeout(d.id, walk.provider(d.who), bytes32(i));
        }
        uint256 stuck = emptyLines();
        for (uint256 i = 0; i < walk.count(); ++i) {
            if (free(walk.ids(i)) != 0) escrow.reclaim(walk.ids(i));
        }
        if (escrow.fees() != 0) escrow.withdrawFees();
        eq(escrow.totalHeld(), stuck, "I13 held");
        if (!walk.blacklisted()) {
            eq(stuck, 0, "I14");
            return;
        }
        walk.blacklist(false);
        eq(emptyLines(), 0, "I13 lines");
        if (escrow.fees() != 0) escrow.withdrawFees();
        eq(escrow.totalHeld(), 0, "I13");
    }

    function emptyLines() private returns (uint256 left) {
        IBudgetPool.Claim[] memory claims = new IBudgetPool.Claim[](3 * walk.count());
        for (uint256 i = 0; i < claims.length; ++i) {
            claims[i] = IBudgetPool.Claim(walk.ids(i / 3), walk.provider(i % 3));
        }
        escrow.withdrawMany(claims);
        for (uint256 i = 0; i < claims.length; ++i) {
            IBudgetPool.LineState memory l = escrow.lineOf(claims[i].poolId, claims[i].provider);
            left += l.matured;
            eq(l.pending, 0, "I13 still waiting");
        }
    }
}
