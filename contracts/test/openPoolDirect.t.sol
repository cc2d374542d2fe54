// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {Test} from "./Base.sol";

contract OpenPoolDirectTest is Test {
    IBudgetPool.Terms internal t;
    bytes32 internal id;

    function setUp() public override {
        super.setUp();
        t = terms();
        id = escrow.poolIdOf(t);
        usdc.mint(t.payer, DEPOSIT);
    }

    function approve(uint256 value) internal {
        vm.prank(t.payer);
        usdc.approve(address(escrow), value);
    }

    function opening(uint256 value) internal view returns (bytes memory) {
        return abi.encodeCall(escrow.openPoolDirect, (t, list(ALICE, BOB), value));
    }

    function test_opens_the_same_pool_out_of_an_allowance() public {
        approve(DEPOSIT);
        vm.expectEmit(address(escrow));
        emit IBudgetPool.PoolOpened(id, t.payer, t, DEPOSIT);
        vm.expectEmit(address(escrow));
        emit IBudgetPool.ProvidersAllowed(id, list(ALICE, BOB));
        vm.prank(t.payer);
        vm.assertTrue(escrow.openPoolDirect(t, list(ALICE, BOB), DEPOSIT) == id, "id");
        eq(free(id), DEPOSIT, "free");
        eq(usdc.balanceOf(address(escrow)), DEPOSIT, "tokens");
        eq(usdc.allowance(t.payer, address(escrow)), 0, "allowance");
        credit(id, 0, ALICE, 5);
    }

    function test_only_the_payer_opens() public {
        approve(DEPOSIT);
        bytes memory notPayer = reason(IBudgetPool.NotPayer.selector, abi.encode(vm.addr(STRANGER), t.payer));
        refused(id, vm.addr(STRANGER), opening(DEPOSIT), notPayer);
        eq(usdc.allowance(t.payer, address(escrow)), DEPOSIT, "allowance");
    }

    function test_only_what_is_allowed() public {
        approve(DEPOSIT - 1);
        bytes memory tooLittle = reason(
            IERC20Errors.ERC20InsufficientAllowance.selector, abi.encode(address(escrow), DEPOSIT - 1, DEPOSIT)
        );
        refused(id, t.payer, opening(DEPOSIT), tooLittle);
    }

    function test_opens_once() public {
        usdc.mint(t.payer, DEPOSIT);
        approve(2 * DEPOSIT);
        vm.prank(t.payer);
        escrow.openPoolDirect(t, list(ALICE, BOB), DEPOSIT);
        refused(id, t.payer, opening(DEPOSIT), reason(IBudgetPool.PoolExists.selector, abi.encode(id)));
    }

    function test_checks_terms_providers_and_value_as_every_opening() public {
        approve(DEPOSIT);
        refused(id, t.payer, opening(0), reason(IBudgetPool.ZeroAmount.selector));
        refused(
            id,
            t.payer,
            abi.encodeCall(escrow.openPoolDirect, (t, list(ALICE), DEPOSIT)),
            reason(
                IBudgetPool.ProvidersHashMismatch.selector,
                abi.encode(t.providersHash, keccak256(abi.encodePacked(list(ALICE))))
            )
        );
        t.windowCap = 0;
        bytes memory badTerms = reason(IBudgetPool.BadTerms.selector, abi.encode(bytes32("windowCap"), 0));
        refused(id, t.payer, opening(DEPOSIT), badTerms);
    }
}
