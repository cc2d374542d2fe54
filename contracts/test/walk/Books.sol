// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IBudgetPool} from "../../src/interfaces/IBudgetPool.sol";
import {TestUSDC} from "../../src/test/TestUSDC.sol";
import {Base} from "../Base.sol";

/// @title What every pool and line must hold, reckoned from the calls that passed, in the plainest way.
/// @dev Nothing here asks the contract: it is what the contract is compared with. What a call of the walk finds wrong is
/// kept in `broken`, because a revert would take it back.
abstract contract Books is Base {
    struct Book {
        IBudgetPool.Terms terms;
        uint256 payerKey;
        uint256 key;
        uint256 nextKey;
        uint256 nextAt;
        uint256 endsAt;
        bool closing;
        uint256 free;
        uint256 disputed;
        uint256 deposited;
        uint256 withdrawn;
        uint256 reclaimed;
        uint256 nextSeq;
        uint256 window;
        uint256 spent;
    }

    struct Credit {
        uint256 epoch;
        uint256 amount;
    }

    struct Line {
        bool allowed;
        uint256 matured;
        Credit[] pending;
        address payout;
        address nextPayout;
        uint256 nextPayoutAt;
    }

    struct Dispute {
        bytes32 id;
        uint256 who;
        uint256 amount;
        uint256 openedAt;
        bool open;
    }

    uint256 internal constant PROVIDERS = 3;
    /// @dev The provider that is blacklisted now and then.
    uint256 internal constant BLACK = 2;

    bytes32[] public ids;
    Dispute[] internal disputes;
    mapping(bytes32 id => Book) internal books;
    mapping(bytes32 id => mapping(uint256 who => Line)) internal lines;
    mapping(address who => uint256) public paid;
    mapping(bytes32 verb => uint256) public done;
    uint256 public feesDue;
    uint256 public donated;
    uint256 public cap = type(uint88).max;
    bool public paused;
    bool public blacklisted;
    string public broken;
    uint256 internal salts;
    address[PROVIDERS] private _providers;
    address[2] public payers;
    address[2] public authorizers;
    address internal immutable anyone = vm.addr(STRANGER);
    address internal immutable arbiter = vm.addr(ARBITER);

    constructor() {
        vm.warp(START);
        usdc = new TestUSDC("USDC");
        escrow = deploy(address(usdc), FEES);
        for (uint256 who = 0; who < PROVIDERS; ++who) _providers[who] = vm.addr(providerKey(who));
        payers = [vm.addr(PAYER), vm.addr(PAYER + 1)];
        authorizers = [vm.addr(AUTHORIZER), vm.addr(AUTHORIZER + 1)];
    }

    // ------------------------------------------------------------------ who is who

    function providerKey(uint256 who) internal pure returns (uint256) {
        return 0xF00D + who;
    }

    function provider(uint256 who) public view returns (address) {
        return _providers[who];
    }

    function payee(uint256 who) public pure returns (address) {
        return address(uint160(0xCA54 + who));
    }

    function count() external view returns (uint256) {
        return ids.length;
    }

    function endOf(bytes32 id) external view returns (uint256) {
        return books[id].endsAt;
    }

    function disputeCount() external view returns (uint256) {
        return disputes.length;
    }

    function disputeAt(uint256 index) external view returns (Dispute memory) {
        return disputes[index];
    }

    /// @dev What `lineOf` must answer now, but for `nextAmount` and `nextAt`.
    function lineAt(bytes32 id, uint256 who) public view returns (bool allowed, uint256 matured, uint256 pending) {
        Line storage l = lines[id][who];
        (allowed, matured) = (l.allowed, l.matured);
        for (uint256 i = 0; i < l.pending.length; ++i) {
            if (_isMature(id, l.pending[i].epoch)) matured += l.pending[i].amount;
            else pending += l.pending[i].amount;
        }
    }

    /// @dev When the first credit that waits matures; zero if none does.
    function maturesAt(bytes32 id, uint256 who) public view returns (uint256) {
        Line storage l = lines[id][who];
        for (uint256 i = 0; i < l.pending.length; ++i) {
            Credit storage c = l.pending[i];
            if (c.amount != 0 && !_isMature(id, c.epoch)) return (c.epoch + 2) * books[id].terms.disputeWindow;
        }
        return 0;
    }

    function payoutNow(bytes32 id, uint256 who) public view returns (address) {
        Line storage l = lines[id][who];
        if (l.nextPayout != address(0) && now_() >= l.nextPayoutAt) return l.nextPayout;
        return l.payout == address(0) ? provider(who) : l.payout;
    }

    function canBePaid(bytes32 id, uint256 who) internal view returns (bool) {
        return !blacklisted || payoutNow(id, who) != provider(BLACK);
    }

    /// @dev I8: a credit of an epoch can be withdrawn from the start of the second epoch after it.
    function _isMature(bytes32 id, uint256 epoch) private view returns (bool) {
        uint256 w = books[id].terms.disputeWindow;
        return w == 0 || now_() / w >= epoch + 2;
    }

    // ------------------------------------------------------------------ what passed

    function _opened(bytes32 id, IBudgetPool.Terms memory t, uint256 payerKey, uint256 value) internal {
        ids.push(id);
        Book storage b = books[id];
        (b.terms, b.payerKey, b.key, b.endsAt) = (t, payerKey, AUTHORIZER, t.expiry);
        b.free = b.deposited = value;
        lines[id][0].allowed = lines[id][1].allowed = true;
    }

    function _toppedUp(bytes32 id, uint256 value) internal {
        books[id].free += value;
        books[id].deposited += value;
    }

    function _settled(bytes32 id, uint256 records, uint256[2] memory who, uint256[2] memory sums) internal {
        Book storage b = books[id];
        uint256 total;
        for (uint256 i = 0; i < 2; ++i) {
            if (sums[i] == 0) continue;
            total += sums[i];
            uint256 w = b.terms.disputeWindow;
            _roll(id, who[i]);
            if (w == 0) lines[id][who[i]].matured += sums[i];
            else lines[id][who[i]].pending.push(Credit(now_() / w, sums[i]));
        }
        if (b.window != now_() / b.terms.windowLength) (b.window, b.spent) = (now_() / b.terms.windowLength, 0);
        b.spent += total;
        b.free -= total;
        b.nextSeq += records;
        _hold(b.spent <= b.terms.windowCap, "I6: a window over its cap");
        _hold(now_() < b.endsAt, "I6: settled after the end");
    }

    /// @dev What has matured need not be reckoned again.
    function _roll(bytes32 id, uint256 who) private {
        Line storage l = lines[id][who];
        uint256 kept;
        for (uint256 i = 0; i < l.pending.length; ++i) {
            Credit memory c = l.pending[i];
            if (_isMature(id, c.epoch)) l.matured += c.amount;
            else l.pending[kept++] = c;
        }
        while (l.pending.length > kept) l.pending.pop();
    }

    function _withdrawn(bytes32 id, uint256 who) internal {
        _roll(id, who);
        (, uint256 matured, uint256 pending) = lineAt(id, who);
        Line storage l = lines[id][who];
        uint256 fee = matured * books[id].terms.feeBps / 10_000;
        paid[payoutNow(id, who)] += matured - fee;
        feesDue += fee;
        books[id].withdrawn += matured;
        l.matured = 0;
        if (pending == 0 && now_() >= books[id].endsAt) l.allowed = false;
    }

    /// @dev A dispute takes what matures first.
    function _disputed(bytes32 id, uint256 who, uint256 amount) internal {
        Credit[] storage credits = lines[id][who].pending;
        uint256 left = amount;
        for (uint256 i = 0; i < credits.length && left != 0; ++i) {
            if (_isMature(id, credits[i].epoch)) continue;
            uint256 part = left < credits[i].amount ? left : credits[i].amount;
            credits[i].amount -= part;
            left -= part;
        }
        books[id].disputed += amount;
        disputes.push(Dispute(id, who, amount, now_(), true));
    }

    function _resolved(uint256 index, uint256 toProvider) internal {
        Dispute storage d = disputes[index];
        d.open = false;
        books[d.id].disputed -= d.amount;
        books[d.id].free += d.amount - toProvider;
        lines[d.id][d.who].matured += toProvider;
    }

    function _reclaimed(bytes32 id) internal {
        Book storage b = books[id];
        _hold(now_() >= b.endsAt, "I9: reclaimed before the end");
        paid[b.terms.payer] += b.free;
        b.reclaimed += b.free;
        b.free = 0;
    }

    function _payoutSet(bytes32 id, uint256 who, address to) internal {
        Line storage l = lines[id][who];
        l.payout = payoutNow(id, who);
        (l.nextPayout, l.nextPayoutAt) = (to, now_() + 2 days);
    }

    // ------------------------------------------------------------------ calls

    function _call(address from, bytes memory data) internal returns (bool passed) {
        vm.prank(from);
        (passed,) = address(escrow).call(data);
    }

    /// @dev The call must pass exactly when the books say so. One that is refused ends here and leaves no trace, and
    /// forge counts it as reverted.
    function _verb(bytes32 verb, address from, bytes memory data, bool expected) internal {
        bool passed = _call(from, data);
        require(passed || expected, "refused, as it should be");
        _hold(passed == expected, string(abi.encodePacked("not as the books say: ", verb)));
        if (passed) ++done[verb];
    }

    /// @dev forge likes small numbers, of which the high bits would all be alike.
    function _mix(uint256 seed) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode(seed)));
    }

    function _hold(bool condition, string memory what) internal {
        if (!condition && bytes(broken).length == 0) broken = what;
    }
}
