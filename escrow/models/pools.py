"""Pools, the sessions inside them, and the parties they pay. Fields, constraints and allowed moves; no behaviour."""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.fields.json import KT
from django.db.models.functions import Cast, Now

from escrow.models.ledger import Account
from escrow.models.types import Moves, UuidV7


class Party(models.Model):
    """Who can be paid: one payout address on chain. The market's providers are parties to the money."""

    id = models.UUIDField(primary_key=True, editable=False, db_default=UuidV7())
    name = models.CharField(max_length=200)
    address = models.CharField(max_length=42, unique=True)
    """EIP-55 checksummed; unique, because the contract knows a provider by it."""
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name_plural = "parties"

    def __str__(self) -> str:
        return self.name


class Pool(models.Model):
    """One escrowed budget on chain. What it holds is in its accounts, never in a column here."""

    class Status(models.TextChoices):
        OPENING = "opening"
        OPEN = "open"
        CLOSING = "closing"
        CLOSED = "closed"
        FAILED = "failed"

    MOVES: ClassVar[Moves] = {
        Status.OPENING: {Status.OPEN, Status.FAILED},
        Status.OPEN: {Status.CLOSING, Status.CLOSED},
        Status.CLOSING: {Status.CLOSED},
        Status.CLOSED: set(),
        Status.FAILED: {Status.OPEN},  # the chain decides: a signed opening can still be carried out by anybody
    }

    id = models.UUIDField(primary_key=True, editable=False, db_default=UuidV7())
    payer_id = models.UUIDField(db_index=True)
    status = models.CharField(max_length=8, choices=Status, default=Status.OPENING)
    chain_id = models.BigIntegerField()
    contract_address = models.CharField(max_length=42)
    requested_micros = models.BigIntegerField()
    """The deposit asked for at opening; what arrived is what the chain said, in ``world:<id>``."""
    salt = models.CharField(max_length=66, unique=True)
    fee_bps = models.PositiveIntegerField()
    dispute_window_seconds = models.PositiveIntegerField()
    close_delay_seconds = models.PositiveIntegerField()
    terms = models.JSONField(null=True)
    """The signed terms, bound once by the relay, together with the two below."""
    pool_key = models.CharField(max_length=66, unique=True, null=True)
    payer_address = models.CharField(max_length=42, null=True)
    next_seq = models.PositiveIntegerField(default=0)
    """The next free sequence number of a batch record; dense, so that the contract's bitmap stays small."""
    reason = models.TextField(blank=True)
    frozen_at = models.DateTimeField(null=True)
    """Since when nothing new is spent from it: its payer has frozen everything, or a deposit has left the chain."""
    unbacked_at = models.DateTimeField(null=True)
    """Since when a deposit that was taken before it was final is not on the chain. That alone freezes with this very time."""
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    opened_at = models.DateTimeField(null=True)
    close_requested_at = models.DateTimeField(null=True)
    reclaimable_at = models.DateTimeField(null=True)
    closed_at = models.DateTimeField(null=True)

    class Meta:
        constraints = (
            models.CheckConstraint(
                name="pool_bound_when_open",
                condition=Q(status__in=["opening", "failed"]) | Q(pool_key__isnull=False, payer_address__isnull=False),
            ),
            models.CheckConstraint(name="pool_deposit_positive", condition=Q(requested_micros__gt=0)),
        )

    def __str__(self) -> str:
        return f"pool {self.id}"

    @property
    def key(self) -> bytes:
        """The contract's id of it. Raises ValueError before its terms are bound."""
        if self.pool_key is None:
            raise ValueError(f"{self} has no terms yet")
        return bytes.fromhex(self.pool_key[2:])

    @property
    def frozen_by_payer(self) -> bool:
        """Whether the payer has frozen it, whatever else has."""
        return self.frozen_at is not None and self.frozen_at != self.unbacked_at


class PoolProvider(models.Model):
    """A party on a pool's allow-list. ``allowed_at`` is empty until the chain has said so."""

    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="providers")
    party = models.ForeignKey(Party, on_delete=models.PROTECT, related_name="pools")
    initial = models.BooleanField(default=False)
    """Named in the terms, so allowed the moment the pool opens."""
    allowed_at = models.DateTimeField(null=True)

    class Meta:
        constraints = (models.UniqueConstraint(name="pool_provider_once", fields=["pool", "party"]),)

    def __str__(self) -> str:
        return f"{self.party} in {self.pool}"


def _amount_of(key: str) -> models.GeneratedField:
    """Return the column of one amount of the policy: the database reads it off the document, so they cannot differ."""
    usdc = Cast(KT(f"policy__{key}"), models.DecimalField(max_digits=20, decimal_places=6))
    micros = Cast(usdc * 1_000_000, models.BigIntegerField())
    return models.GeneratedField(expression=micros, output_field=models.BigIntegerField(null=True), db_persist=True)


class Session(models.Model):
    """A spending account inside a pool, under a policy. Its cap is the balance of its account."""

    class Status(models.TextChoices):
        OPEN = "open"
        PAUSED = "paused"
        CLOSED = "closed"

    MOVES: ClassVar[Moves] = {
        Status.OPEN: {Status.PAUSED, Status.CLOSED},
        Status.PAUSED: {Status.OPEN, Status.CLOSED},
        Status.CLOSED: set(),
    }

    id = models.UUIDField(primary_key=True, editable=False, db_default=UuidV7())
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="sessions")
    parent = models.ForeignKey("self", on_delete=models.PROTECT, null=True, related_name="children", db_index=False)
    """The session that gave it its budget, and that what it has left goes back to; without one, the pool."""
    account = models.OneToOneField(Account, on_delete=models.PROTECT, related_name="session")
    name = models.CharField(max_length=200, blank=True)
    status = models.CharField(max_length=8, choices=Status, default=Status.OPEN)
    policy = models.JSONField(default=dict)
    policy_version = models.PositiveIntegerField(default=1)
    max_per_tx_micros = _amount_of("max_per_tx")
    max_total_micros = _amount_of("max_total")
    max_per_hour_micros = _amount_of("max_per_hour")
    max_per_day_micros = _amount_of("max_per_day")
    max_tx_per_minute = models.GeneratedField(
        expression=Cast(KT("policy__max_tx_per_minute"), models.IntegerField()),
        output_field=models.IntegerField(null=True),
        db_persist=True,
    )
    approval_above_micros = _amount_of("approval_above")
    new_recipient_max_micros = _amount_of("new_recipient_max")
    checkpoints_micros = ArrayField(models.BigIntegerField(), default=list)
    """What it has left when each checkpoint of its policy is passed; reckoned anew with each change of budget or policy."""
    expires_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    closed_at = models.DateTimeField(null=True)

    class Meta:
        indexes = (
            models.Index(fields=["parent", "closed_at"], name="session_inside", condition=Q(parent__isnull=False)),
        )
        constraints = (models.CheckConstraint(name="session_not_its_own_parent", condition=~Q(parent=F("pk"))),)

    def __str__(self) -> str:
        return self.name or f"session {self.id}"


class SessionPolicy(models.Model):
    """A version of a session's policy, as it came into force. A trigger keeps it as it is."""

    session = models.ForeignKey(Session, on_delete=models.PROTECT, related_name="policies", db_index=False)
    version = models.PositiveIntegerField()
    policy = models.JSONField()
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = (models.UniqueConstraint(name="session_policy_once", fields=["session", "version"]),)

    def __str__(self) -> str:
        return f"policy {self.version} of {self.session_id}"
