// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {ContractAccount} from "./Accounts.sol";
import {Test} from "./Base.sol";

contract SetPayoutTest is Test {
    uint256 internal constant KEY = 0xD0;
    uint256 internal constant DUE = START + 2 days;
    address internal constant COLD = address(0xC01D);
    bytes32 internal id;
    address internal dora;

    function setUp() public override {
        super.setUp();
        IBudgetPool.Terms memory t = terms();
        t.feeBps = 0;
        id = open(t, DEPOSIT);
        dora = vm.addr(KEY);
        allow(dora);
        credit(id, 0, dora, 100);
        credit(id, 1, ALICE, 100);
    }

    function allow(address provider) internal {
        vm.prank(vm.addr(PAYER));
        escrow.allowProviders(id, list(provider));
    }

    function redirect(address payout) internal {
        vm.expectEmit(address(escrow));
        emit IBudgetPool.PayoutChangeRequested(id, dora, payout, now_() + 2 days);
        vm.prank(dora);
        escrow.setPayout(id, payout);
    }

    /// @dev A withdrawal pays `to` exactly this.
    function pays(address to, uint256 amount) internal {
        uint256 before = usdc.balanceOf(to);
        vm.expectEmit(address(escrow));
        emit IBudgetPool.Withdrawn(id, dora, to, amount, 0);
        vm.prank(vm.addr(STRANGER));
        escrow.withdraw(id, dora);
        eq(usdc.balanceOf(to), before + amount, "paid");
    }

    function waits(address payout, address next, uint256 effectiveAt) internal view {
        (address payoutNow, address payoutNext, uint64 dueAt) = escrow.payoutOf(id, dora);
        eq(uint160(payoutNow), uint160(payout), "payout");
        eq(uint160(payoutNext), uint160(next), "next");
        eq(dueAt, effectiveAt, "effectiveAt");
    }

    function unchanged(address caller, bytes memory call, bytes memory expected) internal {
        refused(id, caller, call, expected);
        waits(dora, address(0), 0);
    }

    function test_the_old_address_is_paid_to_the_last_second_and_the_new_one_from_then_on() public {
        waits(dora, address(0), 0);
        redirect(COLD);
        waits(dora, COLD, DUE);
        vm.warp(DUE - 1 - 2 * W);
        credit(id, 2, dora, 40);
        vm.warp(DUE - 1);
        waits(dora, COLD, DUE);
        pays(dora, 140);
        credit(id, 3, dora, 7);
        vm.warp(DUE);
        waits(COLD, address(0), 0);
        vm.warp(DUE + 2 * W);
        pays(COLD, 7);
        escrow.withdraw(id, ALICE);
        eq(usdc.balanceOf(ALICE), 100, "nobody else's line is redirected");
    }

    function test_the_new_address_is_paid_in_the_very_second() public {
        redirect(COLD);
        vm.warp(DUE);
        pays(COLD, 100);
    }

    function test_a_provider_names_its_own_again_before_it_begins_and_is_always_paid() public {
        redirect(COLD);
        vm.warp(DUE - 1);
        redirect(dora);
        waits(dora, dora, DUE - 1 + 2 days);
        vm.warp(DUE);
        pays(dora, 100);
        vm.warp(DUE + 2 days);
        waits(dora, address(0), 0);
    }

    function test_back_again_after_it_began_takes_as_long() public {
        redirect(COLD);
        vm.warp(DUE);
        redirect(dora);
        waits(COLD, dora, DUE + 2 days);
        vm.warp(DUE + 2 days - 1);
        pays(COLD, 100);
        credit(id, 2, dora, 9);
        vm.warp(DUE + 2 days + 2 * W);
        pays(dora, 9);
    }

    function test_another_change_takes_the_place_of_one_that_waits() public {
        redirect(BOB);
        vm.warp(DUE - 1);
        redirect(COLD);
        vm.warp(DUE + 2 days - 1);
        pays(COLD, 100);
        eq(usdc.balanceOf(BOB), 0, "bob");
    }

    function test_a_strangers_line_stays_empty_and_keeps_its_address_for_later() public {
        address stranger = vm.addr(STRANGER);
        bytes32 before = money(id);
        vm.prank(stranger);
        escrow.setPayout(id, COLD);
        unmoved(id, before);
        vm.assertTrue(!line(id, stranger).allowed, "allowed");
        bytes memory notAllowed = reason(IBudgetPool.ProviderNotAllowed.selector, abi.encode(id, stranger));
        refused(id, batch(2, stranger, record(0, 1)), notAllowed);
        allow(stranger);
        credit(id, 2, stranger, 5);
        vm.warp(DUE);
        escrow.withdraw(id, stranger);
        eq(usdc.balanceOf(COLD), 5, "cold");
    }

    function test_refuses_what_could_never_be_paid() public {
        address[3] memory bad = [address(0), address(escrow), address(usdc)];
        for (uint256 i = 0; i < bad.length; ++i) {
            bytes memory expected = reason(IBudgetPool.BadPayout.selector, abi.encode(bad[i]));
            unchanged(dora, abi.encodeCall(escrow.setPayout, (id, bad[i])), expected);
            bytes memory signature = signed(KEY, bad[i], "n", FOREVER);
            bytes memory call = abi.encodeCall(escrow.setPayoutWithSig, (id, dora, bad[i], "n", FOREVER, signature));
            unchanged(dora, call, expected);
        }
    }

    function test_the_payout_outlives_an_emptied_line_of_an_ended_pool() public {
        redirect(COLD);
        vm.warp(START + 30 days - 1);
        credit(id, 2, dora, 60);
        dispute(id, dora, 60);
        vm.warp(START + 30 days);
        pays(COLD, 100);
        vm.assertTrue(!line(id, dora).allowed, "emptied");
        rule(id, dora, 60);
        pays(COLD, 60);
    }

    function test_a_blacklisted_provider_gets_out_through_its_payout_even_at_the_end() public {
        usdc.blacklist(dora);
        vm.warp(START + 30 days);
        bytes memory stuck = abi.encodeWithSignature("Error(string)", "Blacklistable: account is blacklisted");
        refused(id, dora, abi.encodeCall(escrow.withdraw, (id, dora)), stuck);
        redirect(COLD);
        vm.warp(START + 32 days);
        pays(COLD, 100);
    }

    // ------------------------------------------------------------------ by signature

    function signed(uint256 key, address payout, bytes32 nonce, uint64 deadline) internal view returns (bytes memory) {
        return signed(dora, key, payout, nonce, deadline);
    }

    function signed(address provider, uint256 key, address payout, bytes32 nonce, uint64 deadline)
        internal
        view
        returns (bytes memory)
    {
        bytes32 typeHash =
            keccak256("SetPayout(bytes32 poolId,address provider,address payout,bytes32 nonce,uint64 deadline)");
        return sign(key, typed(keccak256(abi.encode(typeHash, id, provider, payout, nonce, deadline))));
    }

    function test_the_providers_signature_redirects_once_from_anyones_hand() public {
        bytes memory signature = signed(KEY, COLD, "n", uint64(START));
        vm.prank(vm.addr(STRANGER));
        escrow.setPayoutWithSig(id, dora, COLD, "n", uint64(START), signature);
        waits(dora, COLD, DUE);
        vm.assertTrue(escrow.nonceUsed(dora, "n"), "nonce");
        bytes memory call = abi.encodeCall(escrow.setPayoutWithSig, (id, dora, COLD, "n", uint64(START), signature));
        refused(id, dora, call, reason(IBudgetPool.NonceUsed.selector, abi.encode(dora, bytes32("n"))));
        vm.warp(DUE);
        pays(COLD, 100);
    }

    function test_refuses_a_strange_another_or_a_late_signature() public {
        bytes memory bad = reason(IBudgetPool.BadSignature.selector, abi.encode(dora));
        bytes[5] memory signatures = [
            signed(PAYER, COLD, "n", FOREVER),
            signed(KEY, BOB, "n", FOREVER),
            signed(KEY, COLD, "m", FOREVER),
            signed(KEY, COLD, "n", FOREVER - 1),
            signed(ALICE, KEY, COLD, "n", FOREVER)
        ];
        for (uint256 i = 0; i < signatures.length; ++i) {
            bytes memory call = abi.encodeCall(escrow.setPayoutWithSig, (id, dora, COLD, "n", FOREVER, signatures[i]));
            unchanged(vm.addr(PAYER), call, bad);
        }
        uint64 past = uint64(START - 1);
        bytes memory late =
            abi.encodeCall(escrow.setPayoutWithSig, (id, dora, COLD, "n", past, signed(KEY, COLD, "n", past)));
        unchanged(dora, late, reason(IBudgetPool.DeadlinePassed.selector, abi.encode(past, START)));
        vm.assertTrue(!escrow.nonceUsed(dora, "n"), "nonce");
    }

    function test_an_erc1271_provider_signs_as_a_contract_does() public {
        dora = address(new ContractAccount(vm.addr(KEY)));
        allow(dora);
        credit(id, 2, dora, 100);
        escrow.setPayoutWithSig(id, dora, COLD, "n", FOREVER, signed(KEY, COLD, "n", FOREVER));
        vm.warp(DUE);
        pays(COLD, 100);
    }
}
