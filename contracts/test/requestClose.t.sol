// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {Test} from "./Base.sol";

contract RequestCloseTest is Test {
    bytes32 internal id;

    function setUp() public override {
        super.setUp();
        id = open();
    }

    function signed(uint256 key, uint64 deadline) internal view returns (bytes memory) {
        bytes32 typeHash = keccak256("RequestClose(bytes32 poolId,uint64 deadline)");
        return sign(key, typed(keccak256(abi.encode(typeHash, id, deadline))));
    }

    function test_brings_the_end_forward_and_lets_signed_batches_land_until_then() public {
        uint256 end = START + 1 days;
        vm.expectEmit(address(escrow));
        emit IBudgetPool.CloseRequested(id, end);
        vm.prank(vm.addr(PAYER));
        escrow.requestClose(id);
        eq(escrow.pool(id).endsAt, end, "endsAt");
        vm.assertTrue(escrow.pool(id).closing, "closing");
        vm.warp(end - 1);
        credit(id, 0, ALICE, 5);
        vm.warp(end);
        refused(id, batch(1, ALICE, record(0, 1)), reason(IBudgetPool.PoolEnded.selector, abi.encode(end, end)));
    }

    function test_never_puts_the_end_off() public {
        uint256 expiry = START + 30 days;
        vm.warp(expiry - 1 days + 1);
        vm.expectEmit(address(escrow));
        emit IBudgetPool.CloseRequested(id, expiry);
        vm.prank(vm.addr(PAYER));
        escrow.requestClose(id);
        eq(escrow.pool(id).endsAt, expiry, "endsAt");
    }

    function test_closes_once_and_not_after_the_end() public {
        vm.prank(vm.addr(PAYER));
        escrow.requestClose(id);
        refused(
            id,
            vm.addr(PAYER),
            abi.encodeCall(escrow.requestClose, (id)),
            reason(IBudgetPool.PoolClosing.selector, abi.encode(START + 1 days))
        );
        vm.warp(START + 1 days);
        refused(
            id,
            vm.addr(PAYER),
            abi.encodeCall(escrow.requestClose, (id)),
            reason(IBudgetPool.PoolEnded.selector, abi.encode(START + 1 days, START + 1 days))
        );
    }

    function test_only_the_payer_closes() public {
        address arbiter = vm.addr(ARBITER);
        bytes memory notPayer = reason(IBudgetPool.NotPayer.selector, abi.encode(arbiter, vm.addr(PAYER)));
        refused(id, arbiter, abi.encodeCall(escrow.requestClose, (id)), notPayer);
    }

    function test_the_payers_signature_closes_from_anyones_hand() public {
        bytes memory signature = signed(PAYER, uint64(START));
        escrow.requestCloseWithSig(id, uint64(START), signature);
        eq(escrow.pool(id).endsAt, START + 1 days, "endsAt");
        refused(
            id,
            vm.addr(STRANGER),
            abi.encodeCall(escrow.requestCloseWithSig, (id, uint64(START), signature)),
            reason(IBudgetPool.PoolClosing.selector, abi.encode(START + 1 days))
        );
    }

    function test_refuses_a_strange_or_late_signature() public {
        bytes memory signature = signed(AUTHORIZER, FOREVER);
        refused(
            id,
            vm.addr(STRANGER),
            abi.encodeCall(escrow.requestCloseWithSig, (id, FOREVER, signature)),
            reason(IBudgetPool.BadSignature.selector, abi.encode(vm.addr(PAYER)))
        );
        signature = signed(PAYER, uint64(START - 1));
        refused(
            id,
            vm.addr(STRANGER),
            abi.encodeCall(escrow.requestCloseWithSig, (id, uint64(START - 1), signature)),
            reason(IBudgetPool.DeadlinePassed.selector, abi.encode(START - 1, START))
        );
    }
}
