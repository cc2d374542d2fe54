// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title The one ERC-3009 call the escrow makes, in the form that also takes ERC-1271 signatures (USDC 2.2).
interface IERC3009 {
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external;
}

/// @title The one ERC-2612 call, in the same form.
interface IERC2612 {
    function permit(address owner, address spender, uint256 value, uint256 deadline, bytes calldata signature) external;
}
