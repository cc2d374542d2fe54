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
/// and the matured part of a line from the block times of these and the terms' `disputeWindow`.
interface IBudgetPool {
    // ------------------------------------------------------------------ what is agreed

    /// @notice What a payer accepts, once and for good. `poolId` is the EIP-712 digest of this struct (domain
    /// "BudgetPool", version "1", this chain, this contract) and is also the nonce of the payer's ERC-3009
    /// authorization, so one signature binds the deposit and the policy.
    /// @param payer who pays, may dispute and close, and gets the rest back; an account or an ERC-1271 contract
    /// @param authorizer whose EIP-712 signature every batch carries, until `setAuthorizer` names another; not zero
    /// @param arbiter who rules disputes; not the payer; zero only when `disputeWindow` is zero. It is not stored:
    /// `resolve` brings the terms, and only the right ones hash to the pool's id
    /// @param expiry first second at which nothing settles any more; after now, and within 32 bits (year 2106)
    /// @param closeDelay seconds between the payer's close request and the end, in which signed batches may land
    /// @param perRecordCap most that one record may carry (40 bits, as on the wire); zero is refused, because it
    /// could never settle
    /// @param windowCap most that settles within one window; zero is refused for the same reason
    /// @param windowLength seconds of a tumbling window `[k * length, (k + 1) * length)`; zero is refused. As
    /// windows tumble, two full caps may settle around one boundary. For "no window", name a length past expiry.
    /// @param disputeWindow W: a credit of epoch e (of length W) matures at the start of epoch e + 2, so it is
    /// held for at least W and at most 2 W (a ruling on a dispute may pay sooner). Zero matures at once and leaves
    /// nothing to dispute; at most 90 days.
    /// @param feeBps fee in basis points of what a provider withdraws, floored; at most 500
    /// @param providersHash keccak256(abi.encodePacked(address[])): each address padded to 32 bytes, no length
    /// @param salt anything; tells two pools of equal terms apart
    struct Terms {
        address payer;
        address authorizer;
        address arbiter;
        uint64 expiry;
        uint32 closeDelay;
        uint40 perRecordCap;
        uint56 windowCap;
        uint32 windowLength;
        uint32 disputeWindow;
        uint16 feeBps;
        bytes32 providersHash;
        bytes32 salt;
    }

    /// @notice A batch as its authorizer signed it; see `settle`.
    struct SignedBatch {
        bytes32 poolId;
        bytes packed;
        bytes32 root;
        uint64 deadline;
        bytes signature;
    }

    /// @notice One provider's money in one pool; see `withdraw`.
    struct Claim {
        bytes32 poolId;
        address provider;
    }

    // ------------------------------------------------------------------ what views answer

    /// @notice A pool as it is now. What is not here (arbiter, expiry, salt) is in the terms, which `PoolOpened` tells.
    /// @param authorizer whose batches land now; a requested change is in `nextAuthorizer`
    /// @param endsAt the terms' expiry, or earlier once a close was requested
    /// @param closing whether the payer has asked to close
    /// @param free what batches may still credit
    /// @param disputed what open disputes hold
    /// @param windowRemaining what the current window still lets through
    struct PoolState {
        address payer;
        address authorizer;
        uint64 endsAt;
        bool closing;
        uint32 closeDelay;
        uint40 perRecordCap;
        uint56 windowCap;
        uint32 windowLength;
        uint32 disputeWindow;
        uint16 feeBps;
        uint64 free;
        uint64 disputed;
        uint64 windowRemaining;
    }

    /// @notice A provider's money in a pool.
    /// @param allowed whether batches may credit it; false again once an ended pool's line was emptied
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

    /// @notice A dispute, from the second it was opened on.
    /// @param amount what was disputed (kept after the ruling)
    /// @param timeoutAt from this second the arbiter's say is over and `resolveByTimeout` pays the provider
    struct DisputeState {
        DisputeStatus status;
        uint64 amount;
        uint64 openedAt;
        uint64 timeoutAt;
    }

    // ------------------------------------------------------------------ what happened

