// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

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

/// @dev An ERC-1271 account that uses up all the gas it is given.
contract GasBurner {
    function isValidSignature(bytes32, bytes calldata) external pure returns (bytes4) {
        assembly {
            invalid()
        }
    }
}

/// @dev An ERC-1271 account that says yes to anything after using `work` gas, or after using all but `rest`.
contract SlowAccount {
    uint256 private immutable _work;
    uint256 private immutable _rest;

    constructor(uint256 work, uint256 rest) {
        (_work, _rest) = (work, rest);
    }

    function isValidSignature(bytes32, bytes calldata) external view returns (bytes4) {
        uint256 given = gasleft();
        while (given - gasleft() < _work && gasleft() > _rest) {}
        return this.isValidSignature.selector;
    }
}
