// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../../src/interfaces/IBudgetPool.sol";
import {Payers} from "./Payers.sol";

/// @title Batches on the walk: good ones, poisoned ones, old ones, and ones nobody signed.
abstract contract Settlers is Payers {
    struct Planned {
        bytes32 id;
        bytes packed;
        uint256 records;
        uint256[2] who;
        uint256[2] sums;
        bool good;
    }

    mapping(bytes32 id => bytes[]) internal landed;

    function settle(uint256 seed) external {
        seed = _mix(seed);
        Planned memory b = _plan(_live(seed), seed >> 16);
        _verb("settle", anyone, _settling(b), b.good);
        _land(b);
    }

    /// @dev I16: two good batches with one between them that must be refused, for one reason or another.
    function settleMany(uint256 seed) external {
        seed = _mix(seed);
        bytes32 id = _live(seed);
        IBudgetPool.SignedBatch[] memory batches = new IBudgetPool.SignedBatch[](3);
        Planned memory b = _plan(id, (seed >> 16) | 15);
        require(b.good, "nothing to settle");
        batches[0] = _signed(b);
        batches[1] = _signed(b);
        uint256 poison = (seed >> 8) % 5;
        if (poison == 0) batches[1].signature = batchSignature(STRANGER, id, b.packed, FOREVER);
        else if (poison == 1) batches[1] = _poisoned(id, batch(books[id].nextSeq + 9, provider(0), record(0, 101)));
        else if (poison == 2) batches[1] = _poisoned(id, batch(books[id].nextSeq + 9, BOB, record(0, 1)));
        else if (poison == 3) batches[1] = _poisoned(id, hex"0001");
        _land(b); // where poison is 4, the same batch again
        Planned memory c;
        if (_room(id) == 0) {
            batches[2] = batches[1];
        } else {
            c = _plan(id, (seed >> 128) | 15);
            batches[2] = _signed(c);
        }
        _verb("settleMany", anyone, abi.encodeCall(escrow.settleMany, (batches)), true);
        if (c.good) _land(c);
    }

    /// @dev The payer allows a provider and pays it in one transaction.
    function multicall(uint256 seed) external {
        seed = _mix(seed);
        bytes32 id = _live(seed);
        lines[id][BLACK].allowed = true;
        Planned memory b = _plan(id, (seed >> 16) | 15);
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(escrow.allowProviders, (id, list(provider(BLACK))));
        calls[1] = _settling(b);
        _verb("multicall", books[id].terms.payer, abi.encodeCall(escrow.multicall, (calls)), b.good);
        _land(b);
    }

    /// @dev What must never pass: a batch twice (I4), one that the authorizer of now has not signed (I5).
    function hostileBatch(uint256 seed) external {
        seed = _mix(seed);
        bytes32 id = _live(seed);
        Planned memory b = _plan(id, (seed >> 16) | 15);
        if (!b.good) return;
        for (uint256 i = 0; i < 4; ++i) {
            uint256 key = i < 2 ? AUTHORIZER + i : i == 2 ? books[id].payerKey : 1 + (seed >> 8) % 1_000;
            if (key == books[id].key) continue;
            _hold(!_call(anyone, _settling(b, key)), "I5: a batch that was not signed");
        }
        bytes[] storage old = landed[id];
        for (uint256 i = 0; i < old.length && i < 3; ++i) {
            b.packed = old[(seed + i) % old.length];
            _hold(!_call(anyone, _settling(b)), "I4: a batch applied twice");
        }
    }

    // ------------------------------------------------------------------ a plan

    /// @dev One or two providers, up to three records; one plan in four spends exactly all that may be spent now, and
    /// some (never where the low bits of the seed are set) one unit more.
    function _plan(bytes32 id, uint256 seed) internal returns (Planned memory b) {
        b.id = id;
        b.good = true;
        uint256 most = _room(id);
        if (most == 0) {
            vm.warp((now_() / books[id].terms.windowLength + 1) * books[id].terms.windowLength);
            most = _room(id);
        }
        b.good = most != 0 && now_() < books[id].endsAt;
        b.records = most < 3 ? 1 : 1 + (seed >> 4) % 3;
        uint256 total = most == 0 ? 1 : 1 + (seed >> 8) % most;
        if ((seed >> 2) % 4 == 3 && most != 0) total = most;
        if (total > 100 * b.records) total = 100 * b.records;
        if (total < b.records) b.records = 1;
        b.who = [seed >> 32 & 1, lines[id][BLACK].allowed ? BLACK : 1 - (seed >> 32 & 1)];
        bytes memory records;
        for (uint256 i = 0; i < b.records; ++i) {
            uint256 amount = (total - b.sums[0] - b.sums[1]) / (b.records - i);
            b.sums[i % 2] += amount;
            records = abi.encodePacked(records, record(i % 2, amount));
        }
        if (seed % 16 == 0) (records, b.good) = (_tooMuch(id, b, seed), false);
        b.packed = b.records == 1
            ? batch(books[id].nextSeq, provider(b.who[0]), records)
            : batch(books[id].nextSeq, provider(b.who[0]), provider(b.who[1]), records);
    }

    /// @dev One unit above the cap of a record, or of the window, or of what is free.
    function _tooMuch(bytes32 id, Planned memory b, uint256 seed) private view returns (bytes memory records) {
        uint256 left = _room(id) + 1;
        if (seed >> 40 & 1 == 0) left = 101;
        b.records = 0;
        while (left != 0) {
            uint256 amount = left > 100 && seed >> 40 & 1 == 1 ? 100 : left;
            records = abi.encodePacked(records, record(0, amount));
            left -= amount;
            ++b.records;
        }
        b.records = 1;
    }

    function _room(bytes32 id) private view returns (uint256) {
        Book storage b = books[id];
        uint256 spent = b.window == now_() / b.terms.windowLength ? b.spent : 0;
        uint256 left = b.terms.windowCap - spent;
        return left < b.free ? left : b.free;
    }

    function _land(Planned memory b) internal {
        _settled(b.id, b.records, b.who, b.sums);
        landed[b.id].push(b.packed);
    }

    function _settling(Planned memory b) internal view returns (bytes memory) {
        return _settling(b, books[b.id].key);
    }

    function _settling(Planned memory b, uint256 key) internal view returns (bytes memory) {
        bytes memory signature = batchSignature(key, b.id, b.packed, FOREVER);
        return abi.encodeCall(escrow.settle, (b.id, b.packed, ROOT, FOREVER, signature));
    }

    function _signed(Planned memory b) private view returns (IBudgetPool.SignedBatch memory) {
        return _poisoned(b.id, b.packed);
    }

    function _poisoned(bytes32 id, bytes memory packed) private view returns (IBudgetPool.SignedBatch memory) {
        return IBudgetPool.SignedBatch(id, packed, ROOT, FOREVER, batchSignature(books[id].key, id, packed, FOREVER));
    }

    /// @dev A line with money that waits: made, if there is none.
    function _waiting(uint256 seed) internal returns (bytes32 id, uint256 who) {
        for (uint256 i = 0; i < ids.length * PROVIDERS; ++i) {
            uint256 place = (seed + i) % (ids.length * PROVIDERS);
            (id, who) = (ids[place / PROVIDERS], place % PROVIDERS);
            if (maturesAt(id, who) != 0) return (id, who);
        }
        id = _withWindow(seed);
        Planned memory b = _plan(id, seed | 15);
        require(b.good, "nothing to settle");
        _verb("settle", anyone, _settling(b), true);
        _land(b);
        return (id, b.who[0]);
    }

    /// @dev A live pool whose credits wait, new if need be.
    function _withWindow(uint256 seed) private returns (bytes32 id) {
        for (uint256 i = 0; i < ids.length; ++i) {
            id = ids[(seed + i) % ids.length];
            if (now_() < books[id].endsAt && books[id].terms.disputeWindow != 0 && books[id].free != 0) return id;
        }
        seed = (seed >> 40 << 40) | (uint256(1) << 32) | uint32(seed);
        return _openPool(seed, seed % 3 == 2 ? seed - 1 : seed);
    }
}