    /// @notice A pool began with `deposit`; `terms` is all that was agreed, and hashes to `poolId`.
    event PoolOpened(bytes32 indexed poolId, address indexed payer, Terms terms, uint256 deposit);
    /// @notice `from` added `amount` to the pool's free money.
    event PoolToppedUp(bytes32 indexed poolId, address indexed from, uint256 amount);
    /// @notice Batches may credit these from now on.
    event ProvidersAllowed(bytes32 indexed poolId, address[] providers);
    /// @notice One batch landed: records `firstSeq .. firstSeq + count - 1`, `total` in all.
    /// @param root Merkle root over the batch's leaves
    /// (poolId, seq, paymentId, provider, amount, taskHash); not checked here, published for whoever checks.
    event BatchSettled(bytes32 indexed poolId, uint256 firstSeq, uint256 count, uint256 total, bytes32 root);
    /// @notice The net credit of one provider in the batch that starts at `firstSeq`.
    event Credited(bytes32 indexed poolId, address indexed provider, uint256 amount, uint256 firstSeq);
    /// @notice `settleMany` left one batch out, and why: the revert data of `settle`. Anyone can send a batch that must be
    /// refused, so this says nothing about the pool.
    event ItemRejected(bytes32 indexed id, bytes reason);
    /// @notice What had matured left: `net` to `to`, the provider or the payout address that it signed for.
    event Withdrawn(bytes32 indexed poolId, address indexed provider, address to, uint256 net, uint256 fee);
    /// @notice `withdrawMany` left one claim out, and why: the revert data of `withdraw`.
    event WithdrawalRejected(bytes32 indexed poolId, address indexed provider, bytes reason);
    /// @notice All accrued fees left.
    event FeesWithdrawn(address indexed to, uint256 amount);
    /// @notice The payer asked to close; nothing settles from `reclaimableAt` on.
    event CloseRequested(bytes32 indexed poolId, uint256 reclaimableAt);
    /// @notice The free money of an ended pool went back.
    event Reclaimed(bytes32 indexed poolId, address indexed payer, uint256 amount);
    /// @notice Pending money was set aside until a ruling.
    event Disputed(bytes32 indexed poolId, address indexed provider, bytes32 indexed ref, uint256 amount);
    /// @notice A dispute ended: by the arbiter, or by 14 days of silence.
    event DisputeResolved(
        bytes32 indexed poolId,
        address indexed provider,
        bytes32 indexed ref,
        uint256 toProvider,
        uint256 toPayer,
        bool byTimeout
    );
    /// @notice The payer named another authorizer; `applyAuthorizer` works from `effectiveAt` on. Zero: the payer took
    /// an earlier request back.
    event AuthorizerChangeRequested(bytes32 indexed poolId, address indexed next, uint256 effectiveAt);
    /// @notice Only this authorizer's batches land from now on.
    event AuthorizerChanged(bytes32 indexed poolId, address indexed authorizer);
    /// @notice A provider's money in this pool goes to `payout` from `effectiveAt` on.
    event PayoutChangeRequested(
        bytes32 indexed poolId, address indexed provider, address payout, uint256 effectiveAt
    );
    /// @notice The guardian stopped deposits, or let them in again.
    event DepositsPaused(bool paused);
    /// @notice The guardian set how much all pools together may hold after a deposit.
    event TvlCapSet(uint256 cap);

    // ------------------------------------------------------------------ why something was refused

    /// @notice A field of the terms (or of the deployment) cannot be accepted. `field` is its name in ASCII.
    error BadTerms(bytes32 field, uint256 value);
    /// @notice The list is not the one that the terms commit to.
    error ProvidersHashMismatch(bytes32 expected, bytes32 actual);
    /// @notice Zero, the token or this contract cannot be a provider: the money could never leave.
    error BadProvider(address provider);
    /// @notice These terms were opened before. Another salt makes another pool.
    error PoolExists(bytes32 poolId);
    /// @notice No pool has this id; for `resolve`, no pool has these terms.
    error NoSuchPool(bytes32 poolId);
    /// @notice A deposit or a dispute of nothing.
    error ZeroAmount();
    /// @notice The token moved another amount than was signed (a fee on transfer, a hostile token).
    error DepositMismatch(uint256 expected, uint256 received);
    /// @notice The pool's free money would pass what it can count; at most `max` fits.
    error DepositTooLarge(uint256 value, uint256 max);
    /// @notice The guardian has stopped deposits. Everything else goes on.
    error DepositsArePaused();
    /// @notice With this deposit all pools together would hold `total`, more than the cap.
    error TvlCapExceeded(uint256 total, uint256 cap);

