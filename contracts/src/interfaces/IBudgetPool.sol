// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title The whole vocabulary of the escrow: what is agreed, what happened, and why something was refused.
/// @notice One deposit of one payer, spent on many providers in netted batches, with caps, an allow-list, a
/// hold window with disputes, and a way out for both sides that needs nobody else.
///
/// Amounts are units of USDC's sixth decimal. Times are seconds of `block.timestamp`, and every interval is
/// half-open: a pool accepts batches while `now < endsAt` and can be reclaimed once `now >= endsAt`, never both.
///
/// Every balance can be rebuilt from events alone, per pool:
///   free      = PoolOpened.deposit + PoolToppedUp - Credited + DisputeResolved.toPayer - Reclaimed
///   line      = Credited - Disputed + DisputeResolved.toProvider - Withdrawn.net - Withdrawn.fee
///   dispute   = Disputed - (DisputeResolved.toProvider + DisputeResolved.toPayer)
///   fees      = Withdrawn.fee - FeesWithdrawn            (over all pools)
/// and the matured part of a line from the block times of `Credited` and the terms' `disputeWindow`.
interface IBudgetPool {
    // ------------------------------------------------------------------ what is agreed

    /// @notice What a payer accepts, once and for good. `poolId` is the EIP-712 digest of this struct (domain
    /// "BudgetPool", version "1", this chain, this contract) and is also the nonce of the payer's ERC-3009
    /// authorization, so one signature binds the deposit and the policy.
    /// @param payer who pays, may dispute and close, and gets the rest back; an account or an ERC-1271 contract
    /// @param authorizer whose EIP-712 signature every batch carries; not zero
    /// @param arbiter who rules disputes; not the payer; zero only when `disputeWindow` is zero
    /// @param expiry first second at which nothing settles any more; after now, and within 32 bits (year 2106)
    /// @param closeDelay seconds between the payer's close request and the end, in which signed batches may land
    /// @param perRecordCap most that one record may carry; zero is refused, because it could never settle
    /// @param windowCap most that settles within one window; zero is refused for the same reason
    /// @param windowLength seconds of a tumbling window `[k * length, (k + 1) * length)`; zero is refused. As
    /// windows tumble, two full caps may settle around one boundary. For "no window", name a length past expiry.
    /// @param disputeWindow W: a credit of epoch e (of length W) matures at the start of epoch e + 2, so it is
    /// held for at least W and at most 2 W. Zero matures at once and leaves nothing to dispute.
    /// @param feeBps fee in basis points of what a provider withdraws, floored; at most 500
    /// @param providersHash keccak256(abi.encodePacked(address[])): each address padded to 32 bytes, no length
    /// @param salt anything; tells two pools of equal terms apart
    struct Terms {
        address payer;
        address authorizer;
        address arbiter;
        uint64 expiry;
        uint32 closeDelay;
        uint48 perRecordCap;
        uint56 windowCap;
        uint32 windowLength;
        uint32 disputeWindow;
        uint16 feeBps;
        bytes32 providersHash;
        bytes32 salt;
    }

    // ------------------------------------------------------------------ what views answer

    /// @param endsAt `expiry`, or earlier once a close was requested
    /// @param closeRequestedAt zero while nobody asked
    /// @param free what batches may still credit
    /// @param disputed what open disputes hold
    /// @param windowRemaining what the current window still lets through
    struct PoolState {
        address payer;
        address authorizer;
        address arbiter;
        uint64 expiry;
        uint64 endsAt;
        uint64 closeRequestedAt;
        uint32 closeDelay;
        uint48 perRecordCap;
        uint56 windowCap;
        uint32 windowLength;
        uint32 disputeWindow;
        uint16 feeBps;
        uint64 free;
        uint64 disputed;
        uint64 windowRemaining;
    }

    /// @param matured what `withdraw` would take now, fee included
    /// @param pending what is held and may be disputed
    /// @param nextAmount the part of `pending` that matures first
    /// @param nextAt when it does; zero when nothing is pending
    struct LineState {
        bool allowed;
        uint64 matured;
        uint64 pending;
        uint64 nextAmount;
        uint64 nextAt;
    }

    enum DisputeStatus {
        None,
        Open,
        Resolved
    }

    /// @param amount what was disputed (kept after the ruling)
    /// @param timeoutAt from this second the arbiter's say is over and `resolveByTimeout` pays the provider
    struct DisputeState {
        DisputeStatus status;
        uint64 amount;
        uint64 openedAt;
        uint64 timeoutAt;
    }

    // ------------------------------------------------------------------ what happened

