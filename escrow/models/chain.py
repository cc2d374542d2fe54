"""What goes to the chain and what came from it. Fields, constraints and allowed moves; no behaviour."""

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from escrow.models.ledger import Account
from escrow.models.pools import Party, Pool
from escrow.models.types import Moves, UuidV7


class Batch(models.Model):
    """Debts of one pool, netted, signed once and settled in one chain transaction."""

    class Status(models.TextChoices):
        SIGNED = "signed"
        SETTLED = "settled"
        VOID = "void"

    MOVES: ClassVar[Moves] = {Status.SIGNED: {Status.SETTLED, Status.VOID}, Status.SETTLED: set(), Status.VOID: set()}

    id = models.UUIDField(primary_key=True, editable=False, db_default=UuidV7())
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="batches", db_index=False)
    account = models.OneToOneField(Account, on_delete=models.PROTECT, related_name="batch")
    status = models.CharField(max_length=7, choices=Status, default=Status.SIGNED)
    first_seq = models.PositiveIntegerField()
    packed = models.BinaryField()
    root = models.CharField(max_length=66)
    signature = models.BinaryField()
    deadline = models.DateTimeField()
    """Until then anyone may land the batch, so until then its money stays in ``settling:<id>`` whatever happens."""
    created_at = models.DateTimeField(db_default=Now())
    settled_at = models.DateTimeField(null=True)
    action = models.ForeignKey("ChainAction", on_delete=models.PROTECT, null=True, related_name="batches")
    """The chain action that carries it, alone or with others; none while it waits for one."""
    turns = models.PositiveSmallIntegerField(default=0)
    """How often the contract has refused it, asked or sent: each time it goes with fewer others, and then alone."""
    next_at = models.DateTimeField(db_default=Now())
    reason = models.TextField(blank=True)
    """Why the contract refused it the last time."""

    class Meta:
        verbose_name_plural = "batches"
        indexes = (models.Index(fields=["next_at"], name="batch_waiting", condition=Q(status="signed")),)
        constraints = (models.UniqueConstraint(name="batch_first_seq_once", fields=["pool", "first_seq"]),)

    def __str__(self) -> str:
        return f"batch {self.id}"


class BatchRecord(models.Model):
    """One line of a batch on the wire: an invoice, or all small payments of one party netted."""

    batch = models.ForeignKey(Batch, on_delete=models.PROTECT, related_name="records", db_index=False)
    party = models.ForeignKey(Party, on_delete=models.PROTECT, related_name="records")
    seq = models.PositiveIntegerField()
    amount_micros = models.BigIntegerField()

    class Meta:
        constraints = (
            models.UniqueConstraint(name="record_seq_once", fields=["batch", "seq"]),
            models.CheckConstraint(name="record_positive", condition=Q(amount_micros__gt=0)),
        )

    def __str__(self) -> str:
        return f"record {self.seq} of {self.batch}"


