// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Multicall} from "@openzeppelin/contracts/utils/Multicall.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {BatchWire} from "./BatchWire.sol";
import {IBudgetPool} from "./interfaces/IBudgetPool.sol";
import {IERC2612, IERC3009} from "./interfaces/IUSDC.sol";

/// @title BudgetPool: one deposit, many providers.
/// @notice Immutable, without owner or proxy. What each call does and refuses is told in `IBudgetPool`. `multicall` makes
/// several calls in one transaction, all or nothing: allow and settle, withdraw all and reclaim.
/// @dev Layout: a pool takes three slots, of which `settle` reads two and writes one (`Spending`); a provider's line
/// takes one slot; settled sequence numbers are one bit each; a dispute takes one slot; `_totals` changes only when
/// tokens move. The terms are not stored: the pool's id is their hash, so they cannot change; the authorizer that they name
/// can be followed by another.
contract BudgetPool is IBudgetPool, EIP712, ReentrancyGuardTransient, Multicall {
    using SafeERC20 for IERC20;
    using BatchWire for bytes;

    // ------------------------------------------------------------------ storage

    /// @dev What a batch changes.
    struct Spending {
        uint56 free;
        uint40 perRecordCap;
        uint56 windowCap;
        uint56 windowSpent;
        uint32 windowIndex;
        uint16 feeBps;
    }

    /// @dev What a batch is checked against. `endsAt` is the expiry until a close request brings it forward.
    struct Rules {
        address authorizer;
        uint32 endsAt;
        uint32 windowLength;
        uint32 disputeWindow;
    }

    struct Owner {
        address payer;
        uint32 closeDelay;
        uint56 disputed;
        bool closing;
    }

    struct Pool {
        Spending spending;
        Rules rules;
        Owner owner;
    }

    /// @dev `newer` was credited in `epoch`, `older` in the epoch before it. `redirected`: `_payouts` has an entry.
    struct Line {
        uint64 matured;
        uint64 older;
        uint64 newer;
        uint32 epoch;
        bool allowed;
        bool redirected;
    }

    struct DisputeSlot {
        uint64 amount;
        uint64 openedAt;
        DisputeStatus status;
    }

    struct NextAuthorizer {
        address next;
        uint64 effectiveAt;
    }

    /// @dev `current` is zero while the provider itself is paid.
    struct Payout {
        address current;
        address next;
        uint64 effectiveAt;
    }

    /// @dev Every deposit reads what the guardian sets, so it shares the slot.
    struct Totals {
        uint88 held;
        uint72 fees;
        uint88 tvlCap;
        bool depositsPaused;
    }

    // ------------------------------------------------------------------ constants

    uint16 public constant MAX_FEE_BPS = 500;
    uint256 public constant DISPUTE_TIMEOUT = 14 days;
    uint256 public constant PAYOUT_DELAY = 2 days;
    uint32 public constant MAX_DISPUTE_WINDOW = 90 days;
    /// @notice What an ERC-1271 wallet may use to check one signature.
    uint256 public constant SIGNATURE_GAS = 400_000;

    // Where the members of a `Line` are in its word.
    uint256 private constant OLDER = 64;
    uint256 private constant NEWER = 128;
    uint256 private constant EPOCH = 192;
    uint256 private constant ALLOWED = 1 << 224;
    uint256 private constant REDIRECTED = 1 << 232;
    uint256 private constant FLAGS = ALLOWED | REDIRECTED;

    bytes32 private constant TERMS_TYPEHASH = keccak256(
        "Terms(address payer,address authorizer,address arbiter,uint64 expiry,uint32 closeDelay,uint40 perRecordCap,uint56 windowCap,uint32 windowLength,uint32 disputeWindow,uint16 feeBps,bytes32 providersHash,bytes32 salt)"
    );
    bytes32 private constant BATCH_TYPEHASH =
        keccak256("Batch(bytes32 poolId,bytes packed,bytes32 root,uint64 deadline)");
    bytes32 private constant TOP_UP_TYPEHASH = keccak256("TopUp(bytes32 poolId,bytes32 nonceSalt)");
    bytes32 private constant ALLOW_TYPEHASH =
        keccak256("AllowProviders(bytes32 poolId,address[] providers,bytes32 nonce,uint64 deadline)");
    bytes32 private constant DISPUTE_TYPEHASH =
        keccak256("Dispute(bytes32 poolId,address provider,uint64 amount,bytes32 ref,uint64 deadline)");
    bytes32 private constant CLOSE_TYPEHASH = keccak256("RequestClose(bytes32 poolId,uint64 deadline)");
    bytes32 private constant AUTHORIZER_TYPEHASH =
        keccak256("SetAuthorizer(bytes32 poolId,address next,bytes32 nonce,uint64 deadline)");
    bytes32 private constant PAYOUT_TYPEHASH =
        keccak256("SetPayout(bytes32 poolId,address provider,address payout,bytes32 nonce,uint64 deadline)");

    IERC20 public immutable token;
    address public immutable feeRecipient;
    /// @notice Who may stop deposits and cap them. Zero: nobody, ever.
    address public immutable guardian;

    Totals private _totals;
    mapping(bytes32 poolId => Pool) private _pools;
    mapping(bytes32 poolId => mapping(address provider => Line)) private _lines;
    mapping(bytes32 poolId => mapping(uint256 word => uint256)) private _settled;
    mapping(bytes32 poolId => mapping(address provider => mapping(bytes32 ref => DisputeSlot))) private _disputes;
    mapping(bytes32 poolId => NextAuthorizer) private _nextAuthorizers;
    mapping(bytes32 poolId => mapping(address provider => Payout)) private _payouts;
    mapping(address signer => mapping(bytes32 nonce => bool)) private _usedNonces;

    constructor(address token_, address feeRecipient_, address guardian_, uint88 tvlCap_) EIP712("BudgetPool", "1") {
        if (token_ == address(0)) revert BadTerms("token", 0);
        if (feeRecipient_ == address(0) || feeRecipient_ == token_) {
            revert BadTerms("feeRecipient", uint160(feeRecipient_));
        }
        token = IERC20(token_);
        feeRecipient = feeRecipient_;
        guardian = guardian_;
        _totals.tvlCap = tvlCap_;
        emit TvlCapSet(tvlCap_);
    }

    // ------------------------------------------------------------------ deposits

    /// @inheritdoc IBudgetPool
    function openPool(
        Terms calldata terms,
        address[] calldata providers,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes calldata signature
    ) external nonReentrant returns (bytes32 poolId) {
        poolId = _open(terms, providers, value);
        _pullAuthorized(terms.payer, value, validAfter, validBefore, poolId, signature);
    }

    /// @inheritdoc IBudgetPool
    function openPoolWithPermit(
        Terms calldata terms,
        address[] calldata providers,
        uint256 value,
        uint256 deadline,
        bytes calldata signature
    ) external nonReentrant returns (bytes32 poolId) {
        _requireCaller(terms.payer);
        poolId = _open(terms, providers, value);
        // Anyone may use up a permit that is on its way: then its allowance is there all the same.
        try IERC2612(address(token)).permit(msg.sender, address(this), value, deadline, signature) {} catch {}
        _pullAllowed(value);
    }

    /// @inheritdoc IBudgetPool
    function openPoolDirect(Terms calldata terms, address[] calldata providers, uint256 value)
        external
        nonReentrant
        returns (bytes32 poolId)
    {
        _requireCaller(terms.payer);
        poolId = _open(terms, providers, value);
        _pullAllowed(value);
    }

    /// @inheritdoc IBudgetPool
    function topUp(
        bytes32 poolId,
        uint256 value,
        address from,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonceSalt,
        bytes calldata signature
    ) external nonReentrant {
        _topUp(poolId, value, from);
        _pullAuthorized(from, value, validAfter, validBefore, topUpNonce(poolId, nonceSalt), signature);
    }

    /// @inheritdoc IBudgetPool
    function topUpDirect(bytes32 poolId, uint256 value) external nonReentrant {
        _topUp(poolId, value, msg.sender);
        _pullAllowed(value);
    }

    // ------------------------------------------------------------------ the allow-list

    /// @inheritdoc IBudgetPool
    function allowProviders(bytes32 poolId, address[] calldata providers) external nonReentrant {
        Pool storage p = _existing(poolId);
        _requireCaller(p.owner.payer);
        _requireOpen(p);
        _allow(poolId, providers);
    }

    /// @inheritdoc IBudgetPool
    function allowProvidersWithSig(
        bytes32 poolId,
        address[] calldata providers,
        bytes32 nonce,
        uint64 deadline,
        bytes calldata signature
    ) external nonReentrant {
        Pool storage p = _existing(poolId);
        _requireOpen(p);
        bytes32 structHash =
            keccak256(abi.encode(ALLOW_TYPEHASH, poolId, keccak256(abi.encodePacked(providers)), nonce, deadline));
        _requireSignedOnce(p.owner.payer, structHash, nonce, deadline, signature);
        _allow(poolId, providers);
    }

    // ------------------------------------------------------------------ settlement

    /// @inheritdoc IBudgetPool
    function settle(bytes32 poolId, bytes calldata packed, bytes32 root, uint64 deadline, bytes calldata signature)
        external
        nonReentrant
    {
        Pool storage p = _pools[poolId];
        Rules memory rules = p.rules;
        if (rules.authorizer == address(0)) revert NoSuchPool(poolId);
        if (block.timestamp >= rules.endsAt) revert PoolEnded(rules.endsAt, block.timestamp);
        _requireSigned(
            rules.authorizer,
            keccak256(abi.encode(BATCH_TYPEHASH, poolId, keccak256(packed), root, deadline)),
            deadline,
            signature
        );
        Spending memory spending = p.spending;
        (uint256 firstSeq, uint256 count, uint256[] memory sums) = packed.scan(spending.perRecordCap);
        _markSettled(poolId, firstSeq, count);
        uint256 total = _credit(poolId, packed, firstSeq, sums, rules.disputeWindow);
        _spend(spending, total, block.timestamp / rules.windowLength);
        _storeSpending(p.spending, spending);
        emit BatchSettled(poolId, firstSeq, count, total, root);
    }

    /// @inheritdoc IBudgetPool
    function settleMany(SignedBatch[] calldata batches) external {
        for (uint256 i = 0; i < batches.length; ++i) {
            SignedBatch calldata b = batches[i];
            (bool landed, bytes memory reason) = _try(
                i,
                batches.length,
                abi.encodeCall(this.settle, (b.poolId, b.packed, b.root, b.deadline, b.signature))
            );
            if (!landed) emit ItemRejected(b.poolId, reason);
        }
    }

    /// @inheritdoc IBudgetPool
    function withdraw(bytes32 poolId, address provider) external nonReentrant {
        Pool storage p = _existing(poolId);
        Rules memory rules = p.rules;
        Line storage line = _lines[poolId][provider];
        uint256 word = _rolled(line, rules.disputeWindow);
        uint256 matured = uint64(word);
        if (matured == 0) revert NothingToWithdraw(poolId, provider);
        uint256 fee = matured * p.spending.feeBps / 10_000;
        address to = word & REDIRECTED == 0 ? provider : _payoutNow(_payouts[poolId][provider], provider);
        word -= matured;
        // Nothing is credited after the end: an empty line can go, and its slot is refunded.
        if (block.timestamp >= rules.endsAt && uint128(word >> OLDER) == 0) word &= REDIRECTED;
        _storeLine(line, word);
        Totals memory totals = _totals;
        totals.fees += uint72(fee);
        totals.held -= uint88(matured - fee);
        _storeTotals(totals);
        emit Withdrawn(poolId, provider, to, matured - fee, fee);
        token.safeTransfer(to, matured - fee);
    }

    /// @inheritdoc IBudgetPool
    function withdrawMany(Claim[] calldata claims) external {
        for (uint256 i = 0; i < claims.length; ++i) {
            Claim calldata c = claims[i];
            (bool paid, bytes memory reason) =
                _try(i, claims.length, abi.encodeCall(this.withdraw, (c.poolId, c.provider)));
            if (!paid) emit WithdrawalRejected(c.poolId, c.provider, reason);
        }
    }

    /// @inheritdoc IBudgetPool
    function withdrawFees() external nonReentrant {
        Totals memory totals = _totals;
        uint256 amount = totals.fees;
        if (amount == 0) revert NoFees();
        totals.held -= uint88(amount);
        totals.fees = 0;
        _storeTotals(totals);
        emit FeesWithdrawn(feeRecipient, amount);
        token.safeTransfer(feeRecipient, amount);
    }

    // ------------------------------------------------------------------ disputes

    /// @inheritdoc IBudgetPool
    function dispute(bytes32 poolId, address provider, uint64 amount, bytes32 ref) external nonReentrant {
        Pool storage p = _existing(poolId);
        _requireCaller(p.owner.payer);
        _dispute(p, poolId, provider, amount, ref);
    }

    /// @inheritdoc IBudgetPool
    function disputeWithSig(
        bytes32 poolId,
        address provider,
        uint64 amount,
        bytes32 ref,
        uint64 deadline,
        bytes calldata signature
    ) external nonReentrant {
        Pool storage p = _existing(poolId);
        bytes32 structHash = keccak256(abi.encode(DISPUTE_TYPEHASH, poolId, provider, amount, ref, deadline));
        _requireSigned(p.owner.payer, structHash, deadline, signature);
        _dispute(p, poolId, provider, amount, ref);
    }

    /// @inheritdoc IBudgetPool
    function resolve(Terms calldata terms, address provider, bytes32 ref, uint64 toProvider) external nonReentrant {
        bytes32 poolId = poolIdOf(terms);
        Pool storage p = _existing(poolId);
        if (msg.sender != terms.arbiter) revert NotArbiter(msg.sender, terms.arbiter);
        DisputeSlot memory slot = _openDispute(poolId, provider, ref);
        uint256 timeoutAt = slot.openedAt + DISPUTE_TIMEOUT;
        if (block.timestamp >= timeoutAt) revert RulingTooLate(timeoutAt, block.timestamp);
        if (toProvider > slot.amount) revert RulingOverDispute(toProvider, slot.amount);
        _resolve(p, poolId, provider, ref, slot, toProvider, false);
    }

    /// @inheritdoc IBudgetPool
    function resolveByTimeout(bytes32 poolId, address provider, bytes32 ref) external nonReentrant {
        Pool storage p = _existing(poolId);
        DisputeSlot memory slot = _openDispute(poolId, provider, ref);
        uint256 timeoutAt = slot.openedAt + DISPUTE_TIMEOUT;
        if (block.timestamp < timeoutAt) revert TimeoutTooEarly(timeoutAt, block.timestamp);
        _resolve(p, poolId, provider, ref, slot, slot.amount, true);
    }

    // ------------------------------------------------------------------ the way out

    /// @inheritdoc IBudgetPool
    function requestClose(bytes32 poolId) external nonReentrant {
        Pool storage p = _existing(poolId);
        _requireCaller(p.owner.payer);
        _requestClose(p, poolId);
    }

    /// @inheritdoc IBudgetPool
    function requestCloseWithSig(bytes32 poolId, uint64 deadline, bytes calldata signature) external nonReentrant {
        Pool storage p = _existing(poolId);
        bytes32 structHash = keccak256(abi.encode(CLOSE_TYPEHASH, poolId, deadline));
        _requireSigned(p.owner.payer, structHash, deadline, signature);
        _requestClose(p, poolId);
    }

    /// @inheritdoc IBudgetPool
    function reclaim(bytes32 poolId) external nonReentrant {
        Pool storage p = _existing(poolId);
        uint256 endsAt = p.rules.endsAt;
        if (block.timestamp < endsAt) revert NotEnded(endsAt, block.timestamp);
        uint256 amount = p.spending.free;
        if (amount == 0) revert NothingToReclaim(poolId);
        address payer = p.owner.payer;
        p.spending.free = 0;
        _totals.held -= uint88(amount);
        emit Reclaimed(poolId, payer, amount);
        token.safeTransfer(payer, amount);
    }

    // ------------------------------------------------------------------ keys that change

    /// @inheritdoc IBudgetPool
    function setAuthorizer(bytes32 poolId, address next) external nonReentrant {
        Pool storage p = _existing(poolId);
        _requireCaller(p.owner.payer);
        _setAuthorizer(p, poolId, next);
    }

    /// @inheritdoc IBudgetPool
    function setAuthorizerWithSig(
        bytes32 poolId,
        address next,
        bytes32 nonce,
        uint64 deadline,
        bytes calldata signature
    ) external nonReentrant {
        Pool storage p = _existing(poolId);
        bytes32 structHash = keccak256(abi.encode(AUTHORIZER_TYPEHASH, poolId, next, nonce, deadline));
        _requireSignedOnce(p.owner.payer, structHash, nonce, deadline, signature);
        _setAuthorizer(p, poolId, next);
    }

    /// @inheritdoc IBudgetPool
    function applyAuthorizer(bytes32 poolId) external nonReentrant {
        Pool storage p = _existing(poolId);
        NextAuthorizer memory change = _nextAuthorizers[poolId];
        if (change.next == address(0)) revert NoAuthorizerChange(poolId);
        if (block.timestamp < change.effectiveAt) revert AuthorizerChangeTooEarly(change.effectiveAt, block.timestamp);
        delete _nextAuthorizers[poolId];
        p.rules.authorizer = change.next;
        emit AuthorizerChanged(poolId, change.next);
    }

    /// @inheritdoc IBudgetPool
    function setPayout(bytes32 poolId, address payout) external nonReentrant {
        _existing(poolId);
        _setPayout(poolId, msg.sender, payout);
    }

    /// @inheritdoc IBudgetPool
    function setPayoutWithSig(
        bytes32 poolId,
        address provider,
        address payout,
        bytes32 nonce,
        uint64 deadline,
        bytes calldata signature
    ) external nonReentrant {
        _existing(poolId);
        bytes32 structHash = keccak256(abi.encode(PAYOUT_TYPEHASH, poolId, provider, payout, nonce, deadline));
        _requireSignedOnce(provider, structHash, nonce, deadline, signature);
        _setPayout(poolId, provider, payout);
    }

    // ------------------------------------------------------------------ the guardian

    /// @inheritdoc IBudgetPool
    function pauseDeposits(bool paused) external {
        _requireGuardian();
        _totals.depositsPaused = paused;
        emit DepositsPaused(paused);
    }

    /// @inheritdoc IBudgetPool
    function setTvlCap(uint88 cap) external {
        _requireGuardian();
        _totals.tvlCap = cap;
        emit TvlCapSet(cap);
    }

    // ------------------------------------------------------------------ views

    /// @inheritdoc IBudgetPool
    function poolIdOf(Terms calldata terms) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(TERMS_TYPEHASH, terms)));
    }

    /// @inheritdoc IBudgetPool
    function topUpNonce(bytes32 poolId, bytes32 nonceSalt) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(TOP_UP_TYPEHASH, poolId, nonceSalt)));
    }

    /// @inheritdoc IBudgetPool
    function pool(bytes32 poolId) external view returns (PoolState memory state) {
        Pool memory p = _existing(poolId);
        uint256 spent = p.spending.windowIndex == block.timestamp / p.rules.windowLength ? p.spending.windowSpent : 0;
        state.payer = p.owner.payer;
        state.authorizer = p.rules.authorizer;
        state.endsAt = p.rules.endsAt;
        state.closing = p.owner.closing;
        state.closeDelay = p.owner.closeDelay;
        state.perRecordCap = p.spending.perRecordCap;
        state.windowCap = p.spending.windowCap;
        state.windowLength = p.rules.windowLength;
        state.disputeWindow = p.rules.disputeWindow;
        state.feeBps = p.spending.feeBps;
        state.free = p.spending.free;
        state.disputed = p.owner.disputed;
        state.windowRemaining = uint64(p.spending.windowCap - spent);
    }

    /// @inheritdoc IBudgetPool
    function lineOf(bytes32 poolId, address provider) external view returns (LineState memory state) {
        uint256 window = _existing(poolId).rules.disputeWindow;
        Line memory line = _unpacked(_rolled(_lines[poolId][provider], window));
        state.allowed = line.allowed;
        state.matured = line.matured;
        state.pending = line.older + line.newer;
        if (state.pending != 0) {
            bool olderFirst = line.older != 0;
            state.nextAmount = olderFirst ? line.older : line.newer;
            state.nextAt = uint64((uint256(line.epoch) + (olderFirst ? 1 : 2)) * window);
        }
    }

    /// @inheritdoc IBudgetPool
    function disputeOf(bytes32 poolId, address provider, bytes32 ref) external view returns (DisputeState memory state) {
        DisputeSlot memory slot = _disputes[poolId][provider][ref];
        if (slot.status == DisputeStatus.None) return state;
        state = DisputeState(slot.status, slot.amount, slot.openedAt, slot.openedAt + uint64(DISPUTE_TIMEOUT));
    }

    /// @inheritdoc IBudgetPool
    function isSettled(bytes32 poolId, uint256 seq) external view returns (bool) {
        return _settled[poolId][seq >> 8] & (1 << (seq & 255)) != 0;
    }

    /// @inheritdoc IBudgetPool
    function nextAuthorizer(bytes32 poolId) external view returns (address next, uint64 effectiveAt) {
        NextAuthorizer memory change = _nextAuthorizers[poolId];
        return (change.next, change.effectiveAt);
    }

    /// @inheritdoc IBudgetPool
    function payoutOf(bytes32 poolId, address provider)
        external
        view
        returns (address payout, address next, uint64 effectiveAt)
    {
        Payout memory entry = _payouts[poolId][provider];
        payout = _payoutNow(entry, provider);
        if (entry.effectiveAt > block.timestamp) (next, effectiveAt) = (entry.next, entry.effectiveAt);
    }

    /// @inheritdoc IBudgetPool
    function nonceUsed(address signer, bytes32 nonce) external view returns (bool) {
        return _usedNonces[signer][nonce];
    }

    /// @inheritdoc IBudgetPool
    function totalHeld() external view returns (uint256) {
        return _totals.held;
    }

    /// @inheritdoc IBudgetPool
    function fees() external view returns (uint256) {
        return _totals.fees;
    }

    /// @inheritdoc IBudgetPool
    function solvent() external view returns (bool) {
        return token.balanceOf(address(this)) >= _totals.held;
    }

    /// @inheritdoc IBudgetPool
    function tvlCap() external view returns (uint256) {
        return _totals.tvlCap;
    }

    /// @inheritdoc IBudgetPool
    function depositsPaused() external view returns (bool) {
        return _totals.depositsPaused;
    }

    // ------------------------------------------------------------------ checks

    function _checkTerms(Terms calldata terms) private view {
        if (terms.payer == address(0)) revert BadTerms("payer", 0);
        if (terms.authorizer == address(0)) revert BadTerms("authorizer", 0);
        if (terms.arbiter == terms.payer || (terms.arbiter == address(0) && terms.disputeWindow != 0)) {
            revert BadTerms("arbiter", uint160(terms.arbiter));
        }
        if (terms.expiry <= block.timestamp || terms.expiry > type(uint32).max) {
            revert BadTerms("expiry", terms.expiry);
        }
        if (terms.perRecordCap == 0) revert BadTerms("perRecordCap", 0);
        if (terms.windowCap == 0) revert BadTerms("windowCap", 0);
        if (terms.windowLength == 0) revert BadTerms("windowLength", 0);
        if (terms.disputeWindow > MAX_DISPUTE_WINDOW) revert BadTerms("disputeWindow", terms.disputeWindow);
        if (terms.feeBps > MAX_FEE_BPS) revert BadTerms("feeBps", terms.feeBps);
    }

    function _existing(bytes32 poolId) private view returns (Pool storage p) {
        p = _pools[poolId];
        if (p.rules.authorizer == address(0)) revert NoSuchPool(poolId);
    }

    function _requireCaller(address payer) private view {
        if (msg.sender != payer) revert NotPayer(msg.sender, payer);
    }

    function _requireGuardian() private view {
        if (msg.sender != guardian) revert NotGuardian(msg.sender, guardian);
    }

    function _requireOpen(Pool storage p) private view {
        if (block.timestamp >= p.rules.endsAt) revert PoolEnded(p.rules.endsAt, block.timestamp);
    }

    /// @dev A key's own signature is enough whether or not its account has code, and saves looking for code.
    function _requireSigned(address signer, bytes32 structHash, uint64 deadline, bytes calldata signature) private view {
        if (block.timestamp > deadline) revert DeadlinePassed(deadline, block.timestamp);
        bytes32 digest = _hashTypedDataV4(structHash);
        (address recovered, ECDSA.RecoverError err,) = ECDSA.tryRecoverCalldata(digest, signature);
        if (err == ECDSA.RecoverError.NoError && recovered == signer) return;
        if (signer.code.length == 0 || !_signedByContract(signer, digest, signature)) revert BadSignature(signer);
    }

    /// @dev ERC-1271 with exactly `SIGNATURE_GAS`: a wallet can neither burn more of an item's gas than that, nor be called
    /// wrong for want of gas. Where it cannot be given that much, this ends as a want of gas does: without data.
    function _signedByContract(address signer, bytes32 digest, bytes calldata signature)
        private
        view
        returns (bool valid)
    {
        bytes memory data = abi.encodeCall(IERC1271.isValidSignature, (digest, signature));
        bytes32 magic = IERC1271.isValidSignature.selector;
        uint256 enough = SIGNATURE_GAS + SIGNATURE_GAS / 32; // a call may pass on 63 of 64 parts
        assembly ("memory-safe") {
            if lt(gas(), enough) { revert(0, 0) }
            valid := staticcall(SIGNATURE_GAS, signer, add(data, 0x20), mload(data), 0, 0x20)
            valid := and(valid, and(gt(returndatasize(), 0x1f), eq(mload(0), magic)))
        }
    }

    function _requireSignedOnce(
        address signer,
        bytes32 structHash,
        bytes32 nonce,
        uint64 deadline,
        bytes calldata signature
    ) private {
        _requireSigned(signer, structHash, deadline, signature);
        if (_usedNonces[signer][nonce]) revert NonceUsed(signer, nonce);
        _usedNonces[signer][nonce] = true;
    }

    // ------------------------------------------------------------------ money in

    function _open(Terms calldata terms, address[] calldata providers, uint256 value) private returns (bytes32 poolId) {
        _checkTerms(terms);
        bytes32 hash = keccak256(abi.encodePacked(providers));
        if (hash != terms.providersHash) revert ProvidersHashMismatch(terms.providersHash, hash);
        poolId = poolIdOf(terms);
        Pool storage p = _pools[poolId];
        if (p.owner.payer != address(0)) revert PoolExists(poolId);

        uint56 free = _asFree(value, 0);
        _storeSpending(p.spending, Spending(free, terms.perRecordCap, terms.windowCap, 0, 0, terms.feeBps));
        _storeRules(
            p.rules, Rules(terms.authorizer, uint32(terms.expiry), terms.windowLength, terms.disputeWindow)
        );
        _storeOwner(p.owner, Owner(terms.payer, terms.closeDelay, 0, false));
        emit PoolOpened(poolId, terms.payer, terms, value);
        _allow(poolId, providers);
    }

    function _topUp(bytes32 poolId, uint256 value, address from) private {
        Pool storage p = _existing(poolId);
        _requireOpen(p);
        if (p.owner.closing) revert PoolClosing(p.rules.endsAt);
        p.spending.free = _asFree(value, p.spending.free);
        emit PoolToppedUp(poolId, from, value);
    }

    /// @dev The most a pool can have free is 2^56 - 1 units, seventy-two billion dollars.
    function _asFree(uint256 value, uint256 before) private pure returns (uint56) {
        if (value == 0) revert ZeroAmount();
        uint256 max = type(uint56).max - before;
        if (value > max) revert DepositTooLarge(value, max);
        return uint56(before + value);
    }

    /// @dev Counts a deposit before the tokens come, and afterwards holds the token to exactly that amount.
    modifier receiving(uint256 value) {
        Totals memory totals = _totals;
        if (totals.depositsPaused) revert DepositsArePaused();
        uint256 held = totals.held + value;
        if (held > totals.tvlCap) revert TvlCapExceeded(held, totals.tvlCap);
        totals.held = uint88(held);
        _storeTotals(totals);
        uint256 before = token.balanceOf(address(this));
        _;
        uint256 received = token.balanceOf(address(this)) - before;
        if (received != value) revert DepositMismatch(value, received);
    }

    /// @dev Only this contract can use a *Receive*WithAuthorization made out to it.
    function _pullAuthorized(
        address from,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) private receiving(value) {
        IERC3009(address(token)).receiveWithAuthorization(
            from, address(this), value, validAfter, validBefore, nonce, signature
        );
    }

    function _pullAllowed(uint256 value) private receiving(value) {
        token.safeTransferFrom(msg.sender, address(this), value);
    }

    function _allow(bytes32 poolId, address[] calldata providers) private {
        if (providers.length == 0) return;
        mapping(address => Line) storage lines = _lines[poolId];
        for (uint256 i = 0; i < providers.length; ++i) {
            address provider = providers[i];
            if (provider == address(0) || provider == address(this) || provider == address(token)) {
                revert BadProvider(provider);
            }
            lines[provider].allowed = true;
        }
        emit ProvidersAllowed(poolId, providers);
    }

    // ------------------------------------------------------------------ a batch

    /// @dev Calls this contract for item `index` of `count` with an equal share of the gas, one share being left for what
    /// comes after. Every refusal of ours and of the token carries data and what a signer can burn is bounded, so an empty
    /// one is a want of gas: it must not pass for the item's own fault. As much as `count + 1` times what the dearest
    /// item may use is always enough.
    function _try(uint256 index, uint256 count, bytes memory data) private returns (bool passed, bytes memory reason) {
        (passed, reason) = address(this).call{gas: gasleft() / (count - index + 1)}(data);
        if (!passed && reason.length == 0) revert ItemOutOfGas(index);
    }

    /// @dev Sets the bits of `[firstSeq, firstSeq + count)`, a word at a time, and refuses any that is set.
    function _markSettled(bytes32 poolId, uint256 firstSeq, uint256 count) private {
        mapping(uint256 => uint256) storage words = _settled[poolId];
        uint256 end = firstSeq + count;
        for (uint256 seq = firstSeq; seq < end;) {
            uint256 bit = seq & 255;
            uint256 run = 256 - bit < end - seq ? 256 - bit : end - seq;
            uint256 mask = (type(uint256).max >> (256 - run)) << bit;
            uint256 word = words[seq >> 8];
            if (word & mask != 0) {
                while (word & (1 << bit) == 0) ++bit;
                revert AlreadySettled(poolId, (seq & ~uint256(255)) | bit);
            }
            words[seq >> 8] = word | mask;
            seq += run;
        }
    }

    /// @dev Adds each provider's net amount to its line.
    function _credit(bytes32 poolId, bytes calldata packed, uint256 firstSeq, uint256[] memory sums, uint256 window)
        private
        returns (uint256 total)
    {
        mapping(address => Line) storage lines = _lines[poolId];
        for (uint256 i = 0; i < sums.length; ++i) {
            address provider = packed.providerAt(i);
            uint256 amount = sums[i];
            if (!_creditLine(lines[provider], uint64(amount), window)) revert ProviderNotAllowed(poolId, provider);
            if (amount == 0) revert UnusedProvider(provider);
            total += amount;
            emit Credited(poolId, provider, amount, firstSeq);
        }
    }

    /// @return allowed whether the line may be credited; what a line that may not is left as does not count
    function _creditLine(Line storage stored, uint64 amount, uint256 window) private returns (bool allowed) {
        uint256 word = _rolled(stored, window);
        allowed = word & ALLOWED != 0;
        uint256 shift = window == 0 ? 0 : NEWER;
        uint64 sum = uint64(word >> shift) + amount; // checked: the field cannot spill into the next
        _storeLine(stored, word & ~(uint256(type(uint64).max) << shift) | uint256(sum) << shift);
    }

    function _spend(Spending memory spending, uint256 total, uint256 windowIndex) private pure {
        if (total > spending.free) revert InsufficientFree(total, spending.free);
        uint256 spent = spending.windowIndex == windowIndex ? spending.windowSpent + total : total;
        if (spent > spending.windowCap) revert WindowOverCap(spent, spending.windowCap);
        spending.free -= uint56(total);
        spending.windowSpent = uint56(spent);
        spending.windowIndex = uint32(windowIndex);
    }

    // ------------------------------------------------------------------ a line

    // A line is read and written as one word, in Solidity's own layout of `Line`: a struct costs twice the gas to take
    // apart and put together, and every settlement does it for every provider.

    /// @dev The line as it is now: what was credited two epochs ago or earlier has matured. `epoch` cannot lose
    /// bits: credits stop with the pool, within 32 bits of seconds.
    function _rolled(Line storage stored, uint256 window) private view returns (uint256 word) {
        assembly ("memory-safe") {
            word := sload(stored.slot)
        }
        if (window == 0) return word;
        uint256 epoch = block.timestamp / window;
        uint256 was = uint32(word >> EPOCH);
        if (epoch == was) return word;
        uint64 matured = uint64(word) + uint64(word >> OLDER);
        uint64 older = 0;
        if (epoch == was + 1) {
            older = uint64(word >> NEWER);
        } else {
            matured += uint64(word >> NEWER);
        }
        word = word & FLAGS | uint256(uint32(epoch)) << EPOCH | uint256(older) << OLDER | matured;
    }

    function _unpacked(uint256 word) private pure returns (Line memory line) {
        line.matured = uint64(word);
        line.older = uint64(word >> OLDER);
        line.newer = uint64(word >> NEWER);
        line.epoch = uint32(word >> EPOCH);
        line.allowed = word & ALLOWED != 0;
        line.redirected = word & REDIRECTED != 0;
    }

    function _storeLine(Line storage stored, uint256 word) private {
        assembly ("memory-safe") {
            sstore(stored.slot, word)
        }
    }

    // The other slots that are written whole: one write each, where the compiler would make one for each member.

    function _storeSpending(Spending storage stored, Spending memory spending) private {
        uint256 word = spending.free | uint256(spending.perRecordCap) << 56 | uint256(spending.windowCap) << 96
            | uint256(spending.windowSpent) << 152 | uint256(spending.windowIndex) << 208
            | uint256(spending.feeBps) << 240;
        assembly ("memory-safe") {
            sstore(stored.slot, word)
        }
    }

    function _storeRules(Rules storage stored, Rules memory rules) private {
        uint256 word = uint160(rules.authorizer) | uint256(rules.endsAt) << 160 | uint256(rules.windowLength) << 192
            | uint256(rules.disputeWindow) << 224;
        assembly ("memory-safe") {
            sstore(stored.slot, word)
        }
    }

    function _storeOwner(Owner storage stored, Owner memory owner) private {
        uint256 word = uint160(owner.payer) | uint256(owner.closeDelay) << 160 | uint256(owner.disputed) << 192
            | (owner.closing ? 1 << 248 : 0);
        assembly ("memory-safe") {
            sstore(stored.slot, word)
        }
    }

    function _storeTotals(Totals memory totals) private {
        uint256 word = totals.held | uint256(totals.fees) << 88 | uint256(totals.tvlCap) << 160
            | (totals.depositsPaused ? 1 << 248 : 0);
        assembly ("memory-safe") {
            sstore(_totals.slot, word)
        }
    }

    // ------------------------------------------------------------------ a dispute

    function _dispute(Pool storage p, bytes32 poolId, address provider, uint64 amount, bytes32 ref) private {
        if (amount == 0) revert ZeroAmount();
        DisputeSlot storage slot = _disputes[poolId][provider][ref];
        if (slot.status != DisputeStatus.None) revert RefUsed(poolId, provider, ref);
        Line storage line = _lines[poolId][provider];
        uint256 word = _rolled(line, p.rules.disputeWindow);
        uint256 older = uint64(word >> OLDER);
        uint256 pending = older + uint64(word >> NEWER);
        if (amount > pending) revert DisputeOverPending(amount, pending);
        uint256 fromOlder = amount < older ? amount : older;
        _storeLine(line, word - (fromOlder << OLDER) - ((amount - fromOlder) << NEWER));
        p.owner.disputed = SafeCast.toUint56(uint256(p.owner.disputed) + amount);
        _disputes[poolId][provider][ref] = DisputeSlot(amount, uint64(block.timestamp), DisputeStatus.Open);
        emit Disputed(poolId, provider, ref, amount);
    }

    function _openDispute(bytes32 poolId, address provider, bytes32 ref) private view returns (DisputeSlot memory slot) {
        slot = _disputes[poolId][provider][ref];
        if (slot.status != DisputeStatus.Open) revert NoOpenDispute(poolId, provider, ref);
    }

    function _resolve(
        Pool storage p,
        bytes32 poolId,
        address provider,
        bytes32 ref,
        DisputeSlot memory slot,
        uint64 toProvider,
        bool byTimeout
    ) private {
        uint64 toPayer = slot.amount - toProvider;
        p.owner.disputed -= uint56(slot.amount);
        // Never truncates: a return beyond 2^56 - 1 is refused, and the timeout still pays the provider.
        if (toPayer != 0) p.spending.free = _asFree(toPayer, p.spending.free);
        _lines[poolId][provider].matured += toProvider;
        _disputes[poolId][provider][ref].status = DisputeStatus.Resolved;
        emit DisputeResolved(poolId, provider, ref, toProvider, toPayer, byTimeout);
    }

    // ------------------------------------------------------------------ the end

    function _requestClose(Pool storage p, bytes32 poolId) private {
        _requireOpen(p);
        if (p.owner.closing) revert PoolClosing(p.rules.endsAt);
        uint256 endsAt = block.timestamp + p.owner.closeDelay;
        if (endsAt > p.rules.endsAt) endsAt = p.rules.endsAt;
        p.owner.closing = true;
        p.rules.endsAt = uint32(endsAt);
        emit CloseRequested(poolId, endsAt);
    }

    // ------------------------------------------------------------------ keys that change

    function _setAuthorizer(Pool storage p, bytes32 poolId, address next) private {
        _requireOpen(p);
        if (next == address(0)) revert BadAuthorizer(next);
        uint256 effectiveAt;
        if (next == p.rules.authorizer) {
            if (_nextAuthorizers[poolId].next == address(0)) revert NoAuthorizerChange(poolId);
            delete _nextAuthorizers[poolId];
        } else {
            effectiveAt = block.timestamp + p.owner.closeDelay;
            _nextAuthorizers[poolId] = NextAuthorizer(next, uint64(effectiveAt));
        }
        emit AuthorizerChangeRequested(poolId, next, effectiveAt);
    }

    function _setPayout(bytes32 poolId, address provider, address payout) private {
        if (payout == address(0) || payout == address(this) || payout == address(token)) revert BadPayout(payout);
        Payout storage entry = _payouts[poolId][provider];
        uint256 effectiveAt = block.timestamp + PAYOUT_DELAY;
        entry.current = _payoutNow(entry, provider);
        entry.next = payout;
        entry.effectiveAt = uint64(effectiveAt);
        _lines[poolId][provider].redirected = true;
        emit PayoutChangeRequested(poolId, provider, payout, effectiveAt);
    }

    function _payoutNow(Payout memory entry, address provider) private view returns (address) {
        if (entry.next != address(0) && block.timestamp >= entry.effectiveAt) return entry.next;
        return entry.current == address(0) ? provider : entry.current;
    }
}
