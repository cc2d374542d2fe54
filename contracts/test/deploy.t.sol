// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {BudgetPool} from "../src/BudgetPool.sol";
import {Test} from "./Base.sol";

contract DeployTest is Test {
    function create(address token, address feeRecipient) external {
        deploy(token, feeRecipient);
    }

    function test_refuses_to_exist_without_token_or_fee_recipient() public {
        address token = address(usdc);
        vm.expectRevert(reason(IBudgetPool.BadTerms.selector, abi.encode(bytes32("token"), 0)));
        this.create(address(0), FEES);
        vm.expectRevert(reason(IBudgetPool.BadTerms.selector, abi.encode(bytes32("feeRecipient"), 0)));
        this.create(token, address(0));
        vm.expectRevert(reason(IBudgetPool.BadTerms.selector, abi.encode(bytes32("feeRecipient"), token)));
        this.create(token, token);
    }

    function test_says_what_it_was_deployed_with() public {
        escrow = deploy(address(usdc), FEES, GUARDIAN, 77);
        eq(uint160(address(escrow.token())), uint160(address(usdc)), "token");
        eq(uint160(escrow.feeRecipient()), uint160(FEES), "fee recipient");
        eq(uint160(escrow.guardian()), uint160(GUARDIAN), "guardian");
        eq(escrow.tvlCap(), 77, "cap");
        vm.assertTrue(!escrow.depositsPaused(), "paused");
    }

    function test_says_its_limits_and_its_name_for_signatures() public view {
        eq(escrow.MAX_FEE_BPS(), 500, "fee");
        eq(escrow.DISPUTE_TIMEOUT(), 14 days, "dispute timeout");
        eq(escrow.PAYOUT_DELAY(), 2 days, "payout delay");
        eq(escrow.MAX_DISPUTE_WINDOW(), 90 days, "dispute window");
        eq(escrow.SIGNATURE_GAS(), 400_000, "signature gas");
        (, string memory name, string memory version, uint256 chain, address contract_,,) = escrow.eip712Domain();
        vm.assertEq(bytes(name), "BudgetPool", "name");
        vm.assertEq(bytes(version), "1", "version");
        eq(chain, block.chainid, "chain");
        eq(uint160(contract_), uint160(address(escrow)), "contract");
    }

    function test_without_a_guardian_the_cap_stays_and_deposits_never_pause() public {
        escrow = deploy(address(usdc), FEES, address(0), uint88(DEPOSIT));
        bytes32 id = open();
        bytes memory nobody = reason(IBudgetPool.NotGuardian.selector, abi.encode(GUARDIAN, address(0)));
        refused(id, GUARDIAN, abi.encodeCall(escrow.pauseDeposits, (true)), nobody);
        refused(id, GUARDIAN, abi.encodeCall(escrow.setTvlCap, (0)), nobody);
        eq(escrow.tvlCap(), DEPOSIT, "cap");
    }

    function test_a_pool_of_one_deployment_is_none_of_another() public {
        IBudgetPool.Terms memory t = terms();
        bytes32 id = open(t, DEPOSIT);
        BudgetPool other = deploy(address(usdc), FEES);
        vm.assertTrue(other.poolIdOf(t) != id, "id");
        vm.expectRevert(reason(IBudgetPool.NoSuchPool.selector, abi.encode(id)));
        other.pool(id);
    }
}