class ChainAction(models.Model):
    """One thing that must happen on chain: the outbox of the relay. Recorded before anything is signed or sent."""

    class Kind(models.TextChoices):
        MINT = "mint"
        OPEN_POOL = "open_pool"
        TOP_UP = "top_up"
        ALLOW_PROVIDERS = "allow_providers"
        SETTLE = "settle"
        WITHDRAW = "withdraw"
        WITHDRAW_FEES = "withdraw_fees"
        DISPUTE = "dispute"
        RESOLVE = "resolve"
        RESOLVE_BY_TIMEOUT = "resolve_by_timeout"
        REQUEST_CLOSE = "request_close"
        RECLAIM = "reclaim"

    class Status(models.TextChoices):
        PLANNED = "planned"
        SIGNED = "signed"
        BROADCAST = "broadcast"
        MINED = "mined"
        SAFE = "safe"
        FINAL = "final"
        REVERTED = "reverted"
        PARKED = "parked"
        DROPPED = "dropped"

    MOVES: ClassVar[Moves] = {
        Status.PLANNED: {Status.SIGNED, Status.PARKED, Status.DROPPED},
        Status.SIGNED: {Status.BROADCAST, Status.MINED, Status.REVERTED},
        Status.BROADCAST: {Status.MINED, Status.REVERTED},
        Status.MINED: {Status.SAFE, Status.FINAL, Status.BROADCAST, Status.REVERTED},
        Status.SAFE: {Status.FINAL, Status.BROADCAST, Status.REVERTED},
        Status.FINAL: set(),
        Status.REVERTED: set(),
        Status.PARKED: {Status.PLANNED, Status.DROPPED},
        Status.DROPPED: set(),  # nothing was signed: there was nothing left to do, or it was given up and told as failed
    }
    ENDED: ClassVar = (Status.FINAL, Status.REVERTED, Status.PARKED, Status.DROPPED)
    UNMINED: ClassVar = (Status.SIGNED, Status.BROADCAST)
    """What has signed bytes that no block has: one of these may be sent again, paid better or cancelled."""
    WAITING: ClassVar = (Status.PLANNED, *UNMINED)
    """What the chain has not taken yet."""
    IN_FLIGHT: ClassVar = (Status.SIGNED, Status.BROADCAST, Status.MINED, Status.SAFE)
    LIVE: ClassVar = (Status.PLANNED, *IN_FLIGHT)
    """What the relay still has to bring to its end."""

    id = models.BigAutoField(primary_key=True)
    kind = models.CharField(max_length=20, choices=Kind)
    status = models.CharField(max_length=9, choices=Status, default=Status.PLANNED)
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, null=True, related_name="chain_actions")
    subject_id = models.UUIDField(null=True)
    """What it is about: a party or a dispute, as the kind says. The batches that it carries name it."""
    shard = models.PositiveSmallIntegerField(default=0)
    """Which relayer sends it: always the same one for a pool, so that what is done for a pool is mined in its order."""
    request_id = models.CharField(max_length=64, blank=True)
    """Of the request that asked for it, for the logs."""
    dedupe_key = models.CharField(max_length=150, unique=True)
    params = models.JSONField(default=dict)
    attempts = models.PositiveIntegerField(default=0)
    next_at = models.DateTimeField(db_default=Now())
    nonce = models.PositiveBigIntegerField(null=True)
    signer_address = models.CharField(max_length=42, blank=True)
    calldata = models.BinaryField(null=True)
    gas_limit = models.PositiveBigIntegerField(null=True)
    tx_hash = models.CharField(max_length=66, blank=True)
    """Of the attempt that was mined; before that, of the last one signed."""
    gas_used = models.PositiveBigIntegerField(null=True)
    gas_price_wei = models.PositiveBigIntegerField(null=True)
    """Expected when it was signed, paid once it is mined."""
    block_number = models.PositiveBigIntegerField(null=True)
    block_hash = models.CharField(max_length=66, blank=True)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(db_default=Now())
    mined_at = models.DateTimeField(null=True)

    class Meta:
        indexes = (
            models.Index(
                fields=["next_at"],
                name="action_due",
                condition=Q(status__in=["planned", "signed", "broadcast", "mined", "safe"]),
            ),
            models.Index(fields=["created_at"], name="action_parked", condition=Q(status="parked")),
            models.Index(fields=["mined_at"], name="action_mined", condition=Q(mined_at__isnull=False)),
        )
        constraints = (models.UniqueConstraint(name="action_nonce_once", fields=["signer_address", "nonce"]),)

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


class Attempt(models.Model):
    """One signed chain transaction of an action. Its bytes are committed before they are first sent."""

    REPLACED: ClassVar = "replaced"
    """The outcome of an attempt once another of the same nonce is final."""

    action = models.ForeignKey(ChainAction, on_delete=models.PROTECT, related_name="signed_attempts")
    tx_hash = models.CharField(max_length=66, unique=True)
    raw = models.BinaryField()
    max_fee_wei = models.PositiveBigIntegerField()
    tip_wei = models.PositiveBigIntegerField()
    outcome = models.CharField(max_length=20, blank=True)
    """What the node said when it was last sent, or `REPLACED`."""
    cancels = models.BooleanField(default=False)
    """Whether it only uses the nonce up: an empty chain transaction of the signer to itself."""
    created_at = models.DateTimeField(db_default=Now())
    sent_at = models.DateTimeField(null=True)
    """When it was sent for the first time: what is sent again has waited since then."""

    def __str__(self) -> str:
        return self.tx_hash