    event PoolOpened(bytes32 indexed poolId, address indexed payer, Terms terms, uint256 deposit);
    event PoolToppedUp(bytes32 indexed poolId, address indexed from, uint256 amount);
    event ProvidersAllowed(bytes32 indexed poolId, address[] providers);
    /// @notice One batch landed: records `firstSeq .. firstSeq + count - 1`, `total` in all.
    /// @param root Merkle root over the batch's leaves
    /// (poolId, seq, paymentId, provider, amount, taskHash); not checked here, published for whoever checks.
    event BatchSettled(bytes32 indexed poolId, uint256 firstSeq, uint256 count, uint256 total, bytes32 root);
    /// @notice The net credit of one provider in the batch that starts at `firstSeq`.
    event Credited(bytes32 indexed poolId, address indexed provider, uint256 amount, uint256 firstSeq);
    event Withdrawn(bytes32 indexed poolId, address indexed provider, uint256 net, uint256 fee);
    event FeesWithdrawn(address indexed to, uint256 amount);
    event CloseRequested(bytes32 indexed poolId, uint256 reclaimableAt);
    event Reclaimed(bytes32 indexed poolId, address indexed payer, uint256 amount);
    event Disputed(bytes32 indexed poolId, address indexed provider, bytes32 indexed ref, uint256 amount);
    event DisputeResolved(
        bytes32 indexed poolId,
        address indexed provider,
        bytes32 indexed ref,
        uint256 toProvider,
        uint256 toPayer,
        bool byTimeout
    );

    // ------------------------------------------------------------------ why something was refused

    /// @notice A field of the terms cannot be accepted. `field` is its name in ASCII.
    error BadTerms(bytes32 field, uint256 value);
    error ProvidersHashMismatch(bytes32 expected, bytes32 actual);
    /// @notice Zero, the token or this contract cannot be a provider: the money could never leave.
    error BadProvider(address provider);
    error PoolExists(bytes32 poolId);
    error NoSuchPool(bytes32 poolId);
    error ZeroAmount();
    /// @notice The token moved another amount than was signed (a fee on transfer, a hostile token).
    error DepositMismatch(uint256 expected, uint256 received);
    error DepositTooLarge(uint256 value, uint256 max);

    error NotPayer(address caller, address payer);
    error NotArbiter(address caller, address arbiter);
    error BadSignature(address expectedSigner);
    error DeadlinePassed(uint256 deadline, uint256 nowAt);
    error NonceUsed(bytes32 poolId, bytes32 nonce);

    error PoolEnded(uint256 endsAt, uint256 nowAt);
    error PoolClosing(uint256 endsAt);
    error NotEnded(uint256 endsAt, uint256 nowAt);

    /// @notice The packed bytes are not `5 + 20 * M + 6 * N` long with M and N at least one.
    error BadWire(uint256 length);
    error SequenceOverflow(uint256 firstSeq, uint256 count);
    error AlreadySettled(bytes32 poolId, uint256 seq);
    error BadProviderIndex(uint256 seq, uint256 index, uint256 providers);
    error ZeroRecord(uint256 seq);
    error RecordOverCap(uint256 seq, uint256 amount, uint256 cap);
    error ProviderNotAllowed(bytes32 poolId, address provider);
    /// @notice A provider is listed in the batch and has no record in it.
    error UnusedProvider(address provider);
    error WindowOverCap(uint256 spent, uint256 cap);
    error InsufficientFree(uint256 wanted, uint256 free);

    error DisputeOverPending(uint256 amount, uint256 pending);
    error RefUsed(bytes32 poolId, address provider, bytes32 ref);
    error NoOpenDispute(bytes32 poolId, address provider, bytes32 ref);
    error RulingOverDispute(uint256 toProvider, uint256 amount);
    error RulingTooLate(uint256 timeoutAt, uint256 nowAt);
    error TimeoutTooEarly(uint256 timeoutAt, uint256 nowAt);

    error NothingToWithdraw(bytes32 poolId, address provider);
    error NothingToReclaim(bytes32 poolId);
    error NoFees();

    // ------------------------------------------------------------------ deposits

    /// @notice Opens a pool with the payer's one ERC-3009 `receiveWithAuthorization` signature, whose nonce is
    /// the pool's id. Anyone may send it: the outcome is the same.
    function openPool(
        Terms calldata terms,
        address[] calldata providers,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes calldata signature
    ) external returns (bytes32 poolId);

    /// @notice Adds money to an open pool, from anyone who signs an ERC-3009 `receiveWithAuthorization` whose nonce
    /// is `topUpNonce(poolId, nonceSalt)`. Refused from the close request on.
    function topUp(
        bytes32 poolId,
        uint256 value,
        address from,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonceSalt,
        bytes calldata signature
    ) external;

