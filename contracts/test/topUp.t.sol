// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {Test} from "./Base.sol";

contract TopUpTest is Test {
    function topUp(bytes32 id, uint256 value, uint256 key, bytes32 salt, bytes memory signature) internal {
        escrow.topUp(id, value, vm.addr(key), 0, type(uint256).max, salt, signature);
    }

    function test_adds_anyones_signed_money() public {
        bytes32 id = open();
        usdc.mint(vm.addr(STRANGER), 5);
        bytes32 nonce = escrow.topUpNonce(id, "s");
        vm.assertTrue(
            nonce == typed(keccak256(abi.encode(keccak256("TopUp(bytes32 poolId,bytes32 nonceSalt)"), id, bytes32("s")))),
            "nonce"
        );
        bytes memory signature = authorize(STRANGER, 5, nonce);
        vm.expectEmit(address(escrow));
        emit IBudgetPool.PoolToppedUp(id, vm.addr(STRANGER), 5);
        topUp(id, 5, STRANGER, "s", signature);
        eq(free(id), DEPOSIT + 5, "free");
        eq(escrow.totalHeld(), DEPOSIT + 5, "held");
        eq(usdc.balanceOf(address(escrow)), DEPOSIT + 5, "tokens");
    }

    function test_a_signature_adds_once_and_to_its_pool_only() public {
        bytes32 id = open();
        bytes32 other = open();
        usdc.mint(vm.addr(PAYER), 10);
        bytes memory signature = authorize(PAYER, 5, escrow.topUpNonce(id, "s"));
        bytes32 before = money(other);
        vm.expectRevert(abi.encodeWithSignature("Error(string)", "FiatTokenV2: invalid signature"));
        topUp(other, 5, PAYER, "s", signature);
        unmoved(other, before);
        topUp(id, 5, PAYER, "s", signature);
        before = money(id);
        vm.expectRevert(abi.encodeWithSignature("Error(string)", "FiatTokenV2: authorization is used or canceled"));
        topUp(id, 5, PAYER, "s", signature);
        unmoved(id, before);
    }

    function test_refuses_nothing_and_too_much() public {
        bytes32 id = open();
        vm.expectRevert(reason(IBudgetPool.ZeroAmount.selector));
        topUp(id, 0, PAYER, "s", "");
        uint256 max = type(uint56).max - DEPOSIT;
        vm.expectRevert(reason(IBudgetPool.DepositTooLarge.selector, abi.encode(max + 1, max)));
        topUp(id, max + 1, PAYER, "s", "");
    }

    function test_refused_from_the_close_request_on_and_at_the_end() public {
        bytes32 id = open();
        usdc.mint(vm.addr(PAYER), 5);
        bytes memory signature = authorize(PAYER, 5, escrow.topUpNonce(id, "s"));
        vm.prank(vm.addr(PAYER));
        escrow.requestClose(id);
        uint256 endsAt = START + 1 days;
        vm.expectRevert(reason(IBudgetPool.PoolClosing.selector, abi.encode(endsAt)));
        topUp(id, 5, PAYER, "s", signature);
        vm.warp(endsAt);
        vm.expectRevert(reason(IBudgetPool.PoolEnded.selector, abi.encode(endsAt, endsAt)));
        topUp(id, 5, PAYER, "s", signature);
    }
}
