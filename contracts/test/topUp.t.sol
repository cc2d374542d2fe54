// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {Test} from "./Base.sol";

contract TopUpTest is Test {
    function topUp(bytes32 id, uint256 value, uint256 key, bytes32 salt, bytes memory signature) internal {
        escrow.topUp(id, value, vm.addr(key), 0, type(uint256).max, salt, signature);
    }

    function adding(bytes32 id, uint256 value, uint256 key, bytes32 salt, bytes memory signature)
        internal
        view
        returns (bytes memory)
    {
        return abi.encodeCall(escrow.topUp, (id, value, vm.addr(key), 0, type(uint256).max, salt, signature));
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
        refused(
            other,
            vm.addr(STRANGER),
            adding(other, 5, PAYER, "s", signature),
            abi.encodeWithSignature("Error(string)", "FiatTokenV2: invalid signature")
        );
        topUp(id, 5, PAYER, "s", signature);
        refused(
            id,
            vm.addr(STRANGER),
            adding(id, 5, PAYER, "s", signature),
            abi.encodeWithSignature("Error(string)", "FiatTokenV2: authorization is used or canceled")
        );
    }

    function test_refuses_nothing_and_too_much() public {
        bytes32 id = open();
        refused(id, vm.addr(STRANGER), adding(id, 0, PAYER, "s", ""), reason(IBudgetPool.ZeroAmount.selector));
        uint256 max = type(uint56).max - DEPOSIT;
        refused(
            id,
            vm.addr(STRANGER),
            adding(id, max + 1, PAYER, "s", ""),
            reason(IBudgetPool.DepositTooLarge.selector, abi.encode(max + 1, max))
        );
    }

    function test_refused_from_the_close_request_on_and_at_the_end() public {
        bytes32 id = open();
        usdc.mint(vm.addr(PAYER), 5);
        bytes memory signature = authorize(PAYER, 5, escrow.topUpNonce(id, "s"));
        vm.prank(vm.addr(PAYER));
        escrow.requestClose(id);
        uint256 endsAt = START + 1 days;
        refused(
            id,
            vm.addr(STRANGER),
            adding(id, 5, PAYER, "s", signature),
            reason(IBudgetPool.PoolClosing.selector, abi.encode(endsAt))
        );
        vm.warp(endsAt);
        refused(
            id,
            vm.addr(STRANGER),
            adding(id, 5, PAYER, "s", signature),
            reason(IBudgetPool.PoolEnded.selector, abi.encode(endsAt, endsAt))
        );
    }
}
