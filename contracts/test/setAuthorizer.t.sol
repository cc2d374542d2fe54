// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {Test} from "./Base.sol";

contract SetAuthorizerTest is Test {
    uint256 internal constant NEXT = 0xA08;
    uint256 internal constant DUE = START + 1 days;
    bytes32 internal id;
    address internal payer;
    address internal next;

    function setUp() public override {
        super.setUp();
        id = open();
        payer = vm.addr(PAYER);
        next = vm.addr(NEXT);
    }

    function request(address who) internal {
        vm.prank(payer);
        escrow.setAuthorizer(id, who);
    }

    function waits(address who, uint256 effectiveAt) internal view {
        (address waiting, uint64 dueAt) = escrow.nextAuthorizer(id);
        eq(uint160(waiting), uint160(who), "next");
        eq(dueAt, effectiveAt, "effectiveAt");
    }

    function unchanged(address caller, bytes memory call, bytes memory expected) internal {
        (address who, uint64 dueAt) = escrow.nextAuthorizer(id);
        refused(id, caller, call, expected);
        waits(who, dueAt);
    }

    function tooEarly(uint256 effectiveAt) internal {
        unchanged(
            next,
            abi.encodeCall(escrow.applyAuthorizer, (id)),
            reason(IBudgetPool.AuthorizerChangeTooEarly.selector, abi.encode(effectiveAt, now_()))
        );
    }

    function noChange(address caller, bytes memory call) internal {
        unchanged(caller, call, reason(IBudgetPool.NoAuthorizerChange.selector, abi.encode(id)));
    }

    function settleBy(uint256 key, uint256 seq) internal view returns (bytes memory) {
        bytes memory packed = batch(seq, ALICE, record(0, 1));
        bytes memory signature = batchSignature(key, id, packed, FOREVER);
        return abi.encodeCall(escrow.settle, (id, packed, ROOT, FOREVER, signature));
    }

    function lands(uint256 key, uint256 seq) internal {
        (bool landed,) = address(escrow).call(settleBy(key, seq));
        vm.assertTrue(landed && escrow.isSettled(id, seq), "landed");
    }

    function badBatch(uint256 key, uint256 seq, address expected) internal {
        refused(id, next, settleBy(key, seq), reason(IBudgetPool.BadSignature.selector, abi.encode(expected)));
    }

    function test_the_old_ones_batches_land_until_anyone_applies_the_change_and_not_after() public {
        vm.expectEmit(address(escrow));
        emit IBudgetPool.AuthorizerChangeRequested(id, next, DUE);
        request(next);
        waits(next, DUE);
        badBatch(NEXT, 0, vm.addr(AUTHORIZER));
        lands(AUTHORIZER, 0);
        vm.warp(DUE - 1);
        tooEarly(DUE);
        vm.warp(DUE);
        lands(AUTHORIZER, 1);
        vm.expectEmit(address(escrow));
        emit IBudgetPool.AuthorizerChanged(id, next);
        vm.prank(vm.addr(STRANGER));
        escrow.applyAuthorizer(id);
        eq(uint160(escrow.pool(id).authorizer), uint160(next), "authorizer");
        waits(address(0), 0);
        badBatch(AUTHORIZER, 2, next);
        lands(NEXT, 2);
        noChange(payer, abi.encodeCall(escrow.applyAuthorizer, (id)));
    }

    function test_naming_the_current_one_takes_it_back() public {
        address current = vm.addr(AUTHORIZER);
        noChange(payer, abi.encodeCall(escrow.setAuthorizer, (id, current)));
        request(next);
        vm.warp(DUE + 1);
        vm.expectEmit(address(escrow));
        emit IBudgetPool.AuthorizerChangeRequested(id, current, 0);
        request(current);
        waits(address(0), 0);
        noChange(next, abi.encodeCall(escrow.applyAuthorizer, (id)));
        lands(AUTHORIZER, 0);
    }

    function test_another_request_takes_the_place_of_the_first() public {
        request(BOB);
        vm.warp(START + 10 hours);
        request(next);
        waits(next, DUE + 10 hours);
        vm.warp(DUE);
        tooEarly(DUE + 10 hours);
        vm.warp(DUE + 10 hours);
        escrow.applyAuthorizer(id);
        lands(NEXT, 0);
    }

    function test_only_the_payer_and_only_somebody() public {
        bytes memory call = abi.encodeCall(escrow.setAuthorizer, (id, next));
        unchanged(next, call, reason(IBudgetPool.NotPayer.selector, abi.encode(next, payer)));
        call = abi.encodeCall(escrow.setAuthorizer, (id, address(0)));
        unchanged(payer, call, reason(IBudgetPool.BadAuthorizer.selector, abi.encode(address(0))));
    }

    function test_not_after_the_end() public {
        request(next);
        uint256 end = START + 30 days;
        bytes memory ended = reason(IBudgetPool.PoolEnded.selector, abi.encode(end, end));
        bytes memory signature = signed(PAYER, BOB, "n", FOREVER);
        vm.warp(end);
        unchanged(payer, abi.encodeCall(escrow.setAuthorizer, (id, BOB)), ended);
        unchanged(payer, abi.encodeCall(escrow.setAuthorizerWithSig, (id, BOB, "n", FOREVER, signature)), ended);
        vm.assertTrue(!escrow.nonceUsed(payer, "n"), "nonce");
        escrow.applyAuthorizer(id);
        refused(id, next, settleBy(NEXT, 0), ended);
    }

    function test_a_closing_pool_ends_no_later_than_a_change_begins() public {
        vm.prank(payer);
        escrow.requestClose(id);
        request(next);
        vm.warp(DUE - 1);
        tooEarly(DUE);
        lands(AUTHORIZER, 0);
        vm.warp(DUE);
        escrow.applyAuthorizer(id);
        refused(id, next, settleBy(NEXT, 1), reason(IBudgetPool.PoolEnded.selector, abi.encode(DUE, DUE)));
    }

    // ------------------------------------------------------------------ by signature

    function signed(uint256 key, address who, bytes32 nonce, uint64 deadline) internal view returns (bytes memory) {
        bytes32 typeHash = keccak256("SetAuthorizer(bytes32 poolId,address next,bytes32 nonce,uint64 deadline)");
        return sign(key, typed(keccak256(abi.encode(typeHash, id, who, nonce, deadline))));
    }

    function test_the_payers_signature_asks_once_from_anyones_hand() public {
        uint64 deadline = uint64(START);
        bytes memory signature = signed(PAYER, next, "n", deadline);
        vm.prank(vm.addr(STRANGER));
        escrow.setAuthorizerWithSig(id, next, "n", deadline, signature);
        waits(next, DUE);
        vm.assertTrue(escrow.nonceUsed(payer, "n") && !escrow.nonceUsed(next, "n"), "nonce");
        request(vm.addr(AUTHORIZER));
        bytes memory used = reason(IBudgetPool.NonceUsed.selector, abi.encode(payer, bytes32("n")));
        unchanged(next, abi.encodeCall(escrow.setAuthorizerWithSig, (id, next, "n", deadline, signature)), used);
        signature = signed(PAYER, next, "another", deadline);
        escrow.setAuthorizerWithSig(id, next, "another", deadline, signature);
        waits(next, DUE);
    }

    function test_a_nonce_works_once_in_whatever_call() public {
        escrow.setAuthorizerWithSig(id, next, "n", FOREVER, signed(PAYER, next, "n", FOREVER));
        bytes32 typeHash =
            keccak256("AllowProviders(bytes32 poolId,address[] providers,bytes32 nonce,uint64 deadline)");
        bytes32 who = keccak256(abi.encodePacked(list(CAROL)));
        bytes memory signature = sign(PAYER, typed(keccak256(abi.encode(typeHash, id, who, bytes32("n"), FOREVER))));
        unchanged(
            payer,
            abi.encodeCall(escrow.allowProvidersWithSig, (id, list(CAROL), "n", FOREVER, signature)),
            reason(IBudgetPool.NonceUsed.selector, abi.encode(payer, bytes32("n")))
        );
    }

    function test_refuses_a_strange_another_or_a_late_signature() public {
        bytes memory bad = reason(IBudgetPool.BadSignature.selector, abi.encode(payer));
        bytes[4] memory signatures = [
            signed(NEXT, next, "n", FOREVER),
            signed(PAYER, BOB, "n", FOREVER),
            signed(PAYER, next, "m", FOREVER),
            signed(PAYER, next, "n", FOREVER - 1)
        ];
        for (uint256 i = 0; i < signatures.length; ++i) {
            unchanged(next, abi.encodeCall(escrow.setAuthorizerWithSig, (id, next, "n", FOREVER, signatures[i])), bad);
        }
        uint64 past = uint64(START - 1);
        bytes memory call =
            abi.encodeCall(escrow.setAuthorizerWithSig, (id, next, "n", past, signed(PAYER, next, "n", past)));
        unchanged(next, call, reason(IBudgetPool.DeadlinePassed.selector, abi.encode(past, START)));
        vm.assertTrue(!escrow.nonceUsed(payer, "n"), "nonce");
    }
}