    /// @notice Only the payer may do this.
    error NotPayer(address caller, address payer);
    /// @notice Only the arbiter of the terms may rule.
    error NotArbiter(address caller, address arbiter);
    /// @notice Only the guardian may do this.
    error NotGuardian(address caller, address guardian);
    /// @notice The signature is not `expectedSigner`'s over exactly these values, on this chain, for this contract; or its
    /// ERC-1271 wallet needs more than 400,000 gas to say so.
    error BadSignature(address expectedSigner);
    /// @notice The signature was good until `deadline`, inclusive.
    error DeadlinePassed(uint256 deadline, uint256 nowAt);
    /// @notice This signer has used this nonce before, in whatever call.
    error NonceUsed(address signer, bytes32 nonce);

    /// @notice The pool takes no more of this from `endsAt` on.
    error PoolEnded(uint256 endsAt, uint256 nowAt);
    /// @notice The payer has asked to close before.
    error PoolClosing(uint256 endsAt);
    /// @notice The payer's money can be reclaimed from `endsAt` on.
    error NotEnded(uint256 endsAt, uint256 nowAt);

    /// @notice The packed bytes are not `5 + 20 * M + 6 * N` long with M and N at least one.
    error BadWire(uint256 length);
    /// @notice A sequence number has 32 bits.
    error SequenceOverflow(uint256 firstSeq, uint256 count);
    /// @notice Record `seq` has settled before; nothing settles twice.
    error AlreadySettled(bytes32 poolId, uint256 seq);
    /// @notice Record `seq` names a provider that the batch does not list.
    error BadProviderIndex(uint256 seq, uint256 index, uint256 providers);
    /// @notice Record `seq` carries nothing.
    error ZeroRecord(uint256 seq);
    /// @notice Record `seq` carries more than the terms let one record carry.
    error RecordOverCap(uint256 seq, uint256 amount, uint256 cap);
    /// @notice The payer has not allowed this provider.
    error ProviderNotAllowed(bytes32 poolId, address provider);
    /// @notice A provider is listed in the batch and has no record in it.
    error UnusedProvider(address provider);
    /// @notice The window would let `spent` through, and its cap is `cap`.
    error WindowOverCap(uint256 spent, uint256 cap);
    /// @notice The batch wants more than the pool has free.
    error InsufficientFree(uint256 wanted, uint256 free);
    /// @notice Item `index` of `settleMany` or `withdrawMany` failed for want of gas: send the whole again with more.
    error ItemOutOfGas(uint256 index);

    /// @notice Only what is pending can be disputed; what has matured is the provider's.
    error DisputeOverPending(uint256 amount, uint256 pending);
    /// @notice A dispute's name works once for a pool and provider.
    error RefUsed(bytes32 poolId, address provider, bytes32 ref);
    /// @notice No dispute of this name waits for a ruling.
    error NoOpenDispute(bytes32 poolId, address provider, bytes32 ref);
    /// @notice A ruling splits what is disputed and no more.
    error RulingOverDispute(uint256 toProvider, uint256 amount);
    /// @notice The arbiter's say ended at `timeoutAt`; `resolveByTimeout` ends the dispute.
    error RulingTooLate(uint256 timeoutAt, uint256 nowAt);
    /// @notice The arbiter has until `timeoutAt`.
    error TimeoutTooEarly(uint256 timeoutAt, uint256 nowAt);

