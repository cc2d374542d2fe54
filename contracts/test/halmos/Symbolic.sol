// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {BudgetPool} from "../../src/BudgetPool.sol";
import {IBudgetPool} from "../../src/interfaces/IBudgetPool.sol";

interface SymbolicVm {
    function assume(bool condition) external pure;
    function warp(uint256 timestamp) external;
    function prank(address sender) external;
}

/// @dev Moves what it is told to move: the real token's refusals are tested elsewhere.
contract PlainToken {
    mapping(address account => uint256) public balanceOf;

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    function transfer(address to, uint256 amount) external returns (bool) {
        balanceOf[msg.sender] -= amount;
        balanceOf[to] += amount;
        return true;
    }

    function transferFrom(address from, address to, uint256 amount) external returns (bool) {
        balanceOf[from] -= amount;
        balanceOf[to] += amount;
        return true;
    }
}

/// @dev An ERC-1271 authorizer that has signed the one digest it was told of, or, told zero, everything.
contract Wallet {
    bytes32 public signed;

    function sign(bytes32 digest) external {
        signed = digest;
    }

    function isValidSignature(bytes32 digest, bytes calldata) external view returns (bytes4) {
        return signed == 0 || digest == signed ? this.isValidSignature.selector : bytes4(0);
    }
}

/// @title What the symbolic checks share. halmos runs `check_` functions with every argument at once.
/// @dev Shapes and indexes are concrete, amounts, callers and times are not; lengths of time are powers of two, so that
/// a division is a shift. The authorizer is a contract, so that no check has to reason about elliptic curves.
/// halmos gives a call any gas at all, and a batch may be refused for want of it: a check says what is so if it passes.
abstract contract Symbolic {
    SymbolicVm internal constant vm = SymbolicVm(address(uint160(uint256(keccak256("hevm cheat code")))));
    address internal constant PAYER = address(0xA11CE);
    address internal constant ARBITER = address(0xA3B);
    address internal constant FEES = address(0xFEE5);
    address internal constant ALICE = address(0xA1);
    address internal constant BOB = address(0xB2);
    uint256 internal constant W = 4096;
    uint256 internal constant START = 1 << 30;
    uint256 internal constant END = START + 64 * W;
    uint256 internal constant DEPOSIT = 1 << 32;
    uint256 internal constant RECORD_CAP = 1 << 30;
    uint256 internal constant WINDOW_CAP = 3 << 29;
    bytes32 internal constant REF = bytes32("ref");

    PlainToken internal token;
    BudgetPool internal escrow;
    Wallet internal wallet;
    IBudgetPool.Terms internal terms;
    bytes32 internal id;

    function setUp() public {
        vm.warp(START);
        token = new PlainToken();
        escrow = new BudgetPool(address(token), FEES, address(0), type(uint88).max);
        wallet = new Wallet();
        terms.payer = PAYER;
        terms.authorizer = address(wallet);
        terms.arbiter = ARBITER;
        terms.expiry = uint64(END);
        terms.closeDelay = uint32(W);
        (terms.perRecordCap, terms.windowCap) = (uint40(RECORD_CAP), uint56(WINDOW_CAP));
        (terms.windowLength, terms.disputeWindow) = (uint32(4 * W), uint32(W));
        terms.feeBps = 250;
        id = open();
    }

    function open() internal returns (bytes32) {
        address[] memory who = new address[](2);
        (who[0], who[1]) = (ALICE, BOB);
        terms.providersHash = keccak256(abi.encodePacked(who));
        token.mint(PAYER, DEPOSIT);
        vm.prank(PAYER);
        return escrow.openPoolDirect(terms, who, DEPOSIT);
    }

    function one(uint32 seq, address provider, uint40 amount) internal pure returns (bytes memory) {
        return abi.encodePacked(seq, uint8(1), provider, uint8(0), amount);
    }

    function two(uint32 seq, uint40 a, uint40 b) internal pure returns (bytes memory) {
        return abi.encodePacked(seq, uint8(2), ALICE, BOB, uint8(0), a, uint8(1), b);
    }

    function settle(bytes memory packed) internal returns (bool passed) {
        return settle(id, packed, 0, type(uint64).max);
    }

    function settle(bytes32 pool, bytes memory packed, bytes32 root, uint64 deadline) internal returns (bool passed) {
        (passed,) = address(escrow).call(abi.encodeCall(escrow.settle, (pool, packed, root, deadline, "")));
    }

    function free() internal view returns (uint256) {
        return escrow.pool(id).free;
    }

    function lineOf(address provider) internal view returns (IBudgetPool.LineState memory) {
        return escrow.lineOf(id, provider);
    }
}
