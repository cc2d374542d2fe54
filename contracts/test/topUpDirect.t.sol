// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {Test} from "./Base.sol";

contract TopUpDirectTest is Test {
    bytes32 internal id;
    address internal stranger;

    function setUp() public override {
        super.setUp();
        id = open();
        stranger = vm.addr(STRANGER);
        usdc.mint(stranger, 100);
        vm.prank(stranger);
        usdc.approve(address(escrow), 50);
    }

    function adding(uint256 value) internal view returns (bytes memory) {
        return abi.encodeCall(escrow.topUpDirect, (id, value));
    }

    function test_adds_anyones_money_which_the_payer_gets_back() public {
        vm.expectEmit(address(escrow));
        emit IBudgetPool.PoolToppedUp(id, stranger, 50);
        vm.prank(stranger);
        escrow.topUpDirect(id, 50);
        eq(free(id), DEPOSIT + 50, "free");
        eq(escrow.totalHeld(), DEPOSIT + 50, "held");
        eq(usdc.balanceOf(stranger), 50, "stranger");
        vm.warp(START + 30 days);
        escrow.reclaim(id);
        eq(usdc.balanceOf(vm.addr(PAYER)), DEPOSIT + 50, "payer");
    }

    function test_only_what_is_allowed() public {
        bytes memory tooLittle =
            reason(IERC20Errors.ERC20InsufficientAllowance.selector, abi.encode(address(escrow), 50, 51));
        refused(id, stranger, adding(51), tooLittle);
    }

    function test_refuses_nothing_and_too_much() public {
        refused(id, stranger, adding(0), reason(IBudgetPool.ZeroAmount.selector));
        uint256 max = type(uint56).max - DEPOSIT;
        bytes memory tooLarge = reason(IBudgetPool.DepositTooLarge.selector, abi.encode(max + 1, max));
        refused(id, stranger, adding(max + 1), tooLarge);
    }

    function test_refused_from_the_close_request_on_and_at_the_end() public {
        vm.prank(vm.addr(PAYER));
        escrow.requestClose(id);
        uint256 endsAt = START + 1 days;
        refused(id, stranger, adding(50), reason(IBudgetPool.PoolClosing.selector, abi.encode(endsAt)));
        vm.warp(endsAt);
        refused(id, stranger, adding(50), reason(IBudgetPool.PoolEnded.selector, abi.encode(endsAt, endsAt)));
    }
}