    /// @notice Nothing has matured; `lineOf` tells when something will.
    error NothingToWithdraw(bytes32 poolId, address provider);
    /// @notice The pool has nothing free.
    error NothingToReclaim(bytes32 poolId);
    /// @notice No fee has accrued.
    error NoFees();

    /// @notice Zero cannot sign a batch.
    error BadAuthorizer(address authorizer);
    /// @notice No change of the authorizer is waiting; for `setAuthorizer`, there is none to take back.
    error NoAuthorizerChange(bytes32 poolId);
    /// @notice The change works from `effectiveAt` on; batches signed before have until then.
    error AuthorizerChangeTooEarly(uint256 effectiveAt, uint256 nowAt);
    /// @notice Zero, the token or this contract cannot take payouts: the money could never leave.
    error BadPayout(address payout);

    // ------------------------------------------------------------------ deposits

    /// @notice Opens a pool with the payer's one ERC-3009 `receiveWithAuthorization` signature, whose nonce is
    /// the pool's id. Anyone may send it: the outcome is the same.
    /// @param terms what is agreed
    /// @param providers the first allow-list, whose hash is in the terms
    /// @param value the deposit
    /// @param validAfter the authorization works after this second
    /// @param validBefore and before this one
    /// @param signature the payer's, under the token's own EIP-712 domain
    /// @return poolId the EIP-712 digest of the terms
    function openPool(
        Terms calldata terms,
        address[] calldata providers,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes calldata signature
    ) external returns (bytes32 poolId);

    /// @notice Opens a pool, sent by the payer, with an ERC-2612 permit. A permit that somebody used before (or that
    /// is bad) is passed over: what counts is the allowance.
    /// @param deadline last second of the permit
    /// @param signature the payer's permit for this contract to spend `value`
    function openPoolWithPermit(
        Terms calldata terms,
        address[] calldata providers,
        uint256 value,
        uint256 deadline,
        bytes calldata signature
    ) external returns (bytes32 poolId);

    /// @notice Opens a pool, sent by the payer, out of an allowance that the token knows already.
    function openPoolDirect(Terms calldata terms, address[] calldata providers, uint256 value)
        external
        returns (bytes32 poolId);

    /// @notice Adds money to an open pool, from anyone who signs an ERC-3009 `receiveWithAuthorization` whose nonce
    /// is `topUpNonce(poolId, nonceSalt)`. Refused from the close request on.
    /// @param from whose money it is; the pool's payer gets it back all the same
    /// @param nonceSalt anything; tells two top-ups of a pool apart
    function topUp(
        bytes32 poolId,
        uint256 value,
        address from,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonceSalt,
        bytes calldata signature
    ) external;

    /// @notice Adds the caller's money to an open pool, out of an allowance. Refused from the close request on.
    function topUpDirect(bytes32 poolId, uint256 value) external;

    // ------------------------------------------------------------------ the allow-list

    /// @notice Adds providers; only the payer, only while the pool takes batches. Naming one again is no error.
    function allowProviders(bytes32 poolId, address[] calldata providers) external;

    /// @notice The same, by the payer's EIP-712 signature over
    /// `AllowProviders(bytes32 poolId,address[] providers,bytes32 nonce,uint64 deadline)`; a signer's nonce works once.
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

    /// @notice Settles several batches, of whichever pools; one that is refused leaves no trace but `ItemRejected`.
    /// @dev Each item may use its share of the gas that is left, and a signer's contract 400,000 of it: what it burns is
    /// its own item's. Send heavy batches last, or gas for as many of the heaviest and one more.
    function settleMany(SignedBatch[] calldata batches) external;

    /// @notice Pays a provider all that has matured, less the fee; anyone may call, only the provider is paid (or the
    /// payout address that it signed for).
    function withdraw(bytes32 poolId, address provider) external;

    /// @notice Withdraws several; one that is refused (nothing matured, a blacklisted receiver) leaves no trace but
    /// `WithdrawalRejected`.
    function withdrawMany(Claim[] calldata claims) external;

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
    /// @param terms the pool's own, which say who the arbiter is
    function resolve(Terms calldata terms, address provider, bytes32 ref, uint64 toProvider) external;

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

