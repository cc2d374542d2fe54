// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../../src/interfaces/IBudgetPool.sol";
import {Books} from "./Books.sol";

/// @title What payers, and the guardian of deposits, do on the walk.
abstract contract Payers is Books {
    /// @dev Two pools with a window of disputes, one that is paid at once. Caps and delays are tight, and in steps of one
    /// epoch, so that the edges are met.
    function _newTerms(uint256 seed) internal returns (IBudgetPool.Terms memory t, uint256 payerKey) {
        payerKey = PAYER + seed % 2;
        t.payer = payers[seed % 2];
        t.authorizer = authorizers[0];
        t.arbiter = arbiter;
        t.expiry = uint64(now_() + (seed % 3 == 0 ? 40 * W : 60 days));
        t.closeDelay = uint32(seed % 3 * W);
        (t.perRecordCap, t.windowCap, t.windowLength) = (100, 260, uint32(seed % 4 == 0 ? 3 * W : W));
        t.disputeWindow = uint32(seed % 3 == 2 ? 0 : W);
        t.feeBps = seed % 5 == 0 ? 33 : 500;
        t.providersHash = keccak256(abi.encodePacked(list(provider(0), provider(1))));
        t.salt = bytes32(++salts);
    }

    /// @dev Mostly the deposit may come; now and then it meets the pause and the cap as the guardian left them.
    function _fund(uint256 seed, address payer, uint256 value) internal returns (bool expected) {
        usdc.mint(payer, value);
        vm.prank(payer);
        usdc.approve(address(escrow), value);
        if (seed % 8 != 0) {
            if (paused) _pause(false);
            if (escrow.totalHeld() + value > cap) _cap(escrow.totalHeld() + value);
            if (seed % 8 == 2) _cap(escrow.totalHeld() + value - 1);
        }
        return !paused && escrow.totalHeld() + value <= cap;
    }

    function open(uint256 kind, uint256 seed) external {
        _openPool(kind, _mix(seed));
    }

    function _openPool(uint256 kind, uint256 seed) internal returns (bytes32 id) {
        (IBudgetPool.Terms memory t, uint256 payerKey) = _newTerms(seed);
        uint256 value = 400 + (seed >> 8) % 1_000;
        bool expected = _fund(seed >> 32, t.payer, value);
        id = escrow.poolIdOf(t);
        address[] memory who = list(provider(0), provider(1));
        if (kind % 3 == 0) {
            bytes memory signature = authorize(payerKey, value, id);
            bytes memory data = abi.encodeCall(escrow.openPool, (t, who, value, 0, type(uint256).max, signature));
            _verb("openPool", anyone, data, expected);
        } else if (kind % 3 == 1) {
            _verb("openPoolDirect", t.payer, abi.encodeCall(escrow.openPoolDirect, (t, who, value)), expected);
        } else {
            vm.prank(t.payer);
            usdc.approve(address(escrow), 0);
            bytes memory signature = permit(t.payer, payerKey, value, FOREVER);
            bytes memory data = abi.encodeCall(escrow.openPoolWithPermit, (t, who, value, FOREVER, signature));
            _verb("openPoolWithPermit", t.payer, data, expected);
        }
        _opened(id, t, payerKey, value);
    }

    function topUp(uint256 kind, uint256 seed) external {
        seed = _mix(seed);
        bytes32 id = _live(seed);
        uint256 value = 1 + (seed >> 8) % 300;
        bool expected = _fund(seed >> 32, books[id].terms.payer, value) && !books[id].closing;
        if (kind % 2 == 0) {
            bytes32 salt = bytes32(++salts);
            bytes memory signature = authorize(books[id].payerKey, value, escrow.topUpNonce(id, salt));
            bytes memory data = abi.encodeCall(
                escrow.topUp, (id, value, books[id].terms.payer, 0, type(uint256).max, salt, signature)
            );
            _verb("topUp", anyone, data, expected);
        } else {
            _verb("topUpDirect", books[id].terms.payer, abi.encodeCall(escrow.topUpDirect, (id, value)), expected);
        }
        _toppedUp(id, value);
    }

    function allowProviders(uint256 kind, uint256 seed) external {
        seed = _mix(seed);
        bytes32 id = _live(seed);
        address[] memory who = list(provider(BLACK));
        if (kind % 2 == 0) {
            _verb("allowProviders", books[id].terms.payer, abi.encodeCall(escrow.allowProviders, (id, who)), true);
        } else {
            bytes32 nonce = bytes32(++salts);
            bytes32 typeHash =
                keccak256("AllowProviders(bytes32 poolId,address[] providers,bytes32 nonce,uint64 deadline)");
            bytes32 hash = keccak256(abi.encodePacked(who));
            bytes memory signature =
                sign(books[id].payerKey, typed(keccak256(abi.encode(typeHash, id, hash, nonce, FOREVER))));
            bytes memory data =
                abi.encodeCall(escrow.allowProvidersWithSig, (id, who, nonce, FOREVER, signature));
            _verb("allowProvidersWithSig", anyone, data, true);
        }
        lines[id][BLACK].allowed = true;
    }

    function requestClose(uint256 kind, uint256 seed) external {
        seed = _mix(seed);
        bytes32 id = _live(seed);
        Book storage b = books[id];
        bool expected = !b.closing;
        if ((seed >> 64) % 4 == 0 && b.endsAt < now_() + 40 * W) vm.warp(b.endsAt - 1); // a close never puts the end off
        if (kind % 2 == 0) {
            _verb("requestClose", b.terms.payer, abi.encodeCall(escrow.requestClose, (id)), expected);
        } else {
            bytes32 typeHash = keccak256("RequestClose(bytes32 poolId,uint64 deadline)");
            bytes memory signature = sign(b.payerKey, typed(keccak256(abi.encode(typeHash, id, FOREVER))));
            bytes memory data = abi.encodeCall(escrow.requestCloseWithSig, (id, FOREVER, signature));
            _verb("requestCloseWithSig", anyone, data, expected);
        }
        b.closing = true;
        uint256 endsAt = now_() + b.terms.closeDelay;
        if (endsAt < b.endsAt) b.endsAt = endsAt;
    }

    function setAuthorizer(uint256 kind, uint256 seed) external {
        seed = _mix(seed);
        bytes32 id = _live(seed);
        Book storage b = books[id];
        uint256 nextKey = AUTHORIZER + (seed >> 8) % 2;
        bool cancels = nextKey == b.key;
        bool expected = !cancels || b.nextKey != 0;
        if (kind % 2 == 0) {
            bytes memory data = abi.encodeCall(escrow.setAuthorizer, (id, authorizers[nextKey - AUTHORIZER]));
            _verb("setAuthorizer", b.terms.payer, data, expected);
        } else {
            bytes32 nonce = bytes32(++salts);
            bytes32 typeHash =
                keccak256("SetAuthorizer(bytes32 poolId,address next,bytes32 nonce,uint64 deadline)");
            bytes32 structHash = keccak256(abi.encode(typeHash, id, authorizers[nextKey - AUTHORIZER], nonce, FOREVER));
            bytes memory data = abi.encodeCall(
                escrow.setAuthorizerWithSig,
                (id, authorizers[nextKey - AUTHORIZER], nonce, FOREVER, sign(b.payerKey, typed(structHash)))
            );
            _verb("setAuthorizerWithSig", anyone, data, expected);
        }
        (b.nextKey, b.nextAt) = cancels ? (0, 0) : (nextKey, now_() + b.terms.closeDelay);
    }

    /// @dev A change that waits is applied at its first second, or tried one second before it.
    function applyAuthorizer(uint256 seed) external {
        seed = _mix(seed);
        bytes32 id;
        for (uint256 i = 0; i < ids.length && id == 0; ++i) {
            if (books[ids[(seed + i) % ids.length]].nextKey != 0) id = ids[(seed + i) % ids.length];
        }
        if (id == 0) {
            id = _live(seed);
            uint256 other = 2 * AUTHORIZER + 1 - books[id].key;
            _verb("setAuthorizer", books[id].terms.payer, abi.encodeCall(escrow.setAuthorizer, (id, authorizers[other - AUTHORIZER])), true);
            (books[id].nextKey, books[id].nextAt) = (other, now_() + books[id].terms.closeDelay);
        }
        Book storage b = books[id];
        _reach(b.nextAt, seed >> 64);
        _verb("applyAuthorizer", anyone, abi.encodeCall(escrow.applyAuthorizer, (id)), now_() >= b.nextAt);
        (b.key, b.nextKey, b.nextAt) = (b.nextKey, 0, 0);
    }

    // ------------------------------------------------------------------ the guardian

    function pauseDeposits(bool to) external {
        _pause(to);
    }

    function setTvlCap(uint256 seed) external {
        seed = _mix(seed);
        _cap(escrow.totalHeld() + seed % 500);
    }

    function _pause(bool to) private {
        _verb("pauseDeposits", GUARDIAN, abi.encodeCall(escrow.pauseDeposits, (to)), true);
        paused = to;
    }

    function _cap(uint256 to) private {
        _verb("setTvlCap", GUARDIAN, abi.encodeCall(escrow.setTvlCap, (uint88(to))), true);
        cap = to;
    }

    // ------------------------------------------------------------------ which pool, and when

    /// @dev A pool that has not ended; a new one if all have.
    function _live(uint256 seed) internal returns (bytes32 id) {
        for (uint256 i = 0; i < ids.length; ++i) {
            id = ids[(seed + i) % ids.length];
            if (now_() < books[id].endsAt) return id;
        }
        return _openPool(seed, (seed >> 40 << 40) | (uint256(1) << 32) | uint32(seed));
    }

    /// @dev To a moment that is awaited: exactly it, or now and then one second before it.
    function _reach(uint256 moment, uint256 seed) internal {
        if (seed % 6 == 0) --moment;
        if (now_() < moment) vm.warp(moment);
    }
}
