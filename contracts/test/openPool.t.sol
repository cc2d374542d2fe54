// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {TestUSDC} from "../src/test/TestUSDC.sol";
import {ContractAccount} from "./Accounts.sol";
import {Test} from "./Base.sol";

/// @dev A token that keeps one unit of every transfer.
contract TollToken is TestUSDC("USDC") {
    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (from != address(0) && to != address(0)) super._update(to, address(0xDEAD), 1);
    }
}

/// @dev A token that adds one unit to every transfer.
contract GiftToken is TestUSDC("USDC") {
    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (from != address(0)) super._update(address(0), to, 1);
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
        eq(p.endsAt, t.expiry, "endsAt");
        vm.assertTrue(!p.closing, "closing");
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
            "Terms(address payer,address authorizer,address arbiter,uint64 expiry,uint32 closeDelay,uint40 perRecordCap,uint56 windowCap,uint32 windowLength,uint32 disputeWindow,uint16 feeBps,bytes32 providersHash,bytes32 salt)"
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
        t.disputeWindow = uint32(90 days + 1);
        refusedTerms(t, "disputeWindow", 90 days + 1);
        t.disputeWindow = uint32(90 days);
        open(t, DEPOSIT);
        t = terms();
        t.feeBps = 501;
        refusedTerms(t, "feeBps", 501);
    }

    function refusedTerms(IBudgetPool.Terms memory t, bytes32 field, uint256 value) internal {
        bytes memory signature = authorize(PAYER, DEPOSIT, escrow.poolIdOf(t));
        refusedOpening(
            t, list(ALICE, BOB), DEPOSIT, signature, reason(IBudgetPool.BadTerms.selector, abi.encode(field, value))
        );
    }

    function refusedOpening(
        IBudgetPool.Terms memory t,
        address[] memory providers,
        uint256 value,
        bytes memory signature,
        bytes memory expected
    ) internal {
        bytes memory call =
            abi.encodeCall(escrow.openPool, (t, providers, value, 0, type(uint256).max, signature));
        refused(escrow.poolIdOf(t), vm.addr(STRANGER), call, expected);
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
        refusedOpening(
            t,
            list(BOB, ALICE),
            DEPOSIT,
            signature,
            reason(IBudgetPool.ProvidersHashMismatch.selector, abi.encode(t.providersHash, other))
        );
    }

    function test_refuses_providers_that_could_never_be_paid() public {
        address[3] memory bad = [address(0), address(escrow), address(usdc)];
        for (uint256 i = 0; i < bad.length; ++i) {
            IBudgetPool.Terms memory t = terms();
            t.providersHash = keccak256(abi.encodePacked(list(bad[i])));
            bytes memory signature = authorize(PAYER, DEPOSIT, escrow.poolIdOf(t));
            refusedOpening(
                t,
                list(bad[i]),
                DEPOSIT,
                signature,
                reason(IBudgetPool.BadProvider.selector, abi.encode(bad[i]))
            );
        }
    }

    function test_opens_once() public {
        IBudgetPool.Terms memory t = terms();
        bytes32 id = open(t, DEPOSIT);
        bytes memory signature = authorize(PAYER, DEPOSIT, id);
        refusedOpening(
            t, list(ALICE, BOB), DEPOSIT, signature, reason(IBudgetPool.PoolExists.selector, abi.encode(id))
        );
    }

    function test_refuses_another_value_than_signed() public {
        IBudgetPool.Terms memory t = terms();
        usdc.mint(t.payer, DEPOSIT);
        bytes memory signature = authorize(PAYER, DEPOSIT - 1, escrow.poolIdOf(t));
        refusedOpening(
            t,
            list(ALICE, BOB),
            DEPOSIT,
            signature,
            abi.encodeWithSignature("Error(string)", "FiatTokenV2: invalid signature")
        );
    }

    function test_refuses_other_terms_than_signed() public {
        IBudgetPool.Terms memory t = terms();
        usdc.mint(t.payer, DEPOSIT);
        bytes memory signature = authorize(PAYER, DEPOSIT, escrow.poolIdOf(t));
        t.perRecordCap += 1;
        refusedOpening(
            t,
            list(ALICE, BOB),
            DEPOSIT,
            signature,
            abi.encodeWithSignature("Error(string)", "FiatTokenV2: invalid signature")
        );
    }

    function test_refuses_nothing_and_too_much() public {
        IBudgetPool.Terms memory t = terms();
        refusedOpening(t, list(ALICE, BOB), 0, "", reason(IBudgetPool.ZeroAmount.selector));
        uint256 max = type(uint56).max;
        refusedOpening(
            t,
            list(ALICE, BOB),
            max + 1,
            "",
            reason(IBudgetPool.DepositTooLarge.selector, abi.encode(max + 1, max))
        );
        eq(free(open(t, max)), max, "free");
    }

    function test_refuses_a_token_that_moves_less_or_more_than_was_signed() public {
        mismatched(new TollToken(), DEPOSIT - 1);
        mismatched(new GiftToken(), DEPOSIT + 1);
    }

    function mismatched(TestUSDC token, uint256 received) internal {
        usdc = token;
        escrow = deploy(address(token), FEES);
        IBudgetPool.Terms memory t = terms();
        usdc.mint(t.payer, DEPOSIT);
        bytes memory signature = authorize(PAYER, DEPOSIT, escrow.poolIdOf(t));
        refusedOpening(
            t,
            list(ALICE, BOB),
            DEPOSIT,
            signature,
            reason(IBudgetPool.DepositMismatch.selector, abi.encode(DEPOSIT, received))
        );
    }

    function test_an_erc1271_payer_signs_as_a_contract_does() public {
        IBudgetPool.Terms memory t = terms();
        ContractAccount account = new ContractAccount(vm.addr(PAYER));
        t.payer = address(account);
        bytes32 id = open(t, DEPOSIT);
        eq(free(id), DEPOSIT, "free");

        bytes32 close = keccak256(
            abi.encode(keccak256("RequestClose(bytes32 poolId,uint64 deadline)"), id, FOREVER)
        );
        refused(
            id,
            t.payer,
            abi.encodeCall(escrow.requestCloseWithSig, (id, FOREVER, sign(STRANGER, typed(close)))),
            reason(IBudgetPool.BadSignature.selector, abi.encode(t.payer))
        );
        escrow.requestCloseWithSig(id, FOREVER, sign(PAYER, typed(close)));
        vm.assertTrue(escrow.pool(id).closing, "closing");
    }
}
