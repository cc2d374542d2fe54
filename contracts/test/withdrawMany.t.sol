// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {Test} from "./Base.sol";

contract WithdrawManyTest is Test {
    bytes32 internal id;
    bytes32 internal other;
    bytes internal constant BLACKLISTED =
        abi.encodeWithSignature("Error(string)", "Blacklistable: account is blacklisted");

    function setUp() public override {
        super.setUp();
        (id, other) = (open(), open());
        settle(id, batch(0, ALICE, BOB, abi.encodePacked(record(0, 1_000), record(1, 2_000))));
        credit(other, 0, ALICE, 4_000);
        vm.warp(START + 2 * W);
    }

    function claims() internal view returns (IBudgetPool.Claim[] memory all) {
        all = new IBudgetPool.Claim[](3);
        all[0] = IBudgetPool.Claim(id, ALICE);
        all[1] = IBudgetPool.Claim(id, BOB);
        all[2] = IBudgetPool.Claim(other, ALICE);
    }

    function nothing(bytes32 poolId, address provider) internal pure returns (bytes memory) {
        return reason(IBudgetPool.NothingToWithdraw.selector, abi.encode(poolId, provider));
    }

    function test_pays_each_from_anyones_hand() public {
        vm.expectEmit(address(escrow));
        emit IBudgetPool.Withdrawn(id, ALICE, ALICE, 975, 25);
        vm.expectEmit(address(escrow));
        emit IBudgetPool.Withdrawn(id, BOB, BOB, 1_950, 50);
        vm.expectEmit(address(escrow));
        emit IBudgetPool.Withdrawn(other, ALICE, ALICE, 3_900, 100);
        vm.prank(vm.addr(STRANGER));
        escrow.withdrawMany(claims());
        eq(usdc.balanceOf(ALICE), 4_875, "alice");
        eq(usdc.balanceOf(BOB), 1_950, "bob");
        eq(escrow.fees(), 175, "fees");
        eq(escrow.totalHeld(), 2 * DEPOSIT - 6_825, "held");
    }

    function test_one_blacklisted_is_left_out_and_named() public {
        usdc.blacklist(BOB);
        vm.expectEmit(address(escrow));
        emit IBudgetPool.WithdrawalRejected(id, BOB, BLACKLISTED);
        escrow.withdrawMany(claims());
        eq(usdc.balanceOf(ALICE), 4_875, "alice");
        eq(line(id, BOB).matured, 2_000, "bob");
        eq(escrow.fees(), 125, "fees");
        usdc.unBlacklist(BOB);
        escrow.withdraw(id, BOB);
        eq(usdc.balanceOf(BOB), 1_950, "bob");
    }

    function test_the_same_claim_twice_is_paid_once() public {
        IBudgetPool.Claim[] memory all = claims();
        all[1] = all[0];
        vm.expectEmit(address(escrow));
        emit IBudgetPool.WithdrawalRejected(id, ALICE, nothing(id, ALICE));
        escrow.withdrawMany(all);
        eq(usdc.balanceOf(ALICE), 4_875, "alice");
    }

    function test_every_claim_that_is_none_is_named() public {
        IBudgetPool.Claim[] memory all = claims();
        all[0] = IBudgetPool.Claim(other, BOB);
        all[1] = IBudgetPool.Claim("nobody", ALICE);
        all[2] = IBudgetPool.Claim(id, CAROL);
        bytes32 before = money(id);
        vm.expectEmit(address(escrow));
        emit IBudgetPool.WithdrawalRejected(other, BOB, nothing(other, BOB));
        vm.expectEmit(address(escrow));
        emit IBudgetPool.WithdrawalRejected(
            "nobody", ALICE, reason(IBudgetPool.NoSuchPool.selector, abi.encode(bytes32("nobody")))
        );
        vm.expectEmit(address(escrow));
        emit IBudgetPool.WithdrawalRejected(id, CAROL, nothing(id, CAROL));
        escrow.withdrawMany(all);
        unmoved(id, before);
    }

    function test_an_empty_list_is_no_error() public {
        bytes32 before = money(id);
        escrow.withdrawMany(new IBudgetPool.Claim[](0));
        unmoved(id, before);
    }

    function test_too_little_gas_pays_nobody_and_never_passes_for_a_claims_own_fault() public {
        bytes memory call = abi.encodeCall(escrow.withdrawMany, (claims()));
        bytes32 before = money(id);
        bytes memory starvedFirst = reason(IBudgetPool.ItemOutOfGas.selector, abi.encode(0));
        uint256 starved;
        for (uint256 gas = 30_000;; gas += 1_000) {
            (bool passed, bytes memory why) = address(escrow).call{gas: gas}(call);
            if (passed) break;
            if (keccak256(why) == keccak256(starvedFirst)) ++starved;
            unmoved(id, before);
            eq(line(other, ALICE).matured, 4_000, "matured");
        }
        vm.assertTrue(starved != 0, "named");
        eq(usdc.balanceOf(ALICE), 4_875, "alice");
        eq(usdc.balanceOf(BOB), 1_950, "bob");
    }
}
