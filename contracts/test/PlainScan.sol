// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {BatchWire} from "../src/BatchWire.sol";
import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";

/// @title The scan of a batch as one would write it without caring for gas: the oracle for `BatchWire.scan`.
library PlainScan {
    function scan(bytes calldata packed, uint256 cap)
        internal
        pure
        returns (uint256 firstSeq, uint256 count, uint256[] memory sums)
    {
        if (packed.length < 5) revert IBudgetPool.BadWire(packed.length);
        firstSeq = uint32(bytes4(packed[0:4]));
        uint256 providers = uint8(packed[4]);
        if (providers == 0 || packed.length <= 5 + 20 * providers) revert IBudgetPool.BadWire(packed.length);
        bytes calldata records = packed[5 + 20 * providers:];
        if (records.length % 6 != 0) revert IBudgetPool.BadWire(packed.length);
        count = records.length / 6;
        if (firstSeq + count > 2 ** 32) revert IBudgetPool.SequenceOverflow(firstSeq, count);
        sums = new uint256[](providers);
        for (uint256 i = 0; i < count; ++i) {
            uint256 index = uint8(records[6 * i]);
            uint256 amount = uint40(bytes5(records[6 * i + 1:6 * i + 6]));
            if (index >= providers) revert IBudgetPool.BadProviderIndex(firstSeq + i, index, providers);
            if (amount == 0) revert IBudgetPool.ZeroRecord(firstSeq + i);
            if (amount > cap) revert IBudgetPool.RecordOverCap(firstSeq + i, amount, cap);
            sums[index] += amount;
        }
    }
}

/// @dev Both scans behind one door each, so that a test can compare what they return and how they revert.
contract Scanners {
    function tight(bytes calldata packed, uint256 cap)
        external
        pure
        returns (uint256 firstSeq, uint256 count, uint256[] memory sums)
    {
        return BatchWire.scan(packed, cap);
    }

    function plain(bytes calldata packed, uint256 cap)
        external
        pure
        returns (uint256 firstSeq, uint256 count, uint256[] memory sums)
    {
        return PlainScan.scan(packed, cap);
    }
}
