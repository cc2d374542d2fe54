// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Errors} from "@openzeppelin/contracts/utils/Errors.sol";
import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {Test} from "./Base.sol";

contract MulticallTest is Test {
    bytes32 internal id;
    address internal payer;

    function setUp() public override {
        super.setUp();
        id = open();
        payer = vm.addr(PAYER);
    }

    function both(bytes memory first, bytes memory second) internal pure returns (bytes[] memory calls) {
        calls = new bytes[](2);
        (calls[0], calls[1]) = (first, second);
    }

    function allowing(address provider) internal view returns (bytes memory) {
        return abi.encodeCall(escrow.allowProviders, (id, list(provider)));
    }

    function test_allows_and_settles() public {
        vm.prank(payer);
        escrow.multicall(both(allowing(CAROL), settling(id, batch(0, CAROL, record(0, 7)))));
        eq(line(id, CAROL).pending, 7, "carol");
    }

    function test_withdraws_all_and_reclaims() public {
        settle(id, batch(0, ALICE, BOB, abi.encodePacked(record(0, 1_000), record(1, 2_000))));
        usdc.blacklist(BOB);
        vm.warp(START + 30 days);
        IBudgetPool.Claim[] memory claims = new IBudgetPool.Claim[](2);
        (claims[0], claims[1]) = (IBudgetPool.Claim(id, BOB), IBudgetPool.Claim(id, ALICE));
        vm.prank(vm.addr(STRANGER));
        escrow.multicall(
            both(abi.encodeCall(escrow.withdrawMany, (claims)), abi.encodeCall(escrow.reclaim, (id)))
        );
        eq(usdc.balanceOf(ALICE), 975, "alice");
        eq(usdc.balanceOf(payer), DEPOSIT - 3_000, "payer");
        eq(escrow.totalHeld(), 2_025, "bob's, and the fee");
    }

    function test_one_that_fails_undoes_all_and_says_why() public {
        bytes[] memory calls = both(allowing(CAROL), settling(id, batch(0, CAROL, record(0, 0))));
        refused(
            id, payer, abi.encodeCall(escrow.multicall, (calls)), reason(IBudgetPool.ZeroRecord.selector, abi.encode(0))
        );
        vm.assertTrue(!line(id, CAROL).allowed, "allowed");
    }

    function test_the_caller_stays_who_it_is() public {
        address stranger = vm.addr(STRANGER);
        bytes[] memory calls = both(settling(id, batch(0, ALICE, record(0, 7))), allowing(CAROL));
        bytes memory notPayer = reason(IBudgetPool.NotPayer.selector, abi.encode(stranger, payer));
        refused(id, stranger, abi.encodeCall(escrow.multicall, (calls)), notPayer);
        calls = both(abi.encodeCall(escrow.pauseDeposits, (true)), abi.encodeCall(escrow.setTvlCap, (0)));
        bytes memory notGuardian = reason(IBudgetPool.NotGuardian.selector, abi.encode(payer, GUARDIAN));
        refused(id, payer, abi.encodeCall(escrow.multicall, (calls)), notGuardian);
        vm.prank(GUARDIAN);
        escrow.multicall(calls);
        vm.assertTrue(escrow.depositsPaused() && escrow.tvlCap() == 0, "guardian");
    }

    function test_a_deposit_counts_once_however_it_is_wrapped() public {
        usdc.mint(payer, 2 * DEPOSIT);
        vm.prank(payer);
        usdc.approve(address(escrow), 2 * DEPOSIT);
        bytes memory add = abi.encodeCall(escrow.topUpDirect, (id, DEPOSIT));
        vm.prank(payer);
        escrow.multicall(both(add, add));
        eq(free(id), 3 * DEPOSIT, "free");
        eq(usdc.balanceOf(address(escrow)), 3 * DEPOSIT, "tokens");
    }

    function test_what_is_no_verb_is_refused() public {
        bytes[] memory calls = both(allowing(CAROL), hex"00000000");
        refused(id, payer, abi.encodeCall(escrow.multicall, (calls)), reason(Errors.FailedCall.selector));
        vm.assertTrue(!line(id, CAROL).allowed, "allowed");
    }
}
