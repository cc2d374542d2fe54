// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {ContractAccount} from "./Accounts.sol";
import {Test} from "./Base.sol";

contract OpenPoolWithPermitTest is Test {
    IBudgetPool.Terms internal t;
    bytes32 internal id;

    function setUp() public override {
        super.setUp();
        t = terms();
        id = escrow.poolIdOf(t);
        usdc.mint(t.payer, DEPOSIT);
    }

    function opening(bytes memory signature) internal view returns (bytes memory) {
        return abi.encodeCall(escrow.openPoolWithPermit, (t, list(ALICE, BOB), DEPOSIT, START, signature));
    }

    function opens(bytes memory signature) internal {
        vm.prank(t.payer);
        bytes32 opened = escrow.openPoolWithPermit(t, list(ALICE, BOB), DEPOSIT, START, signature);
        vm.assertTrue(opened == id, "id");
        eq(free(id), DEPOSIT, "free");
        eq(usdc.balanceOf(address(escrow)), DEPOSIT, "tokens");
        eq(usdc.allowance(t.payer, address(escrow)), 0, "allowance");
        vm.assertTrue(line(id, ALICE).allowed && line(id, BOB).allowed, "allowed");
    }

    function unallowed(bytes memory signature) internal {
        bytes memory nothingAllowed =
            reason(IERC20Errors.ERC20InsufficientAllowance.selector, abi.encode(address(escrow), 0, DEPOSIT));
        refused(id, t.payer, opening(signature), nothingAllowed);
    }

    function test_opens_on_a_permit_until_its_last_second() public {
        bytes memory signature = permit(t.payer, PAYER, DEPOSIT, START);
        vm.warp(START + 1);
        unallowed(signature);
        vm.warp(START);
        vm.expectEmit(address(escrow));
        emit IBudgetPool.PoolOpened(id, t.payer, t, DEPOSIT);
        opens(signature);
    }

    function test_a_permit_that_a_stranger_used_before_works_still() public {
        bytes memory signature = permit(t.payer, PAYER, DEPOSIT, START);
        vm.prank(vm.addr(STRANGER));
        usdc.permit(t.payer, address(escrow), DEPOSIT, START, signature);
        opens(signature);
    }

    function test_an_allowance_makes_up_for_a_bad_permit() public {
        vm.prank(t.payer);
        usdc.approve(address(escrow), DEPOSIT);
        opens("");
    }

    function test_a_bad_permit_without_an_allowance_is_refused() public {
        unallowed("");
        unallowed(permit(t.payer, STRANGER, DEPOSIT, START));
        unallowed(permit(t.payer, PAYER, DEPOSIT - 1, START));
        unallowed(permit(t.payer, PAYER, DEPOSIT, START + 1));
    }

    function test_only_the_payer_opens() public {
        bytes memory signature = permit(t.payer, PAYER, DEPOSIT, START);
        bytes memory notPayer = reason(IBudgetPool.NotPayer.selector, abi.encode(vm.addr(STRANGER), t.payer));
        refused(id, vm.addr(STRANGER), opening(signature), notPayer);
        eq(usdc.nonces(t.payer), 0, "the permit is unused");
    }

    function test_a_permit_opens_one_pool() public {
        bytes memory signature = permit(t.payer, PAYER, DEPOSIT, START);
        opens(signature);
        t = terms();
        id = escrow.poolIdOf(t);
        usdc.mint(t.payer, DEPOSIT);
        unallowed(signature);
    }

    function test_an_erc1271_payer_permits_as_a_contract_does() public {
        t.payer = address(new ContractAccount(vm.addr(PAYER)));
        id = escrow.poolIdOf(t);
        usdc.mint(t.payer, DEPOSIT);
        unallowed(permit(t.payer, STRANGER, DEPOSIT, START));
        opens(permit(t.payer, PAYER, DEPOSIT, START));
    }
}
