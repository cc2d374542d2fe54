// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {BudgetPool} from "../src/BudgetPool.sol";
import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {TestUSDC} from "../src/test/TestUSDC.sol";

/// @dev The cheat codes used here, declared by hand.
interface Vm {
    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function warp(uint256 timestamp) external;
    function getBlockTimestamp() external view returns (uint256);
    function prank(address sender) external;
    function etch(address target, bytes calldata code) external;
    function envOr(string calldata name, bool otherwise) external view returns (bool);
    function readFile(string calldata path) external view returns (string memory);
    function parseJsonBytes(string calldata json, string calldata key) external pure returns (bytes memory);
    function expectRevert(bytes calldata data) external;
    function expectEmit(address emitter) external;
    function assume(bool condition) external pure;
    function assertEq(uint256 left, uint256 right, string calldata what) external pure;
    function assertEq(bytes calldata left, bytes calldata right, string calldata what) external pure;
    function assertTrue(bool condition, string calldata what) external pure;
}

/// @title What every test file shares: the contract on its token, four keys, three providers, and how they sign.
/// @dev Time is read with `vm.getBlockTimestamp()`: the optimizer takes `block.timestamp` for constant in a call.
abstract contract Base {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    uint256 internal constant PAYER = 0xA11CE;
    uint256 internal constant AUTHORIZER = 0xA07;
    uint256 internal constant ARBITER = 0xA3B;
    uint256 internal constant STRANGER = 0x57A;
    address internal constant FEES = address(0xFEE5);
    address internal constant GUARDIAN = address(0x6A4D);
    address internal constant ALICE = address(0xA1);
    address internal constant BOB = address(0xB2);
    address internal constant CAROL = address(0xC3);

    uint256 internal constant W = 1 hours;
    uint256 internal constant START = 500_000 * W;
    uint64 internal constant FOREVER = type(uint64).max;
    uint256 internal constant DEPOSIT = 10_000_000;
    bytes32 internal constant REF = bytes32("dispute one");
    bytes32 internal constant ROOT = bytes32("root");

    TestUSDC internal usdc;
    BudgetPool internal escrow;
    uint256 private _salt;
    mapping(bytes32 poolId => IBudgetPool.Terms) private _agreed;

    function deploy(address token, address feeRecipient) internal returns (BudgetPool) {
        return deploy(token, feeRecipient, GUARDIAN, type(uint88).max);
    }

    /// @dev The committed bytecode, so that what is tested is what is deployed; see foundry.toml.
    function deploy(address token, address feeRecipient, address guardian, uint88 cap)
        internal
        returns (BudgetPool deployed)
    {
        if (vm.envOr("FROM_SOURCE", false)) return new BudgetPool(token, feeRecipient, guardian, cap);
        bytes memory code = vm.parseJsonBytes(vm.readFile("artifacts/BudgetPool.json"), ".bytecode");
        code = abi.encodePacked(code, abi.encode(token, feeRecipient, guardian, cap));
        assembly ("memory-safe") {
            deployed := create(0, add(code, 0x20), mload(code))
            if iszero(deployed) {
                returndatacopy(0, 0, returndatasize())
                revert(0, returndatasize())
            }
        }
    }

    // ------------------------------------------------------------------ terms and opening

    function list(address a) internal pure returns (address[] memory all) {
        all = new address[](1);
        all[0] = a;
    }

    function list(address a, address b) internal pure returns (address[] memory all) {
        all = new address[](2);
        (all[0], all[1]) = (a, b);
    }

    function terms() internal returns (IBudgetPool.Terms memory t) {
        t.payer = vm.addr(PAYER);
        t.authorizer = vm.addr(AUTHORIZER);
        t.arbiter = vm.addr(ARBITER);
        t.expiry = uint64(START + 30 days);
        t.closeDelay = uint32(1 days);
        t.perRecordCap = 1_000_000;
        t.windowCap = 4_000_000;
        t.windowLength = uint32(6 hours);
        t.disputeWindow = uint32(W);
        t.feeBps = 250;
        t.providersHash = keccak256(abi.encodePacked(list(ALICE, BOB)));
        t.salt = bytes32(++_salt);
    }

    function authorize(uint256 key, uint256 value, bytes32 nonce) internal view returns (bytes memory) {
        return authorizeAs(vm.addr(key), key, value, nonce);
    }

    /// @dev `from` is the account of `key`, or a contract that takes its signatures.
    function authorizeAs(address from, uint256 key, uint256 value, bytes32 nonce) internal view returns (bytes memory) {
        bytes32 structHash = keccak256(
            abi.encode(
                usdc.RECEIVE_WITH_AUTHORIZATION_TYPEHASH(),
                from,
                address(escrow),
                value,
                uint256(0),
                type(uint256).max,
                nonce
            )
        );
        return signForToken(key, structHash);
    }

    function signForToken(uint256 key, bytes32 structHash) internal view returns (bytes memory) {
        return sign(key, keccak256(abi.encodePacked(hex"1901", usdc.DOMAIN_SEPARATOR(), structHash)));
    }

    /// @dev The next ERC-2612 permit of `owner` for the escrow.
    function permit(address owner, uint256 key, uint256 value, uint256 deadline) internal view returns (bytes memory) {
        bytes32 structHash = keccak256(
            abi.encode(usdc.PERMIT_TYPEHASH(), owner, address(escrow), value, usdc.nonces(owner), deadline)
        );
        return signForToken(key, structHash);
    }

    function openWith(IBudgetPool.Terms memory t, uint256 value, bytes memory signature) internal returns (bytes32) {
        return escrow.openPool(t, list(ALICE, BOB), value, 0, type(uint256).max, signature);
    }

    function open(IBudgetPool.Terms memory t, uint256 value) internal returns (bytes32 id) {
        usdc.mint(t.payer, value);
        id = openWith(t, value, authorizeAs(t.payer, PAYER, value, escrow.poolIdOf(t)));
        _agreed[id] = t;
    }

    function open() internal returns (bytes32) {
        return open(terms(), DEPOSIT);
    }

    // ------------------------------------------------------------------ signatures

    function sign(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    /// @dev The domain built here again, so that a slip in the contract's shows.
    function typed(bytes32 structHash) internal view returns (bytes32) {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("BudgetPool"),
                keccak256("1"),
                block.chainid,
                address(escrow)
            )
        );
        return keccak256(abi.encodePacked(hex"1901", domain, structHash));
    }

    function batchSignature(uint256 key, bytes32 id, bytes memory packed, uint64 deadline)
        internal
        view
        returns (bytes memory)
    {
        bytes32 typeHash = keccak256("Batch(bytes32 poolId,bytes packed,bytes32 root,uint64 deadline)");
        return sign(key, typed(keccak256(abi.encode(typeHash, id, keccak256(packed), ROOT, deadline))));
    }

    // ------------------------------------------------------------------ batches

    function record(uint256 index, uint256 amount) internal pure returns (bytes memory) {
        return abi.encodePacked(uint8(index), uint40(amount));
    }

    function batch(uint256 firstSeq, address a, bytes memory records) internal pure returns (bytes memory) {
        return abi.encodePacked(uint32(firstSeq), uint8(1), a, records);
    }

    function batch(uint256 firstSeq, address a, address b, bytes memory records) internal pure returns (bytes memory) {
        return abi.encodePacked(uint32(firstSeq), uint8(2), a, b, records);
    }

    function settle(bytes32 id, bytes memory packed) internal {
        escrow.settle(id, packed, ROOT, FOREVER, batchSignature(AUTHORIZER, id, packed, FOREVER));
    }

    /// @dev One record for one provider.
    function credit(bytes32 id, uint256 seq, address provider, uint256 amount) internal {
        settle(id, batch(seq, provider, record(0, amount)));
    }

    function settling(bytes32 id, bytes memory packed) internal view returns (bytes memory) {
        bytes memory signature = batchSignature(AUTHORIZER, id, packed, FOREVER);
        return abi.encodeCall(escrow.settle, (id, packed, ROOT, FOREVER, signature));
    }

    /// @dev `packed` is refused with exactly this error, and nothing moved.
    function refused(bytes32 id, bytes memory packed, bytes memory expected) internal {
        refused(id, vm.addr(STRANGER), settling(id, packed), expected);
    }

    // ------------------------------------------------------------------ disputes

    function dispute(bytes32 id, address provider, uint64 amount) internal {
        vm.prank(_agreed[id].payer);
        escrow.dispute(id, provider, amount, REF);
    }

    function ruling(bytes32 id, address provider, uint64 toProvider) internal view returns (bytes memory) {
        return abi.encodeCall(escrow.resolve, (_agreed[id], provider, REF, toProvider));
    }

    function rule(bytes32 id, address provider, uint64 toProvider) internal {
        vm.prank(_agreed[id].arbiter);
        escrow.resolve(_agreed[id], provider, REF, toProvider);
    }

    // ------------------------------------------------------------------ what may have moved

    function now_() internal view returns (uint256) {
        return vm.getBlockTimestamp();
    }

    function line(bytes32 id, address provider) internal view returns (IBudgetPool.LineState memory) {
        return escrow.lineOf(id, provider);
    }

    function free(bytes32 id) internal view returns (uint256) {
        return escrow.pool(id).free;
    }

    /// @dev A fingerprint of everything of the pool's (of nothing, when there is none), and of all token balances.
    function money(bytes32 id) internal view returns (bytes32) {
        bytes memory pool = abi.encode(
            seen(abi.encodeCall(escrow.pool, (id))),
            seen(abi.encodeCall(escrow.lineOf, (id, ALICE))),
            seen(abi.encodeCall(escrow.lineOf, (id, BOB))),
            seen(abi.encodeCall(escrow.lineOf, (id, CAROL)))
        );
        bytes memory totals = abi.encode(escrow.totalHeld(), escrow.fees(), usdc.balanceOf(address(escrow)));
        bytes memory tokens = abi.encode(
            usdc.balanceOf(vm.addr(PAYER)),
            usdc.balanceOf(ALICE),
            usdc.balanceOf(BOB),
            usdc.balanceOf(CAROL),
            usdc.balanceOf(FEES)
        );
        return keccak256(abi.encode(pool, totals, tokens));
    }

    function seen(bytes memory view_) private view returns (bytes memory data) {
        (, data) = address(escrow).staticcall(view_);
    }

    /// @dev The call is refused with exactly this error, and nothing of the pool's moved.
    function refused(bytes32 id, address caller, bytes memory call, bytes memory expected) internal {
        bytes32 before = money(id);
        vm.prank(caller);
        (bool passed, bytes memory why) = address(escrow).call(call);
        vm.assertTrue(!passed, "refused");
        vm.assertEq(why, expected, "why");
        unmoved(id, before);
    }

    function unmoved(bytes32 id, bytes32 before) internal view {
        vm.assertTrue(money(id) == before, "a refusal moved money");
    }

    function eq(uint256 left, uint256 right, string memory what) internal pure {
        vm.assertEq(left, right, what);
    }

    function reason(bytes4 selector) internal pure returns (bytes memory) {
        return abi.encodePacked(selector);
    }

    function reason(bytes4 selector, bytes memory arguments) internal pure returns (bytes memory) {
        return abi.encodePacked(selector, arguments);
    }
}

/// @title A test file: everything new before each test.
abstract contract Test is Base {
    function setUp() public virtual {
        vm.warp(START);
        usdc = new TestUSDC("USDC");
        escrow = deploy(address(usdc), FEES);
    }
}
