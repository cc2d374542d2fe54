// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {Test} from "./Base.sol";

contract WithdrawFeesTest is Test {
    bytes32 internal id;

    function setUp() public override {
        super.setUp();
        id = open();
        credit(id, 0, ALICE, 1_000_000);
        vm.warp(START + 2 * W);
    }

    function none() internal {
        bytes memory call = abi.encodeCall(escrow.withdrawFees, ());
        refused(id, FEES, call, reason(IBudgetPool.NoFees.selector));
    }

    function test_all_that_accrued_goes_to_the_recipient_from_anyones_hand() public {
        none();
        escrow.withdraw(id, ALICE);
        bytes32 other = open();
        credit(other, 0, BOB, 1_000);
        vm.warp(START + 4 * W);
        escrow.withdraw(other, BOB);
        eq(escrow.fees(), 25_025, "fees");
        vm.expectEmit(address(escrow));
        emit IBudgetPool.FeesWithdrawn(FEES, 25_025);
        vm.prank(vm.addr(STRANGER));
        escrow.withdrawFees();
        eq(usdc.balanceOf(FEES), 25_025, "recipient");
        eq(escrow.fees(), 0, "fees");
        eq(escrow.totalHeld(), 2 * DEPOSIT - 1_001_000, "held");
        none();
    }

    function test_a_fee_of_less_than_a_unit_is_none() public {
        credit(id, 1, BOB, 39);
        vm.warp(START + 4 * W);
        escrow.withdraw(id, BOB);
        eq(usdc.balanceOf(BOB), 39, "bob");
        none();
    }

    function test_a_blacklisted_recipient_stops_nobody_and_loses_nothing() public {
        usdc.blacklist(FEES);
        escrow.withdraw(id, ALICE);
        eq(usdc.balanceOf(ALICE), 975_000, "alice");
        refused(
            id,
            FEES,
            abi.encodeCall(escrow.withdrawFees, ()),
            abi.encodeWithSignature("Error(string)", "Blacklistable: account is blacklisted")
        );
        usdc.unBlacklist(FEES);
        escrow.withdrawFees();
        eq(usdc.balanceOf(FEES), 25_000, "recipient");
    }
}
