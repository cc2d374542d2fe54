// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Scanners} from "../PlainScan.sol";

/// @dev I12: for every amount, number and cap the assembly scan answers and refuses as the plain one does. Indexes, of
/// which one is out of range, are gone through one by one.
contract ScanChecks {
    Scanners internal scanners;

    function setUp() public {
        scanners = new Scanners();
    }

    function same(bytes memory packed, uint40 cap) internal view {
        (bool tight, bytes memory answer) =
            address(scanners).staticcall(abi.encodeCall(Scanners.tight, (packed, cap)));
        (bool plain, bytes memory expected) =
            address(scanners).staticcall(abi.encodeCall(Scanners.plain, (packed, cap)));
        assert(tight == plain);
        assert(keccak256(answer) == keccak256(expected));
    }

    function check_I12_one_record(uint32 seq, uint40 amount, uint40 cap) public view {
        if (cap == 0) return;
        for (uint256 i = 0; i < 2; ++i) same(abi.encodePacked(seq, uint8(1), address(0xA1), uint8(i), amount), cap);
    }

    function check_I12_two_records(uint32 seq, uint40 a, uint40 b, uint40 cap) public view {
        if (cap == 0) return;
        bytes memory head = abi.encodePacked(seq, uint8(2), address(0xA1), address(0xB2));
        for (uint256 i = 0; i < 3; ++i) {
            for (uint256 j = 0; j < 3; ++j) same(abi.encodePacked(head, uint8(i), a, uint8(j), b), cap);
        }
    }

    function check_I12_three_records_of_one_provider(uint32 seq, uint40 a, uint40 b, uint40 c, uint40 cap) public view {
        if (cap == 0) return;
        bytes memory records = abi.encodePacked(uint8(0), a, uint8(0), b, uint8(0), c);
        same(abi.encodePacked(seq, uint8(1), address(0xA1), records), cap);
    }

    /// @dev Every length up to that of two records and a bit, with the count of providers right or wrong.
    function check_I12_any_length(uint32 seq, uint40 amount, uint40 cap) public view {
        if (cap == 0) return;
        bytes memory whole =
            abi.encodePacked(seq, uint8(1), address(0xA1), uint8(0), amount, uint8(0), amount, uint8(0));
        for (uint256 length = 0; length <= whole.length; ++length) {
            bytes memory part = new bytes(length);
            for (uint256 i = 0; i < length; ++i) part[i] = whole[i];
            same(part, cap);
        }
    }
}
