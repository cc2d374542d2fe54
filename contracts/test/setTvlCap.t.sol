// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {Deposits} from "./Deposits.sol";

contract SetTvlCapTest is Deposits {
    function cap(uint256 most) internal {
        vm.expectEmit(address(escrow));
        emit IBudgetPool.TvlCapSet(most);
        vm.prank(GUARDIAN);
        escrow.setTvlCap(uint88(most));
        eq(escrow.tvlCap(), most, "cap");
    }

    function test_every_way_in_passes_at_exactly_the_cap_and_not_a_unit_below() public {
        bytes[5] memory calls = deposits();
        for (uint256 i = 0; i < calls.length; ++i) {
            uint256 total = (i + 2) * DEPOSIT;
            cap(total - 1);
            refused(id, payer, calls[i], reason(IBudgetPool.TvlCapExceeded.selector, abi.encode(total, total - 1)));
            cap(total);
            send(payer, calls[i]);
            eq(escrow.totalHeld(), total, "held");
        }
    }

    function test_below_what_is_held_only_deposits_stop() public {
        cap(0);
        bytes memory over = reason(IBudgetPool.TvlCapExceeded.selector, abi.encode(DEPOSIT + 1, 0));
        refused(id, payer, abi.encodeCall(escrow.topUpDirect, (id, 1)), over);
        credit(id, 0, ALICE, 1_000);
        dispute(id, ALICE, 400);
        rule(id, ALICE, 0);
        vm.warp(START + 30 days);
        escrow.withdraw(id, ALICE);
        escrow.reclaim(id);
        escrow.withdrawFees();
        eq(escrow.totalHeld(), 0, "held");
        eq(usdc.balanceOf(ALICE), 585, "alice");
    }

    function test_what_left_makes_room() public {
        cap(DEPOSIT);
        bytes memory more = abi.encodeCall(escrow.topUpDirect, (id, 975));
        credit(id, 0, ALICE, 1_000);
        refused(id, payer, more, reason(IBudgetPool.TvlCapExceeded.selector, abi.encode(DEPOSIT + 975, DEPOSIT)));
        vm.warp(START + 2 * W);
        escrow.withdraw(id, ALICE);
        send(payer, more);
        eq(escrow.totalHeld(), DEPOSIT, "the fee is still held");
    }

    function test_only_the_guardian_sets_it() public {
        bytes memory notGuardian = reason(IBudgetPool.NotGuardian.selector, abi.encode(payer, GUARDIAN));
        refused(id, payer, abi.encodeCall(escrow.setTvlCap, (0)), notGuardian);
        eq(escrow.tvlCap(), type(uint88).max, "cap");
    }

    function test_it_lifts_no_pause() public {
        vm.prank(GUARDIAN);
        escrow.pauseDeposits(true);
        cap(type(uint88).max);
        vm.assertTrue(escrow.depositsPaused(), "paused");
        eq(escrow.totalHeld(), DEPOSIT, "held");
    }
}
