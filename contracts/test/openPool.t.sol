// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {TestUSDC} from "../src/test/TestUSDC.sol";
import {Test} from "./Base.sol";

/// @dev A token that keeps one unit of every transfer.
contract TollToken is TestUSDC("USDC") {
    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (from != address(0) && to != address(0)) super._update(to, address(0xDEAD), 1);
    }
}

contract OpenPoolTest is Test {
    function test_opens_on_one_signature_from_anyones_hand() public {
        IBudgetPool.Terms memory t = terms();
        bytes32 id = escrow.poolIdOf(t);
        usdc.mint(t.payer, DEPOSIT);
        bytes memory signature = authorize(PAYER, DEPOSIT, id);
        vm.expectEmit(address(escrow));
        emit IBudgetPool.PoolOpened(id, t.payer, t, DEPOSIT);
        vm.expectEmit(address(escrow));
        emit IBudgetPool.ProvidersAllowed(id, list(ALICE, BOB));
        vm.prank(vm.addr(STRANGER));
        vm.assertTrue(openWith(t, DEPOSIT, signature) == id, "id");

        IBudgetPool.PoolState memory p = escrow.pool(id);
        eq(uint160(p.payer), uint160(t.payer), "payer");
        eq(uint160(p.authorizer), uint160(t.authorizer), "authorizer");
        eq(uint160(p.arbiter), uint160(t.arbiter), "arbiter");
        eq(p.expiry, t.expiry, "expiry");
        eq(p.endsAt, t.expiry, "endsAt");
        eq(p.closeRequestedAt, 0, "closeRequestedAt");
        eq(p.closeDelay, t.closeDelay, "closeDelay");
        eq(p.perRecordCap, t.perRecordCap, "perRecordCap");
        eq(p.windowCap, t.windowCap, "windowCap");
        eq(p.windowLength, t.windowLength, "windowLength");
        eq(p.disputeWindow, t.disputeWindow, "disputeWindow");
        eq(p.feeBps, t.feeBps, "feeBps");
        eq(p.free, DEPOSIT, "free");
        eq(p.disputed, 0, "disputed");
        eq(p.windowRemaining, t.windowCap, "windowRemaining");
        vm.assertTrue(line(id, ALICE).allowed && line(id, BOB).allowed && !line(id, CAROL).allowed, "allowed");
        eq(escrow.totalHeld(), DEPOSIT, "held");
        vm.assertTrue(escrow.solvent(), "solvent");
    }

    function test_the_id_is_the_eip712_digest_of_the_terms() public {
        IBudgetPool.Terms memory t = terms();
        bytes32 typeHash = keccak256(
            "Terms(address payer,address authorizer,address arbiter,uint64 expiry,uint32 closeDelay,uint48 perRecordCap,uint56 windowCap,uint32 windowLength,uint32 disputeWindow,uint16 feeBps,bytes32 providersHash,bytes32 salt)"
        );
        vm.assertTrue(escrow.poolIdOf(t) == typed(keccak256(abi.encode(typeHash, t))), "digest");
    }

    function test_refuses_each_bad_field_of_the_terms() public {
        IBudgetPool.Terms memory t = terms();
        t.payer = address(0);
        refusedTerms(t, "payer", 0);
        t = terms();
        t.authorizer = address(0);
        refusedTerms(t, "authorizer", 0);
        t = terms();
        t.arbiter = t.payer;
        refusedTerms(t, "arbiter", uint160(t.payer));
        t = terms();
        t.arbiter = address(0);
        refusedTerms(t, "arbiter", 0);
        t = terms();
        t.expiry = uint64(START);
        refusedTerms(t, "expiry", START);
        t.expiry = 1 << 32;
        refusedTerms(t, "expiry", 1 << 32);
        t = terms();
        t.perRecordCap = 0;
        refusedTerms(t, "perRecordCap", 0);
        t = terms();
        t.windowCap = 0;
        refusedTerms(t, "windowCap", 0);
        t = terms();
        t.windowLength = 0;
        refusedTerms(t, "windowLength", 0);
        t = terms();
        t.feeBps = 501;
        refusedTerms(t, "feeBps", 501);
    }

    function refusedTerms(IBudgetPool.Terms memory t, bytes32 field, uint256 value) internal {
        bytes memory signature = authorize(PAYER, DEPOSIT, escrow.poolIdOf(t));
        vm.expectRevert(reason(IBudgetPool.BadTerms.selector, abi.encode(field, value)));
        openWith(t, DEPOSIT, signature);
    }

    function test_takes_the_edges_of_the_terms() public {
        IBudgetPool.Terms memory t = terms();
        t.feeBps = 500;
        t.expiry = type(uint32).max;
        t.arbiter = address(0);
        t.disputeWindow = 0;
        t.closeDelay = 0;
        (t.perRecordCap, t.windowCap, t.windowLength) = (1, 1, 1);
        eq(free(open(t, 1)), 1, "free");
        t = terms();
        t.expiry = uint64(START + 1);
        open(t, 1);
    }

    function test_refuses_providers_that_are_not_the_signed_ones() public {
        IBudgetPool.Terms memory t = terms();
        bytes memory signature = authorize(PAYER, DEPOSIT, escrow.poolIdOf(t));
        bytes32 other = keccak256(abi.encodePacked(list(BOB, ALICE)));
        vm.expectRevert(reason(IBudgetPool.ProvidersHashMismatch.selector, abi.encode(t.providersHash, other)));
        escrow.openPool(t, list(BOB, ALICE), DEPOSIT, 0, type(uint256).max, signature);
    }

    function test_refuses_providers_that_could_never_be_paid() public {
        address[3] memory bad = [address(0), address(escrow), address(usdc)];
        for (uint256 i = 0; i < bad.length; ++i) {
            IBudgetPool.Terms memory t = terms();
            t.providersHash = keccak256(abi.encodePacked(list(bad[i])));
            bytes memory signature = authorize(PAYER, DEPOSIT, escrow.poolIdOf(t));
            vm.expectRevert(reason(IBudgetPool.BadProvider.selector, abi.encode(bad[i])));
            escrow.openPool(t, list(bad[i]), DEPOSIT, 0, type(uint256).max, signature);
        }
    }

    function test_opens_once() public {
        IBudgetPool.Terms memory t = terms();
        bytes32 id = open(t, DEPOSIT);
        bytes memory signature = authorize(PAYER, DEPOSIT, id);
        bytes32 before = money(id);
        vm.expectRevert(reason(IBudgetPool.PoolExists.selector, abi.encode(id)));
        openWith(t, DEPOSIT, signature);
        unmoved(id, before);
    }

    function test_refuses_another_value_than_signed() public {
        IBudgetPool.Terms memory t = terms();
        usdc.mint(t.payer, DEPOSIT);
        bytes memory signature = authorize(PAYER, DEPOSIT - 1, escrow.poolIdOf(t));
        vm.expectRevert(abi.encodeWithSignature("Error(string)", "FiatTokenV2: invalid signature"));
        openWith(t, DEPOSIT, signature);
        eq(usdc.balanceOf(t.payer), DEPOSIT, "payer");
    }

    function test_refuses_other_terms_than_signed() public {
        IBudgetPool.Terms memory t = terms();
        usdc.mint(t.payer, DEPOSIT);
        bytes memory signature = authorize(PAYER, DEPOSIT, escrow.poolIdOf(t));
        t.perRecordCap += 1;
        vm.expectRevert(abi.encodeWithSignature("Error(string)", "FiatTokenV2: invalid signature"));
        openWith(t, DEPOSIT, signature);
    }

    function test_refuses_nothing_and_too_much() public {
        IBudgetPool.Terms memory t = terms();
        vm.expectRevert(reason(IBudgetPool.ZeroAmount.selector));
        openWith(t, 0, "");
        uint256 max = type(uint56).max;
        vm.expectRevert(reason(IBudgetPool.DepositTooLarge.selector, abi.encode(max + 1, max)));
        openWith(t, max + 1, "");
        eq(free(open(t, max)), max, "free");
    }

    function test_refuses_a_token_that_moves_less_than_was_signed() public {
        usdc = new TollToken();
        escrow = deploy(address(usdc), FEES);
        IBudgetPool.Terms memory t = terms();
        usdc.mint(t.payer, DEPOSIT);
        bytes memory signature = authorize(PAYER, DEPOSIT, escrow.poolIdOf(t));
        vm.expectRevert(reason(IBudgetPool.DepositMismatch.selector, abi.encode(DEPOSIT, DEPOSIT - 1)));
        openWith(t, DEPOSIT, signature);
    }

    function test_refuses_to_exist_without_token_or_fee_recipient() public {
        address token = address(usdc);
        vm.expectRevert(reason(IBudgetPool.BadTerms.selector, abi.encode(bytes32("token"), 0)));
        this.create(address(0), FEES);
        vm.expectRevert(reason(IBudgetPool.BadTerms.selector, abi.encode(bytes32("feeRecipient"), 0)));
        this.create(token, address(0));
    }

    function create(address token, address feeRecipient) external {
        deploy(token, feeRecipient);
    }

    function test_an_unknown_pool_is_refused_by_every_verb() public {
        bytes32 id = bytes32("nobody");
        bytes memory none = reason(IBudgetPool.NoSuchPool.selector, abi.encode(id));
        vm.expectRevert(none);
        escrow.topUp(id, 1, ALICE, 0, 1, 0, "");
        vm.expectRevert(none);
        escrow.allowProviders(id, list(ALICE));
        vm.expectRevert(none);
        escrow.allowProvidersWithSig(id, list(ALICE), 0, FOREVER, "");
        vm.expectRevert(none);
        escrow.settle(id, "", ROOT, FOREVER, "");
        vm.expectRevert(none);
        escrow.withdraw(id, ALICE);
        vm.expectRevert(none);
        escrow.dispute(id, ALICE, 1, REF);
        vm.expectRevert(none);
        escrow.disputeWithSig(id, ALICE, 1, REF, FOREVER, "");
        vm.expectRevert(none);
        escrow.resolve(id, ALICE, REF, 0);
        vm.expectRevert(none);
        escrow.resolveByTimeout(id, ALICE, REF);
        vm.expectRevert(none);
        escrow.requestClose(id);
        vm.expectRevert(none);
        escrow.requestCloseWithSig(id, FOREVER, "");
        vm.expectRevert(none);
        escrow.reclaim(id);
        vm.expectRevert(none);
        escrow.pool(id);
        vm.expectRevert(none);
        escrow.lineOf(id, ALICE);
    }

    function test_an_erc1271_payer_signs_as_a_contract_does() public {
        IBudgetPool.Terms memory t = terms();
        ContractAccount account = new ContractAccount(vm.addr(PAYER));
        t.payer = address(account);
        usdc.mint(t.payer, DEPOSIT);
        bytes32 structHash = keccak256(
            abi.encode(
                usdc.RECEIVE_WITH_AUTHORIZATION_TYPEHASH(),
                t.payer,
                address(escrow),
                DEPOSIT,
                uint256(0),
                type(uint256).max,
                escrow.poolIdOf(t)
            )
        );
        bytes memory signature =
            sign(PAYER, keccak256(abi.encodePacked(hex"1901", usdc.DOMAIN_SEPARATOR(), structHash)));
        bytes32 id = openWith(t, DEPOSIT, signature);
        eq(free(id), DEPOSIT, "free");

        bytes32 close = keccak256(
            abi.encode(keccak256("RequestClose(bytes32 poolId,uint64 deadline)"), id, FOREVER)
        );
        bytes memory strange = sign(STRANGER, typed(close));
        vm.expectRevert(reason(IBudgetPool.BadSignature.selector, abi.encode(t.payer)));
        escrow.requestCloseWithSig(id, FOREVER, strange);
        escrow.requestCloseWithSig(id, FOREVER, sign(PAYER, typed(close)));
        eq(escrow.pool(id).closeRequestedAt, now_(), "closing");
    }
}

/// @dev The smallest ERC-1271 account: what its owner signed, it signed.
contract ContractAccount {
    address private immutable _owner;

    constructor(address owner) {
        _owner = owner;
    }

    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        (bytes32 r, bytes32 s, uint8 v) =
            (bytes32(signature[:32]), bytes32(signature[32:64]), uint8(signature[64]));
        return ecrecover(hash, v, r, s) == _owner ? this.isValidSignature.selector : bytes4(0xffffffff);
    }
}
