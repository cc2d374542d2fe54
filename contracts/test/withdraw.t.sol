// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {Test} from "./Base.sol";

contract WithdrawTest is Test {
    bytes32 internal id;

    function setUp() public override {
        super.setUp();
        id = open();
    }

    function nothing(address provider) internal {
        notPaid(provider, reason(IBudgetPool.NothingToWithdraw.selector, abi.encode(id, provider)));
    }

    function notPaid(address provider, bytes memory expected) internal {
        refused(id, vm.addr(STRANGER), abi.encodeCall(escrow.withdraw, (id, provider)), expected);
    }

    function test_a_credit_matures_two_epochs_on_at_the_first_second() public {
        vm.warp(START + W - 1);
        credit(id, 0, ALICE, 1_000);
        eq(line(id, ALICE).nextAt, START + 2 * W, "nextAt");
        eq(line(id, ALICE).nextAmount, 1_000, "nextAmount");
        vm.warp(START + 2 * W - 1);
        nothing(ALICE);
        vm.warp(START + 2 * W);
        eq(line(id, ALICE).matured, 1_000, "matured");
        eq(line(id, ALICE).pending, 0, "pending");
        eq(line(id, ALICE).nextAt, 0, "nextAt");
        vm.expectEmit(address(escrow));
        emit IBudgetPool.Withdrawn(id, ALICE, ALICE, 975, 25);
        vm.prank(vm.addr(STRANGER));
        escrow.withdraw(id, ALICE);
        eq(usdc.balanceOf(ALICE), 975, "alice");
        eq(escrow.fees(), 25, "fees");
        eq(escrow.totalHeld(), DEPOSIT - 975, "held");
        nothing(ALICE);
    }

    function test_each_epoch_matures_on_its_own() public {
        credit(id, 0, ALICE, 1);
        vm.warp(START + W);
        credit(id, 1, ALICE, 20);
        eq(line(id, ALICE).nextAt, START + 2 * W, "the older first");
        eq(line(id, ALICE).nextAmount, 1, "the older first");
        vm.warp(START + 2 * W);
        credit(id, 2, ALICE, 300);
        state(1, 320, 20, START + 3 * W);
        vm.warp(START + 3 * W);
        state(21, 300, 300, START + 4 * W);
        credit(id, 3, ALICE, 4_000);
        state(21, 4_300, 300, START + 4 * W);
        vm.warp(START + 4 * W);
        state(321, 4_000, 4_000, START + 5 * W);
        vm.warp(START + 5 * W);
        state(4_321, 0, 0, 0);
    }

    function state(uint256 matured, uint256 pending, uint256 nextAmount, uint256 nextAt) internal view {
        IBudgetPool.LineState memory l = line(id, ALICE);
        eq(l.matured, matured, "matured");
        eq(l.pending, pending, "pending");
        eq(l.nextAmount, nextAmount, "nextAmount");
        eq(l.nextAt, nextAt, "nextAt");
    }

    function test_a_long_silence_matures_all() public {
        credit(id, 0, ALICE, 1);
        vm.warp(START + W);
        credit(id, 1, ALICE, 20);
        vm.warp(START + 9 * W);
        credit(id, 2, ALICE, 300);
        state(21, 300, 300, START + 11 * W);
    }

    function test_what_is_pending_stays_when_the_matured_is_withdrawn() public {
        credit(id, 0, ALICE, 40);
        vm.warp(START + W);
        credit(id, 1, ALICE, 80);
        vm.warp(START + 2 * W);
        escrow.withdraw(id, ALICE);
        eq(usdc.balanceOf(ALICE), 39, "alice");
        state(0, 80, 80, START + 3 * W);
        vm.warp(START + 3 * W);
        escrow.withdraw(id, ALICE);
        eq(usdc.balanceOf(ALICE), 39 + 78, "alice");
    }

    function test_without_a_dispute_window_a_credit_matures_at_once() public {
        IBudgetPool.Terms memory t = terms();
        t.disputeWindow = 0;
        id = open(t, DEPOSIT);
        credit(id, 0, ALICE, 100);
        state(100, 0, 0, 0);
        escrow.withdraw(id, ALICE);
        eq(usdc.balanceOf(ALICE), 98, "alice");
    }

    function test_the_fee_is_floored(uint256 matured, uint256 bps) public {
        matured = 1 + matured % 1_000_000;
        bps = bps % 501;
        IBudgetPool.Terms memory t = terms();
        (t.feeBps, t.disputeWindow) = (uint16(bps), 0);
        id = open(t, DEPOSIT);
        credit(id, 0, ALICE, matured);
        escrow.withdraw(id, ALICE);
        uint256 fee = matured * bps / 10_000;
        eq(escrow.fees(), fee, "fees");
        eq(usdc.balanceOf(ALICE), matured - fee, "net");
        eq(escrow.totalHeld(), 2 * DEPOSIT - matured + fee, "held");
    }

    function test_one_blacklisted_provider_stops_nobody_else() public {
        usdc.blacklist(ALICE);
        settle(id, batch(0, ALICE, BOB, abi.encodePacked(record(0, 500), record(1, 600))));
        vm.warp(START + 2 * W);
        notPaid(ALICE, abi.encodeWithSignature("Error(string)", "Blacklistable: account is blacklisted"));
        escrow.withdraw(id, BOB);
        eq(usdc.balanceOf(BOB), 585, "bob");
        usdc.unBlacklist(ALICE);
        escrow.withdraw(id, ALICE);
        eq(usdc.balanceOf(ALICE), 488, "alice");
    }

    function test_a_paused_token_loses_nothing() public {
        credit(id, 0, ALICE, 1_000);
        vm.warp(START + 2 * W);
        usdc.pause();
        notPaid(ALICE, abi.encodeWithSignature("Error(string)", "Pausable: paused"));
        usdc.unpause();
        escrow.withdraw(id, ALICE);
    }

    function test_a_donation_changes_nothing() public {
        bytes32 pool = keccak256(abi.encode(escrow.pool(id), escrow.totalHeld()));
        usdc.mint(address(escrow), 1_000);
        vm.assertTrue(pool == keccak256(abi.encode(escrow.pool(id), escrow.totalHeld())), "unchanged");
        vm.assertTrue(escrow.solvent(), "solvent");
    }

    function test_long_after_32_bits_of_seconds_money_still_leaves() public {
        IBudgetPool.Terms memory t = terms();
        (t.expiry, t.disputeWindow) = (type(uint32).max, 1);
        id = open(t, DEPOSIT);
        vm.warp(uint256(type(uint32).max) - 1);
        credit(id, 0, ALICE, 1_000);
        vm.warp(1 << 32);
        eq(line(id, ALICE).matured, 1_000, "matured");
        vm.assertTrue(!line(id, CAROL).allowed, "an epoch spills into nothing");
        vm.warp(1 << 33);
        escrow.withdraw(id, ALICE);
        escrow.reclaim(id);
        eq(usdc.balanceOf(ALICE), 975, "alice");
        eq(usdc.balanceOf(vm.addr(PAYER)), DEPOSIT - 1_000, "payer");
    }

    // ------------------------------------------------------------------ a line at the end

    function test_an_emptied_line_stays_allowed_until_the_end_and_not_after() public {
        credit(id, 0, ALICE, 100);
        credit(id, 1, BOB, 100);
        uint256 end = START + 30 days;
        vm.warp(end - 1);
        escrow.withdraw(id, ALICE);
        vm.assertTrue(line(id, ALICE).allowed, "before the end");
        vm.warp(end);
        escrow.withdraw(id, BOB);
        vm.assertTrue(!line(id, BOB).allowed, "after the end");
        vm.assertTrue(line(id, ALICE).allowed, "untouched");
        nothing(BOB);
    }

    function test_a_line_with_money_pending_stays_allowed_at_the_end() public {
        uint256 end = START + 30 days;
        vm.warp(end - 2 * W);
        credit(id, 0, ALICE, 100);
        vm.warp(end - 1);
        credit(id, 1, ALICE, 200);
        vm.warp(end);
        escrow.withdraw(id, ALICE);
        vm.assertTrue(line(id, ALICE).allowed, "allowed");
        state(0, 200, 200, end + W);
        vm.warp(end + W);
        escrow.withdraw(id, ALICE);
        vm.assertTrue(!line(id, ALICE).allowed, "allowed");
        state(0, 0, 0, 0);
        eq(usdc.balanceOf(ALICE), 98 + 195, "alice");
    }

    function test_a_line_credited_in_the_epoch_of_the_end_stays_too() public {
        vm.warp(START + W / 2);
        vm.prank(vm.addr(PAYER));
        escrow.requestClose(id);
        uint256 end = START + 1 days + W / 2;
        credit(id, 0, ALICE, 100);
        vm.warp(end - 1);
        credit(id, 1, ALICE, 200);
        vm.warp(end);
        escrow.withdraw(id, ALICE);
        vm.assertTrue(line(id, ALICE).allowed, "allowed");
        state(0, 200, 200, START + 1 days + 2 * W);
        vm.warp(end + 2 * W);
        escrow.withdraw(id, ALICE);
        eq(usdc.balanceOf(ALICE), 98 + 195, "alice");
    }

    function test_a_ruling_still_pays_a_line_that_was_emptied() public {
        uint256 end = START + 30 days;
        vm.warp(end - 1);
        credit(id, 0, ALICE, 1_000);
        dispute(id, ALICE, 400);
        vm.warp(end + 2 * W);
        escrow.withdraw(id, ALICE);
        vm.assertTrue(!line(id, ALICE).allowed, "allowed");
        rule(id, ALICE, 300);
        state(300, 0, 0, 0);
        escrow.withdraw(id, ALICE);
        eq(usdc.balanceOf(ALICE), 585 + 293, "alice");
        escrow.reclaim(id);
        escrow.withdrawFees();
        eq(escrow.totalHeld(), 0, "held");
    }
}
