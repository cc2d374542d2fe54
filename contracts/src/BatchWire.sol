// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "./interfaces/IBudgetPool.sol";

/// @title The packed form of a batch: `u32 firstSeq | u8 M | M x address | N x (u8 providerIdx, u40 amount)`.
/// @dev Reads calldata only. `PlainScan` in the tests is the same scan without assembly, and the tests hold the
/// two equal.
library BatchWire {
    uint256 internal constant HEAD = 5;
    uint256 internal constant PROVIDER_SIZE = 20;
    uint256 internal constant RECORD_SIZE = 6;

    /// @return firstSeq sequence number of the first record
    /// @return count number of records
    /// @return sums the net amount of each listed provider
    function scan(bytes calldata packed, uint256 cap)
        internal
        pure
        returns (uint256 firstSeq, uint256 count, uint256[] memory sums)
    {
        uint256 length = packed.length;
        if (length < HEAD) revert IBudgetPool.BadWire(length);
        firstSeq = uint32(bytes4(packed));
        uint256 providers = uint8(packed[4]);
        uint256 start = HEAD + PROVIDER_SIZE * providers;
        if (providers == 0 || length <= start || (length - start) % RECORD_SIZE != 0) {
            revert IBudgetPool.BadWire(length);
        }
        count = (length - start) / RECORD_SIZE;
        if (firstSeq + count > 1 << 32) revert IBudgetPool.SequenceOverflow(firstSeq, count);

        sums = new uint256[](providers);
        uint256 bad;
        // Amounts below 2^40 and fewer than 2^32 records: no sum can overflow.
        assembly ("memory-safe") {
            let cursor := add(packed.offset, start)
            let end := add(packed.offset, length)
            let base := add(sums, 0x20)
            let most := sub(cap, 1)
            for {} lt(cursor, end) { cursor := add(cursor, 6) } {
                let word := calldataload(cursor)
                let index := byte(0, word)
                let amount := and(shr(208, word), 0xffffffffff)
                // `amount - 1` wraps for zero, so one comparison refuses both zero and too much.
                if or(gt(sub(amount, 1), most), iszero(lt(index, providers))) {
                    bad := cursor
                    break
                }
                let place := add(base, shl(5, index))
                mstore(place, add(mload(place), amount))
            }
        }
        if (bad != 0) _refuse(packed, start, firstSeq, count, providers, cap);
    }

    /// @dev For an index below the number of providers that `scan` found, which has seen the bytes.
    function providerAt(bytes calldata packed, uint256 index) internal pure returns (address provider) {
        assembly ("memory-safe") {
            provider := shr(96, calldataload(add(packed.offset, add(HEAD, mul(PROVIDER_SIZE, index)))))
        }
    }

    /// @dev Finds the first bad record again, slowly, to name it.
    function _refuse(
        bytes calldata packed,
        uint256 start,
        uint256 firstSeq,
        uint256 count,
        uint256 providers,
        uint256 cap
    ) private pure {
        for (uint256 i = 0; i < count; ++i) {
            uint256 offset = start + RECORD_SIZE * i;
            uint256 index = uint8(packed[offset]);
            uint256 amount = uint40(bytes5(packed[offset + 1:offset + RECORD_SIZE]));
            if (index >= providers) revert IBudgetPool.BadProviderIndex(firstSeq + i, index, providers);
            if (amount == 0) revert IBudgetPool.ZeroRecord(firstSeq + i);
            if (amount > cap) revert IBudgetPool.RecordOverCap(firstSeq + i, amount, cap);
        }
    }
}