    // ------------------------------------------------------------------ keys that change

    /// @notice The payer names another authorizer, which `applyAuthorizer` can put in place from `closeDelay` from now on:
    /// batches signed before have that long to land. From then on anyone may apply it at any moment, so a batch of the
    /// old authorizer has no notice any more: whoever waits for one should apply a change that is due, and ask for a new
    /// signature. Another request takes the place of the first; naming the current authorizer takes it back, if
    /// nobody has applied it meanwhile.
    function setAuthorizer(bytes32 poolId, address next) external;

    /// @notice The same, by the payer's EIP-712 signature over
    /// `SetAuthorizer(bytes32 poolId,address next,bytes32 nonce,uint64 deadline)`; a signer's nonce works once.
    function setAuthorizerWithSig(
        bytes32 poolId,
        address next,
        bytes32 nonce,
        uint64 deadline,
        bytes calldata signature
    ) external;

    /// @notice Puts the requested authorizer in place once its time has come; anyone may call.
    function applyAuthorizer(bytes32 poolId) external;

    /// @notice The calling provider has its money in this pool paid to another address, from `PAYOUT_DELAY` from now
    /// on: long enough to see it and to name one's own again.
    function setPayout(bytes32 poolId, address payout) external;

    /// @notice The same, by the provider's EIP-712 signature over
    /// `SetPayout(bytes32 poolId,address provider,address payout,bytes32 nonce,uint64 deadline)`; a signer's nonce works
    /// once.
    function setPayoutWithSig(
        bytes32 poolId,
        address provider,
        address payout,
        bytes32 nonce,
        uint64 deadline,
        bytes calldata signature
    ) external;

    // ------------------------------------------------------------------ the guardian

    /// @notice Stops deposits, or lets them in again. Nothing else can be stopped, by anyone.
    function pauseDeposits(bool paused) external;

    /// @notice Sets how much all pools together may hold after a deposit. What is here already stays, and may leave.
    function setTvlCap(uint88 cap) external;

    // ------------------------------------------------------------------ views

    /// @notice The id that these terms have or would have.
    function poolIdOf(Terms calldata terms) external view returns (bytes32);
    /// @notice The ERC-3009 nonce of a top-up: the EIP-712 digest of `TopUp(bytes32 poolId,bytes32 nonceSalt)`.
    function topUpNonce(bytes32 poolId, bytes32 nonceSalt) external view returns (bytes32);
    /// @notice A pool as it is now; reverts with `NoSuchPool`.
    function pool(bytes32 poolId) external view returns (PoolState memory);
    /// @notice A provider's money as it is now; a stranger's line is empty.
    function lineOf(bytes32 poolId, address provider) external view returns (LineState memory);
    /// @notice A dispute by its name; empty when there never was one.
    function disputeOf(bytes32 poolId, address provider, bytes32 ref) external view returns (DisputeState memory);
    /// @notice Whether the record with this sequence number has settled.
    function isSettled(bytes32 poolId, uint256 seq) external view returns (bool);
    /// @notice The authorizer that waits, and from when on it can be put in place; zeros when none waits.
    function nextAuthorizer(bytes32 poolId) external view returns (address next, uint64 effectiveAt);
    /// @notice Where a withdrawal would pay now, and the change that waits, if any.
    function payoutOf(bytes32 poolId, address provider)
        external
        view
        returns (address payout, address next, uint64 effectiveAt);
    /// @notice Whether a signer has used a nonce.
    function nonceUsed(address signer, bytes32 nonce) external view returns (bool);
    /// @notice All the money that belongs to somebody here: free, lines, open disputes and fees.
    function totalHeld() external view returns (uint256);
    /// @notice The part of it that `withdrawFees` would pay.
    function fees() external view returns (uint256);
    /// @notice Whether the token balance covers `totalHeld`. A donation changes nothing.
    function solvent() external view returns (bool);
    /// @notice How much all pools together may hold after a deposit.
    function tvlCap() external view returns (uint256);
    /// @notice Whether the guardian has stopped deposits.
    function depositsPaused() external view returns (bool);
}
