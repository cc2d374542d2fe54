// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {Test} from "./Base.sol";

contract ReclaimTest is Test {
    bytes32 internal id;

    function setUp() public override {
        super.setUp();
        id = open();
    }

    function test_after_expiry_anyone_returns_the_free_money_to_the_payer() public {
        credit(id, 0, ALICE, 1_000);
        uint256 end = START + 30 days;
        vm.warp(end - 1);
        refused(
            id,
            vm.addr(STRANGER),
            abi.encodeCall(escrow.reclaim, (id)),
            reason(IBudgetPool.NotEnded.selector, abi.encode(end, end - 1))
        );
        vm.warp(end);
        vm.expectEmit(address(escrow));
        emit IBudgetPool.Reclaimed(id, vm.addr(PAYER), DEPOSIT - 1_000);
        vm.prank(vm.addr(STRANGER));
        escrow.reclaim(id);
        eq(usdc.balanceOf(vm.addr(PAYER)), DEPOSIT - 1_000, "payer");
        eq(free(id), 0, "free");
        eq(escrow.totalHeld(), 1_000, "what is credited stays");
        refused(
            id,
            vm.addr(STRANGER),
            abi.encodeCall(escrow.reclaim, (id)),
            reason(IBudgetPool.NothingToReclaim.selector, abi.encode(id))
        );
        escrow.withdraw(id, ALICE);
        eq(usdc.balanceOf(ALICE), 975, "alice");
    }

    function test_after_the_close_delay() public {
        vm.prank(vm.addr(PAYER));
        escrow.requestClose(id);
        uint256 end = START + 1 days;
        vm.warp(end - 1);
        refused(
            id,
            vm.addr(STRANGER),
            abi.encodeCall(escrow.reclaim, (id)),
            reason(IBudgetPool.NotEnded.selector, abi.encode(end, end - 1))
        );
        vm.warp(end);
        escrow.reclaim(id);
        eq(usdc.balanceOf(vm.addr(PAYER)), DEPOSIT, "payer");
    }

    function test_again_when_a_dispute_returns_money_later() public {
        vm.warp(START + 30 days - 1);
        credit(id, 0, ALICE, 1_000);
        dispute(id, ALICE, 900);
        vm.warp(START + 30 days);
        escrow.reclaim(id);
        rule(id, ALICE, 100);
        eq(free(id), 800, "free");
        escrow.reclaim(id);
        eq(usdc.balanceOf(vm.addr(PAYER)), DEPOSIT - 1_000 + 800, "payer");
        eq(escrow.totalHeld(), 200, "held");
    }

    /// @dev I13: after expiry, 14 days and two dispute windows, calls that need nobody drain the contract.
    function test_it_all_comes_out_when_nobody_acts_any_more() public {
        settle(id, batch(0, ALICE, BOB, abi.encodePacked(record(0, 1_000), record(1, 500))));
        vm.warp(START + 30 days - 1);
        credit(id, 2, ALICE, 300);
        dispute(id, ALICE, 250);
        vm.warp(START + 44 days + 2 * W);
        vm.prank(vm.addr(STRANGER));
        escrow.resolveByTimeout(id, ALICE, REF);
        escrow.withdraw(id, ALICE);
        escrow.withdraw(id, BOB);
        escrow.reclaim(id);
        escrow.withdrawFees();
        eq(escrow.totalHeld(), 0, "held");
        eq(usdc.balanceOf(address(escrow)), 0, "tokens");
    }

    function test_a_blacklisted_payer_loses_nothing_and_stops_no_provider() public {
        credit(id, 0, ALICE, 1_000);
        usdc.blacklist(vm.addr(PAYER));
        vm.warp(START + 30 days);
        refused(
            id,
            vm.addr(STRANGER),
            abi.encodeCall(escrow.reclaim, (id)),
            abi.encodeWithSignature("Error(string)", "Blacklistable: account is blacklisted")
        );
        escrow.withdraw(id, ALICE);
        usdc.unBlacklist(vm.addr(PAYER));
        escrow.reclaim(id);
        eq(usdc.balanceOf(vm.addr(PAYER)), DEPOSIT - 1_000, "payer");
    }
}
