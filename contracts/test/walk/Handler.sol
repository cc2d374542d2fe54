// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {BudgetPool} from "../../src/BudgetPool.sol";
import {IBudgetPool} from "../../src/interfaces/IBudgetPool.sol";
import {TestUSDC} from "../../src/test/TestUSDC.sol";
import {Settlers} from "./Settlers.sol";

/// @title The walk: every verb of the contract, with arguments that mostly fit and at times just do not.
/// @dev The external functions are what forge calls at random. One whose call the contract refused reverts.
contract Handler is Settlers {
    constructor() {
        for (uint256 i = 0; i < 3; ++i) _openPool(i, i + (uint256(1) << 32));
    }

    function escrowOf() external view returns (BudgetPool) {
        return escrow;
    }

    function usdcOf() external view returns (TestUSDC) {
        return usdc;
    }

    // ------------------------------------------------------------------ time, and what others do

    /// @dev Exactly one epoch, or a little, or to either side of the next epoch's first second.
    function pass(uint256 seed) external {
        seed = _mix(seed);
        uint256 next = (now_() / W + 1) * W;
        if (seed % 4 == 0) vm.warp(now_() + W);
        else if (seed % 4 == 1) vm.warp(now_() + 1 + (seed >> 8) % 60);
        else vm.warp(seed % 4 == 2 && next - 1 > now_() ? next - 1 : next);
    }

    function blacklist(bool to) external {
        blacklisted = to;
        if (to) usdc.blacklist(provider(BLACK));
        else usdc.unBlacklist(provider(BLACK));
    }

    function donate(uint256 amount) external {
        donated += amount % 3;
        usdc.mint(address(escrow), amount % 3);
    }

    // ------------------------------------------------------------------ money out

    function withdraw(uint256 seed) public {
        seed = _mix(seed);
        (bytes32 id, uint256 who) = _payable(seed);
        (, uint256 matured,) = lineAt(id, who);
        bytes memory data = abi.encodeCall(escrow.withdraw, (id, provider(who)));
        _verb("withdraw", anyone, data, matured != 0 && canBePaid(id, who));
        _withdrawn(id, who);
    }

    /// @dev I14: all three providers at once; who is blacklisted, or has nothing, is passed over.
    function withdrawMany(uint256 seed) external {
        seed = _mix(seed);
        (bytes32 id,) = _payable(seed);
        IBudgetPool.Claim[] memory claims = new IBudgetPool.Claim[](PROVIDERS);
        for (uint256 i = 0; i < PROVIDERS; ++i) {
            claims[i] = IBudgetPool.Claim(id, provider((seed + i) % PROVIDERS));
        }
        _verb("withdrawMany", anyone, abi.encodeCall(escrow.withdrawMany, (claims)), true);
        for (uint256 who = 0; who < PROVIDERS; ++who) {
            (, uint256 matured,) = lineAt(id, who);
            if (matured != 0 && canBePaid(id, who)) _withdrawn(id, who);
        }
    }

    function withdrawFees(uint256 seed) external {
        seed = _mix(seed);
        if (feesDue == 0) withdraw(seed);
        bytes memory data = abi.encodeCall(escrow.withdrawFees, ());
        _verb("withdrawFees", anyone, data, feesDue != 0);
        paid[FEES] += feesDue;
        feesDue = 0;
    }

    function setPayout(uint256 kind, uint256 seed) external {
        seed = _mix(seed);
        (bytes32 id, uint256 who) = (ids[seed % ids.length], (seed >> 8) % PROVIDERS);
        address to = (seed >> 16) % 3 == 0 ? provider(who) : payee(who);
        if (kind % 2 == 0) {
            _verb("setPayout", provider(who), abi.encodeCall(escrow.setPayout, (id, to)), true);
        } else {
            bytes32 nonce = bytes32(++salts);
            bytes32 typeHash =
                keccak256("SetPayout(bytes32 poolId,address provider,address payout,bytes32 nonce,uint64 deadline)");
            bytes32 structHash = keccak256(abi.encode(typeHash, id, provider(who), to, nonce, FOREVER));
            bytes memory signature = sign(providerKey(who), typed(structHash));
            bytes memory data =
                abi.encodeCall(escrow.setPayoutWithSig, (id, provider(who), to, nonce, FOREVER, signature));
            _verb("setPayoutWithSig", anyone, data, true);
        }
        _payoutSet(id, who, to);
    }

    // ------------------------------------------------------------------ disputes

    function dispute(uint256 kind, uint256 seed) external {
        _newDispute(kind, _mix(seed));
    }

    function _newDispute(uint256 kind, uint256 seed) private {
        (bytes32 id, uint256 who) = _waiting(seed);
        (,, uint256 pending) = lineAt(id, who);
        uint64 amount = uint64((seed >> 8) % 8 == 0 ? pending + (seed >> 11) % 2 : 1 + (seed >> 16) % pending);
        bytes32 ref = bytes32(disputes.length);
        address payer = books[id].terms.payer;
        if (kind % 2 == 0) {
            bytes memory data = abi.encodeCall(escrow.dispute, (id, provider(who), amount, ref));
            _hold(!_call(anyone, data), "a stranger disputed");
            _verb("dispute", payer, data, amount <= pending);
        } else {
            bytes32 typeHash =
                keccak256("Dispute(bytes32 poolId,address provider,uint64 amount,bytes32 ref,uint64 deadline)");
            bytes32 structHash = keccak256(abi.encode(typeHash, id, provider(who), amount, ref, FOREVER));
            bytes memory signature = sign(books[id].payerKey, typed(structHash));
            bytes memory data =
                abi.encodeCall(escrow.disputeWithSig, (id, provider(who), amount, ref, FOREVER, signature));
            _verb("disputeWithSig", anyone, data, amount <= pending);
        }
        _disputed(id, who, amount);
    }

    function resolve(uint256 seed) external {
        seed = _mix(seed);
        uint256 index = _open(seed, true);
        Dispute memory d = disputes[index];
        uint64 share = uint64((seed >> 8) % 8 == 0 ? d.amount + (seed >> 11) % 2 : (seed >> 16) % (d.amount + 1));
        if ((seed >> 64) % 8 == 0) vm.warp(d.openedAt + 14 days); // from then on, silence rules
        bool expected = share <= d.amount && now_() < d.openedAt + 14 days;
        bytes memory data =
            abi.encodeCall(escrow.resolve, (books[d.id].terms, provider(d.who), bytes32(index), share));
        _hold(!_call(books[d.id].terms.payer, data), "I10: the payer ruled");
        _verb("resolve", arbiter, data, expected);
        _hold(!_call(arbiter, data), "I10: ruled twice");
        _resolved(index, share);
    }

    function resolveByTimeout(uint256 seed) external {
        seed = _mix(seed);
        uint256 index = _open(seed, false);
        Dispute memory d = disputes[index];
        _reach(d.openedAt + 14 days, seed >> 64);
        bytes memory data = abi.encodeCall(escrow.resolveByTimeout, (d.id, provider(d.who), bytes32(index)));
        _verb("resolveByTimeout", anyone, data, now_() >= d.openedAt + 14 days);
        _hold(!_call(anyone, data), "I10: resolved twice");
        _resolved(index, d.amount);
    }

    // ------------------------------------------------------------------ the end

    /// @dev Of a pool that has ended, or of the one that ends next, at its end or one second before it.
    function reclaim(uint256 seed) external {
        seed = _mix(seed);
        bytes32 id = _live(seed);
        for (uint256 i = 0; i < ids.length; ++i) {
            bytes32 other = ids[(seed + i) % ids.length];
            if (books[other].free != 0 && books[other].endsAt < books[id].endsAt) id = other;
        }
        _reach(books[id].endsAt, seed >> 64);
        bool expected = now_() >= books[id].endsAt && books[id].free != 0;
        _verb("reclaim", anyone, abi.encodeCall(escrow.reclaim, (id)), expected);
        _reclaimed(id);
    }

    // ------------------------------------------------------------------ which line, which dispute

    /// @dev A line with matured money; otherwise one that waits, at its first payable second or one before it.
    function _payable(uint256 seed) private returns (bytes32 id, uint256 who) {
        for (uint256 i = 0; i < ids.length * PROVIDERS; ++i) {
            uint256 place = (seed + i) % (ids.length * PROVIDERS);
            (id, who) = (ids[place / PROVIDERS], place % PROVIDERS);
            (, uint256 matured,) = lineAt(id, who);
            if (matured != 0 && (canBePaid(id, who) || seed >> 32 & 7 == 0)) return (id, who);
        }
        (id, who) = _waiting(seed);
        _reach(maturesAt(id, who), seed >> 64);
    }

    /// @dev An open dispute, new if there is none (or none young enough).
    function _open(uint256 seed, bool young) private returns (uint256 index) {
        for (uint256 i = 0; i < disputes.length; ++i) {
            index = (seed + i) % disputes.length;
            if (disputes[index].open && (!young || now_() < disputes[index].openedAt + 14 days)) return index;
        }
        _newDispute(seed, (seed >> 11 << 11) | 1 << 8);
        return disputes.length - 1;
    }
}
