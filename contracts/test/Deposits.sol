// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {Test} from "./Base.sol";

/// @title All five ways in, each good for `DEPOSIT` when the payer sends it.
abstract contract Deposits is Test {
    bytes32 internal id;
    address internal payer;

    function setUp() public virtual override {
        super.setUp();
        id = open();
        payer = vm.addr(PAYER);
        usdc.mint(payer, 5 * DEPOSIT);
        vm.prank(payer);
        usdc.approve(address(escrow), 2 * DEPOSIT);
    }

    function deposits() internal returns (bytes[5] memory calls) {
        address[] memory who = list(ALICE, BOB);
        IBudgetPool.Terms memory t = terms();
        bytes memory signature = authorize(PAYER, DEPOSIT, escrow.poolIdOf(t));
        calls[0] = abi.encodeCall(escrow.openPool, (t, who, DEPOSIT, 0, type(uint256).max, signature));
        calls[1] = abi.encodeCall(escrow.openPoolDirect, (terms(), who, DEPOSIT));
        calls[2] = abi.encodeCall(escrow.topUpDirect, (id, DEPOSIT));
        signature = authorize(PAYER, DEPOSIT, escrow.topUpNonce(id, "s"));
        calls[3] = abi.encodeCall(escrow.topUp, (id, DEPOSIT, payer, 0, type(uint256).max, "s", signature));
        signature = permit(payer, PAYER, DEPOSIT, FOREVER);
        calls[4] = abi.encodeCall(escrow.openPoolWithPermit, (terms(), who, DEPOSIT, FOREVER, signature));
    }

    function send(address from, bytes memory call) internal {
        vm.prank(from);
        (bool passed,) = address(escrow).call(call);
        vm.assertTrue(passed, "passed");
    }
}
