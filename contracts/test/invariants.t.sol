// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {BudgetPool} from "../src/BudgetPool.sol";
import {IBudgetPool} from "../src/interfaces/IBudgetPool.sol";
import {TestUSDC} from "../src/test/TestUSDC.sol";
import {Base, Test} from "./Base.sol";

/// @dev Plays every verb with random arguments on two pools, and keeps books of its own. Time moves by exactly one
/// epoch or one second, and caps and deposits are tight, so that the edges are met.
contract Handler is Base {
    bytes32[2] public ids;
    bytes32[2] public agreed;
    uint256[2] public deposited;
    uint256[2] public withdrawn;
    uint256[2] public reclaimed;
    mapping(bytes32 what => uint256) public done;
    mapping(bytes32 id => uint256) public nextSeq;
    mapping(bytes32 id => mapping(uint256 window => uint256)) public settledIn;
    bytes32[] internal refs;
    bytes internal lastBatch;
    uint256 internal lastPool;

    constructor(BudgetPool escrow_, TestUSDC usdc_) {
        (escrow, usdc) = (escrow_, usdc_);
        for (uint256 i = 0; i < 2; ++i) {
            IBudgetPool.Terms memory t = terms();
            t.expiry = uint64(START + 40 * W);
            t.closeDelay = uint32(2 * W);
            (t.perRecordCap, t.windowCap, t.windowLength) = (100, 260, uint32(W));
            t.feeBps = i == 0 ? 500 : 33;
            ids[i] = open(t, 1_000);
            deposited[i] = 1_000;
            agreed[i] = fixedTerms(ids[i]);
        }
    }

    /// @dev A fingerprint of what I15 says never changes.
    function fixedTerms(bytes32 id) public view returns (bytes32) {
        IBudgetPool.PoolState memory p = escrow.pool(id);
        return keccak256(
            abi.encode(
                p.payer,
                p.authorizer,
                p.arbiter,
                p.expiry,
                p.closeDelay,
                p.perRecordCap,
                p.windowCap,
                p.windowLength,
                p.disputeWindow,
                p.feeBps
            )
        );
    }

    function pass(uint256 seconds_) external {
        vm.warp(now_() + (seconds_ % 2 == 0 ? W : 1 + seconds_ % 60));
        ++done["pass"];
    }

    /// @dev Far enough for disputes to time out; the pools have ended by then.
    function passTimeout(uint256 seldom) external {
        if (seldom % 32 == 0) vm.warp(now_() + 14 days);
    }

    function settle(uint256 pool, uint256 seed) external {
        bytes32 id = ids[pool %= 2];
        uint256 count = 1 + seed % 3;
        bytes memory records;
        uint256 total;
        for (uint256 i = 0; i < count; ++i) {
            uint256 amount = 1 + (seed >> (16 * (i + 1))) % 105;
            total += amount;
            records = abi.encodePacked(records, record(i % 2, amount));
        }
        bytes memory packed = count == 1
            ? batch(nextSeq[id], ALICE, records)
            : batch(nextSeq[id], ALICE, BOB, records);
        if (!_tried(abi.encodeCall(
                escrow.settle, (id, packed, ROOT, FOREVER, batchSignature(AUTHORIZER, id, packed, FOREVER))
            ), "settle")) return;
        nextSeq[id] += count;
        settledIn[id][now_() / W] += total;
        (lastBatch, lastPool) = (packed, pool);
    }

    /// @dev I4: the same batch again must never pass.
    function settleAgain() external {
        if (lastBatch.length == 0) return;
        bytes32 id = ids[lastPool];
        bytes memory signature = batchSignature(AUTHORIZER, id, lastBatch, FOREVER);
        (bool passed,) = address(escrow).call(abi.encodeCall(escrow.settle, (id, lastBatch, ROOT, FOREVER, signature)));
        require(!passed, "a batch applied twice");
    }

    /// @dev I5: what the authorizer did not sign must never pass.
    function forge(uint256 pool, uint256 key) external {
        bytes32 id = ids[pool % 2];
        bytes memory packed = batch(nextSeq[id], ALICE, record(0, 1));
        bytes memory signature = batchSignature(1 + key % 1_000, id, packed, FOREVER);
        if (vm.addr(1 + key % 1_000) == vm.addr(AUTHORIZER)) return;
        (bool passed,) = address(escrow).call(abi.encodeCall(escrow.settle, (id, packed, ROOT, FOREVER, signature)));
        require(!passed, "a forged batch passed");
    }

    function withdraw(uint256 pool, bool bob) external {
        bytes32 id = ids[pool %= 2];
        address provider = bob ? BOB : ALICE;
        uint256 before = usdc.balanceOf(provider) + escrow.fees();
        uint256 matured = line(id, provider).matured;
        if (!_tried(abi.encodeCall(escrow.withdraw, (id, provider)), "withdraw")) return;
        require(usdc.balanceOf(provider) + escrow.fees() - before == matured, "I11: net + fee == matured");
        withdrawn[pool] += matured;
    }

    function dispute(uint256 pool, bool bob, uint64 amount) external {
        bytes32 id = ids[pool % 2];
        address provider = bob ? BOB : ALICE;
        uint256 matured = line(id, provider).matured;
        bytes32 ref = bytes32(refs.length + 1);
        vm.prank(vm.addr(PAYER));
        if (!_tried(abi.encodeCall(escrow.dispute, (id, provider, amount % 120, ref)), "dispute")) return;
        refs.push(keccak256(abi.encode(pool % 2, bob)));
        require(line(id, provider).matured == matured, "I7: a dispute touched matured money");
    }

    function resolve(uint256 which, uint64 toProvider) external {
        if (refs.length == 0) return;
        (uint256 pool, bool bob, bytes32 ref) = _chosen(which);
        vm.prank(vm.addr(ARBITER));
        _tried(abi.encodeCall(escrow.resolve, (ids[pool], bob ? BOB : ALICE, ref, toProvider % 120)), "resolve");
    }

    function resolveByTimeout(uint256 which) external {
        if (refs.length == 0) return;
        (uint256 pool, bool bob, bytes32 ref) = _chosen(which);
        _tried(abi.encodeCall(escrow.resolveByTimeout, (ids[pool], bob ? BOB : ALICE, ref)), "resolveByTimeout");
    }

    function _chosen(uint256 which) private view returns (uint256 pool, bool bob, bytes32 ref) {
        ref = bytes32(which % refs.length + 1);
        bytes32 key = refs[which % refs.length];
        for (pool = 0; pool < 2; ++pool) {
            if (key == keccak256(abi.encode(pool, false))) return (pool, false, ref);
            if (key == keccak256(abi.encode(pool, true))) return (pool, true, ref);
        }
    }

    function topUp(uint256 pool, uint256 value) external {
        bytes32 id = ids[pool %= 2];
        value = 1 + value % 300;
        bytes32 salt = bytes32(++done["salts"]);
        usdc.mint(vm.addr(PAYER), value);
        bytes memory signature = authorize(PAYER, value, escrow.topUpNonce(id, salt));
        bytes memory data = abi.encodeCall(
            escrow.topUp, (id, value, vm.addr(PAYER), 0, type(uint256).max, salt, signature)
        );
        if (_tried(data, "topUp")) deposited[pool] += value;
    }

    function requestClose(uint256 pool, uint256 seldom) external {
        if (seldom % 8 != 0) return;
        vm.prank(vm.addr(PAYER));
        _tried(abi.encodeCall(escrow.requestClose, (ids[pool % 2])), "requestClose");
    }

    function reclaim(uint256 pool) external {
        bytes32 id = ids[pool %= 2];
        uint256 amount = free(id);
        if (!_tried(abi.encodeCall(escrow.reclaim, (id)), "reclaim")) return;
        require(now_() >= escrow.pool(id).endsAt, "I9: reclaimed before the end");
        reclaimed[pool] += amount;
    }

    function withdrawFees() external {
        _tried(abi.encodeCall(escrow.withdrawFees, ()), "withdrawFees");
    }

    function donate(uint256 amount) external {
        usdc.mint(address(escrow), amount % 3);
    }

    function _tried(bytes memory data, bytes32 what) private returns (bool passed) {
        (passed,) = address(escrow).call(data);
        if (passed) ++done[what];
    }
}

