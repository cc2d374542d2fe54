// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Test} from "./Base.sol";
import {Scanners} from "./PlainScan.sol";

/// @dev I12: the assembly scan answers and refuses exactly as the plain one does.
contract ScanTest is Test {
    Scanners internal scanners;

    function setUp() public override {
        scanners = new Scanners();
    }

    function same(bytes memory packed, uint256 cap) internal view returns (bool passed) {
        bytes memory answer;
        (passed, answer) = address(scanners).staticcall(abi.encodeCall(Scanners.tight, (packed, cap)));
        (bool plain, bytes memory expected) =
            address(scanners).staticcall(abi.encodeCall(Scanners.plain, (packed, cap)));
        vm.assertTrue(passed == plain, "one passed, one refused");
        vm.assertTrue(keccak256(answer) == keccak256(expected), "different answers");
    }

    function test_any_bytes_at_all(bytes memory packed, uint48 cap) public view {
        vm.assume(cap != 0);
        same(packed, cap);
    }

    /// @dev Well-formed batches with tight caps, and one seed in four spoilt in one place.
    function test_batches_that_are_nearly_right(uint256 seed) public view {
        uint256 providers = 1 + seed % 7;
        uint256 count = 1 + (seed >> 8) % 40;
        uint256 cap = 1 + (seed >> 16) % 1_000;
        bytes memory packed = abi.encodePacked(uint32(seed >> 24), uint8(providers));
        for (uint256 i = 0; i < providers; ++i) {
            packed = abi.encodePacked(packed, address(uint160(0x1000 + i)));
        }
        for (uint256 i = 0; i < count; ++i) {
            uint256 dice = uint256(keccak256(abi.encode(seed, i)));
            packed = abi.encodePacked(packed, record(dice % providers, 1 + (dice >> 8) % cap));
        }
        vm.assertTrue(same(packed, cap) || (seed >> 24) % (1 << 32) + count > 1 << 32, "a good batch was refused");
        uint256 place = (seed >> 64) % packed.length;
        packed[place] = bytes1(uint8(seed >> 128));
        same(packed, cap);
    }

    function test_the_edges_of_a_record() public view {
        bytes memory head = abi.encodePacked(uint32(0), uint8(2), ALICE, BOB);
        vm.assertTrue(same(abi.encodePacked(head, record(1, 100)), 100), "at the cap");
        vm.assertTrue(!same(abi.encodePacked(head, record(1, 101)), 100), "above it");
        vm.assertTrue(!same(abi.encodePacked(head, record(1, 0)), 100), "zero");
        vm.assertTrue(!same(abi.encodePacked(head, record(2, 1)), 100), "index");
        vm.assertTrue(same(abi.encodePacked(head, record(0, type(uint40).max)), type(uint48).max), "widest");
        vm.assertTrue(!same(abi.encodePacked(head, record(1, 1), record(255, 0)), 100), "last");
        vm.assertTrue(!same(abi.encodePacked(uint32(0), uint8(255), ALICE, record(0, 1)), 100), "short");
    }
}
