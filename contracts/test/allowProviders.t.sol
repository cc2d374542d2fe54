// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {Test} from "./Base.sol";

contract AllowProvidersTest is Test {
    bytes32 internal id;

    function setUp() public override {
        super.setUp();
        id = open();
    }

    function signed(uint256 key, address[] memory who, bytes32 nonce, uint64 deadline)
        internal
        view
        returns (bytes memory)
    {
        bytes32 typeHash =
            keccak256("AllowProviders(bytes32 poolId,address[] providers,bytes32 nonce,uint64 deadline)");
        return sign(
            key, typed(keccak256(abi.encode(typeHash, id, keccak256(abi.encodePacked(who)), nonce, deadline)))
        );
    }

    function test_the_payer_adds_providers() public {
        refused(id, batch(0, CAROL, record(0, 1)), reason(IBudgetPool.ProviderNotAllowed.selector, abi.encode(id, CAROL)));
        vm.expectEmit(address(escrow));
        emit IBudgetPool.ProvidersAllowed(id, list(CAROL));
        vm.prank(vm.addr(PAYER));
        escrow.allowProviders(id, list(CAROL));
        credit(id, 0, CAROL, 1);
        eq(line(id, CAROL).pending, 1, "pending");
    }

    function test_adding_one_again_keeps_its_line() public {
        credit(id, 0, ALICE, 7);
        vm.prank(vm.addr(PAYER));
        escrow.allowProviders(id, list(ALICE, CAROL));
        eq(line(id, ALICE).pending, 7, "pending");
    }

    function test_only_the_payer_adds() public {
        address stranger = vm.addr(STRANGER);
        bytes memory notPayer = reason(IBudgetPool.NotPayer.selector, abi.encode(stranger, vm.addr(PAYER)));
        refused(id, stranger, abi.encodeCall(escrow.allowProviders, (id, list(CAROL))), notPayer);
    }

    function test_the_payers_signature_adds_once_from_anyones_hand() public {
        bytes memory signature = signed(PAYER, list(CAROL), "n", uint64(START));
        escrow.allowProvidersWithSig(id, list(CAROL), "n", uint64(START), signature);
        vm.assertTrue(line(id, CAROL).allowed, "allowed");
        refused(
            id,
            vm.addr(STRANGER),
            abi.encodeCall(escrow.allowProvidersWithSig, (id, list(CAROL), "n", uint64(START), signature)),
            reason(IBudgetPool.NonceUsed.selector, abi.encode(vm.addr(PAYER), bytes32("n")))
        );
    }

    function test_refuses_a_strange_or_late_signature() public {
        bytes memory strange = signed(STRANGER, list(CAROL), "n", FOREVER);
        refused(
            id,
            vm.addr(STRANGER),
            abi.encodeCall(escrow.allowProvidersWithSig, (id, list(CAROL), "n", FOREVER, strange)),
            reason(IBudgetPool.BadSignature.selector, abi.encode(vm.addr(PAYER)))
        );
        bytes memory other = signed(PAYER, list(BOB), "n", FOREVER);
        refused(
            id,
            vm.addr(STRANGER),
            abi.encodeCall(escrow.allowProvidersWithSig, (id, list(CAROL), "n", FOREVER, other)),
            reason(IBudgetPool.BadSignature.selector, abi.encode(vm.addr(PAYER)))
        );
        bytes memory late = signed(PAYER, list(CAROL), "n", uint64(START - 1));
        refused(
            id,
            vm.addr(STRANGER),
            abi.encodeCall(escrow.allowProvidersWithSig, (id, list(CAROL), "n", uint64(START - 1), late)),
            reason(IBudgetPool.DeadlinePassed.selector, abi.encode(START - 1, START))
        );
    }

    function test_refuses_the_unpayable_and_the_ended_pool() public {
        refused(
            id,
            vm.addr(PAYER),
            abi.encodeCall(escrow.allowProviders, (id, list(CAROL, address(0)))),
            reason(IBudgetPool.BadProvider.selector, abi.encode(address(0)))
        );
        vm.assertTrue(!line(id, CAROL).allowed, "all or none");

        uint256 end = escrow.pool(id).endsAt;
        vm.warp(end);
        refused(
            id,
            vm.addr(PAYER),
            abi.encodeCall(escrow.allowProviders, (id, list(CAROL))),
            reason(IBudgetPool.PoolEnded.selector, abi.encode(end, end))
        );
        bytes memory signature = signed(PAYER, list(CAROL), "n", FOREVER);
        refused(
            id,
            vm.addr(STRANGER),
            abi.encodeCall(escrow.allowProvidersWithSig, (id, list(CAROL), "n", FOREVER, signature)),
            reason(IBudgetPool.PoolEnded.selector, abi.encode(end, end))
        );
    }
}