class SignerNonce(models.Model):
    """The next nonce of a signer: ours to count, never the node's to say."""

    chain_id = models.BigIntegerField()
    address = models.CharField(max_length=42)
    next_nonce = models.PositiveBigIntegerField()
    stopped_reason = models.TextField(blank=True)
    """Set when the chain shows a nonce that is none of ours: nothing more is signed until a person clears it."""

    class Meta:
        constraints = (models.UniqueConstraint(name="signer_once", fields=["chain_id", "address"]),)

    def __str__(self) -> str:
        return f"{self.address} on {self.chain_id}"


class ChainCursor(models.Model):
    """How far the indexer has read: up to its block everything is final and in the ledger."""

    chain_id = models.BigIntegerField()
    contract_address = models.CharField(max_length=42)
    block_number = models.BigIntegerField()
    block_hash = models.CharField(max_length=66)
    block_time = models.DateTimeField()
    head_number = models.BigIntegerField(default=0)
    """The newest block that was read, final or not; while its hash is the chain's, only newer ones are read."""
    head_hash = models.CharField(max_length=66, blank=True)
    head_time = models.DateTimeField(null=True)
    """Of the newest block that a node has told of; the longer ago, the longer has the chain stood still for us."""
    span = models.PositiveIntegerField(default=0)
    """How many blocks the node was last asked for at once; fewer after it refused, zero before the first time."""
    read_at = models.DateTimeField()
    stopped_reason = models.TextField(blank=True)
    paused_at = models.DateTimeField(null=True)
    """Since when `escrow_judge` lets nothing new be spent from the contract's pools (`escrow.pausing`)."""

    class Meta:
        constraints = (models.UniqueConstraint(name="cursor_once", fields=["chain_id", "contract_address"]),)

    def __str__(self) -> str:
        return f"{self.contract_address} at {self.block_number}"


class ChainLog(models.Model):
    """An event of the contract, where it stands on the chain, and whether the ledger has taken it."""

    class Tier(models.TextChoices):
        MINED = "mined"
        SAFE = "safe"
        FINAL = "final"

    contract_address = models.CharField(max_length=42, default="")
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, null=True, related_name="chain_logs")
    """None for what is of no pool, or of one that others opened on the same contract."""
    event = models.CharField(max_length=40)
    args = models.JSONField()
    block_number = models.PositiveBigIntegerField()
    block_hash = models.CharField(max_length=66)
    block_time = models.DateTimeField(null=True)
    tx_hash = models.CharField(max_length=66)
    log_index = models.PositiveIntegerField()
    tier = models.CharField(max_length=5, choices=Tier, default=Tier.MINED)
    ref = models.CharField(max_length=100, default="")
    """What its transfers name. It stays when the log comes to stand elsewhere."""
    deposit_micros = models.BigIntegerField(null=True)
    """Of a deposit: the only thing that the ledger takes before it is final, and only so much of it."""
    waits_since = models.DateTimeField(null=True)
    """Since when a deposit waits to be final, because too much was taken that is not; its payer was told."""
    applied_at = models.DateTimeField(null=True)
    """When the ledger took it."""
    orphaned_at = models.DateTimeField(null=True)
    """Since when the block of a deposit that was taken is gone: it stands nowhere, and nothing backs its money."""

    class Meta:
        indexes = (
            models.Index(fields=["block_number"], name="log_blocks"),
            models.Index(fields=["pool"], name="log_not_final", condition=Q(tier__in=["mined", "safe"])),
            models.Index(fields=["pool"], name="log_orphans", condition=Q(orphaned_at__isnull=False)),
        )
        constraints = (
            models.UniqueConstraint(
                name="log_place_once", fields=["block_hash", "log_index"], condition=Q(orphaned_at=None)
            ),
            models.UniqueConstraint(name="log_once", fields=["tx_hash", "log_index"], condition=Q(orphaned_at=None)),
            models.CheckConstraint(
                name="log_final_is_applied", condition=~Q(tier="final") | Q(applied_at__isnull=False)
            ),
            models.CheckConstraint(
                name="log_orphan_is_applied", condition=Q(orphaned_at=None) | Q(applied_at__isnull=False)
            ),
        )

    def __str__(self) -> str:
        return f"{self.event} {self.tx_hash}:{self.log_index}"