contract InvariantsTest is Test {
    Handler internal handler;

    function setUp() public override {
        super.setUp();
        handler = new Handler(escrow, usdc);
    }

    function targetContracts() public view returns (address[] memory) {
        return list(address(handler));
    }

    /// @dev I1, I2, I3, the cap of each window (I6) and the terms (I15).
    function invariant_every_unit_is_accounted_for() public view {
        uint256 all = escrow.fees();
        uint256 paidOut = usdc.balanceOf(ALICE) + usdc.balanceOf(BOB) + usdc.balanceOf(FEES);
        uint256 left;
        for (uint256 i = 0; i < 2; ++i) {
            bytes32 id = handler.ids(i);
            IBudgetPool.PoolState memory p = escrow.pool(id);
            IBudgetPool.LineState memory a = line(id, ALICE);
            IBudgetPool.LineState memory b = line(id, BOB);
            uint256 inside = uint256(p.free) + p.disputed + a.matured + a.pending + b.matured + b.pending;
            eq(handler.deposited(i), inside + handler.withdrawn(i) + handler.reclaimed(i), "I2");
            all += inside;
            left += handler.withdrawn(i);
            vm.assertTrue(handler.settledIn(id, now_() / W) <= p.windowCap, "I6 window");
            vm.assertTrue(handler.fixedTerms(id) == handler.agreed(i), "I15");
            vm.assertTrue(p.endsAt <= p.expiry, "I15");
        }
        eq(escrow.totalHeld(), all, "I1 held");
        vm.assertTrue(usdc.balanceOf(address(escrow)) >= all && escrow.solvent(), "I1 balance");
        eq(paidOut + escrow.fees(), left, "I3");
    }

    /// @dev A run in which everything is refused proves nothing. One long walk, of which every verb must have
    /// succeeded, with the books checked at every step.
    function test_a_long_walk_succeeds_at_every_verb() public {
        for (uint256 step = 0; step < 2_000; ++step) {
            uint256 dice = uint256(keccak256(abi.encode(step)));
            walk(dice % 15, dice >> 8, dice >> 64);
            if (step == 1_700) handler.requestClose(0, 0);
            if (step == 1_900) handler.passTimeout(0);
            invariant_every_unit_is_accounted_for();
        }
        bytes32[10] memory verbs = [
            bytes32("pass"),
            "settle",
            "withdraw",
            "dispute",
            "resolve",
            "resolveByTimeout",
            "topUp",
            "requestClose",
            "reclaim",
            "withdrawFees"
        ];
        for (uint256 i = 0; i < verbs.length; ++i) {
            vm.assertTrue(handler.done(verbs[i]) != 0, string(abi.encodePacked("never succeeded: ", verbs[i])));
        }
    }

    function walk(uint256 verb, uint256 a, uint256 b) internal {
        if (verb < 5) handler.settle(a, b);
        else if (verb == 5) handler.settleAgain();
        else if (verb == 6) handler.forge(a, b);
        else if (verb == 7) handler.withdraw(a, b % 2 == 0);
        else if (verb == 8) handler.dispute(a, b % 2 == 0, uint64(b >> 8));
        else if (verb == 9) handler.resolve(a, uint64(b));
        else if (verb == 10) handler.resolveByTimeout(a);
        else if (verb == 11) handler.topUp(a, b);
        else if (verb == 12) handler.reclaim(a);
        else if (verb == 13) handler.withdrawFees();
        else if (b % 8 == 0) handler.pass(a);
        else handler.donate(a);
    }
}