    // ------------------------------------------------------------------ the allow-list

    /// @notice Adds providers; only the payer, only while the pool takes batches. Naming one again is no error.
    function allowProviders(bytes32 poolId, address[] calldata providers) external;

    /// @notice The same, by the payer's EIP-712 signature over
    /// `AllowProviders(bytes32 poolId,address[] providers,bytes32 nonce,uint64 deadline)`; a nonce works once per pool.
    function allowProvidersWithSig(
        bytes32 poolId,
        address[] calldata providers,
        bytes32 nonce,
        uint64 deadline,
        bytes calldata signature
    ) external;

    // ------------------------------------------------------------------ settlement

    /// @notice Credits one signed batch; anyone may land it. All of it or nothing.
    /// @param packed `u32 firstSeq | u8 M | M x address | N x (u8 providerIdx, u40 amount)`, big endian, no padding.
    /// Record i has sequence number `firstSeq + i`, and a sequence number settles once per pool. Every listed
    /// provider must have a record, and no record may be zero.
    /// @param root Merkle root of the batch's leaves, kept in the event only
    /// @param deadline last second at which the batch may land
    /// @param signature the authorizer's, over `Batch(bytes32 poolId,bytes packed,bytes32 root,uint64 deadline)`
    function settle(bytes32 poolId, bytes calldata packed, bytes32 root, uint64 deadline, bytes calldata signature)
        external;

    /// @notice Pays a provider all that has matured, less the fee; anyone may call, only the provider is paid.
    function withdraw(bytes32 poolId, address provider) external;

    /// @notice Pays the accrued fees to the fee recipient; anyone may call.
    function withdrawFees() external;

    // ------------------------------------------------------------------ disputes

    /// @notice The payer moves unmatured money of a provider's line aside until a ruling. Matured money cannot be
    /// touched. The money that matures first is taken first, so what stays is never held for less than W.
    /// @param ref names the dispute; works once per pool and provider
    function dispute(bytes32 poolId, address provider, uint64 amount, bytes32 ref) external;

    /// @notice The same, by the payer's EIP-712 signature over
    /// `Dispute(bytes32 poolId,address provider,uint64 amount,bytes32 ref,uint64 deadline)`; `ref` is its nonce.
    function disputeWithSig(
        bytes32 poolId,
        address provider,
        uint64 amount,
        bytes32 ref,
        uint64 deadline,
        bytes calldata signature
    ) external;

    /// @notice The arbiter splits a dispute: `toProvider` matures at once, the rest is the payer's free money again.
    function resolve(bytes32 poolId, address provider, bytes32 ref, uint64 toProvider) external;

    /// @notice After 14 days without a ruling all of it is the provider's: the batch carried the payer side's word.
    function resolveByTimeout(bytes32 poolId, address provider, bytes32 ref) external;

    // ------------------------------------------------------------------ the way out

    /// @notice The payer ends the pool `closeDelay` from now, or at expiry if that is sooner.
    function requestClose(bytes32 poolId) external;

    /// @notice The same, by the payer's EIP-712 signature over `RequestClose(bytes32 poolId,uint64 deadline)`. A pool
    /// closes once, so it needs no nonce.
    function requestCloseWithSig(bytes32 poolId, uint64 deadline, bytes calldata signature) external;

    /// @notice Pays the free money of an ended pool to its payer; anyone may call, and again when a dispute
    /// returned money later.
    function reclaim(bytes32 poolId) external;

    // ------------------------------------------------------------------ views

    function poolIdOf(Terms calldata terms) external view returns (bytes32);
    /// @notice The ERC-3009 nonce of a top-up: the EIP-712 digest of `TopUp(bytes32 poolId,bytes32 nonceSalt)`.
    function topUpNonce(bytes32 poolId, bytes32 nonceSalt) external view returns (bytes32);
    function pool(bytes32 poolId) external view returns (PoolState memory);
    function lineOf(bytes32 poolId, address provider) external view returns (LineState memory);
    function disputeOf(bytes32 poolId, address provider, bytes32 ref) external view returns (DisputeState memory);
    function isSettled(bytes32 poolId, uint256 seq) external view returns (bool);
    /// @notice All the money that belongs to somebody here: free, lines, open disputes and fees.
    function totalHeld() external view returns (uint256);
    function fees() external view returns (uint256);
    /// @notice Whether the token balance covers `totalHeld`. A donation changes nothing.
    function solvent() external view returns (bool);
}
