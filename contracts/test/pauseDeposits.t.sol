// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {Deposits} from "./Deposits.sol";

contract PauseDepositsTest is Deposits {
    function pause(bool paused) internal {
        vm.expectEmit(address(escrow));
        emit IBudgetPool.DepositsPaused(paused);
        vm.prank(GUARDIAN);
        escrow.pauseDeposits(paused);
        vm.assertTrue(escrow.depositsPaused() == paused, "paused");
    }

    function test_every_way_in_is_refused_until_it_is_lifted() public {
        bytes[5] memory calls = deposits();
        pause(true);
        for (uint256 i = 0; i < calls.length; ++i) {
            refused(id, payer, calls[i], reason(IBudgetPool.DepositsArePaused.selector));
        }
        pause(false);
        for (uint256 i = 0; i < calls.length; ++i) {
            send(payer, calls[i]);
        }
        eq(escrow.totalHeld(), 6 * DEPOSIT, "held");
    }

    function test_only_the_guardian_pauses() public {
        bytes memory notGuardian = reason(IBudgetPool.NotGuardian.selector, abi.encode(payer, GUARDIAN));
        refused(id, payer, abi.encodeCall(escrow.pauseDeposits, (true)), notGuardian);
        vm.assertTrue(!escrow.depositsPaused(), "paused");
    }

    function test_the_cap_and_the_books_stay() public {
        pause(true);
        eq(escrow.tvlCap(), type(uint88).max, "cap");
        eq(escrow.totalHeld(), DEPOSIT, "held");
        credit(id, 0, ALICE, 1_000);
        vm.warp(START + 2 * W);
        escrow.withdraw(id, ALICE);
        vm.assertTrue(escrow.depositsPaused(), "a withdrawal lifts nothing");
        eq(escrow.fees(), 25, "fees");
    }

    function test_everything_but_deposits_goes_on() public {
        pause(true);
        credit(id, 0, ALICE, 1_000);
        dispute(id, ALICE, 400);
        rule(id, ALICE, 100);
        vm.prank(payer);
        escrow.allowProviders(id, list(CAROL));
        credit(id, 1, CAROL, 200);
        vm.prank(payer);
        escrow.setAuthorizer(id, vm.addr(STRANGER));
        vm.prank(CAROL);
        escrow.setPayout(id, BOB);
        vm.prank(payer);
        escrow.requestClose(id);
        vm.warp(START + 2 days);
        escrow.applyAuthorizer(id);
        escrow.withdraw(id, ALICE);
        escrow.withdraw(id, CAROL);
        escrow.reclaim(id);
        escrow.withdrawFees();
        eq(usdc.balanceOf(ALICE), 683, "alice");
        eq(usdc.balanceOf(BOB), 195, "carol's payout");
        eq(usdc.balanceOf(FEES), 22, "fees");
        eq(usdc.balanceOf(payer), 6 * DEPOSIT - 900, "payer");
        eq(escrow.totalHeld(), 0, "held");
    }
}
