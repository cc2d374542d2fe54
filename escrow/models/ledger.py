"""The ledger's two tables. Lives here: fields and constraints. Writing them is `escrow.ledger`'s alone.

Money in a state is money in an account, so there is no amount column to keep in step anywhere else. The sums of an account
are kept by a trigger on the transfers (migration 0002): nothing else can write them, and transfers can only be added.
"""

from typing import ClassVar

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now


class Account(models.Model):
    """A place where money is. ``code`` is its address: ``session:<id>``, ``payable:<pool>:<party>``, ``world:<pool>``."""

    class Kind(models.TextChoices):
        WORLD = "world"
        """Outside the contract: what it has sent is what the contract has received."""
        POOL = "pool"
        SESSION = "session"
        HOLD = "hold"
        PAYABLE = "payable"
        SETTLING = "settling"
        CREDITED = "credited"
        DISPUTE = "dispute"
        """Money in dispute that the contract still counts as the pool's free money."""
        CONTESTED = "contested"
        """Money in a dispute that is open on chain."""
        FEES = "fees"

    IN_FREE: ClassVar = (Kind.POOL, Kind.SESSION, Kind.HOLD, Kind.PAYABLE, Kind.SETTLING, Kind.DISPUTE)
    """The kinds whose sum is what the contract calls the free money of a pool."""

    id = models.BigAutoField(primary_key=True)
    code = models.CharField(max_length=120, unique=True)
    kind = models.CharField(max_length=12, choices=Kind)
    pool = models.ForeignKey(
        "escrow.Pool", on_delete=models.PROTECT, null=True, related_name="accounts", db_index=False
    )
    party = models.ForeignKey("escrow.Party", on_delete=models.PROTECT, null=True, related_name="accounts")
    sent_micros = models.BigIntegerField(default=0)
    received_micros = models.BigIntegerField(default=0)
    sent_count = models.BigIntegerField(default=0)

    class Meta:
        indexes = (models.Index(fields=["pool", "kind"], name="account_pool_kind"),)
        constraints = (
            models.CheckConstraint(
                name="account_never_overdrawn",
                condition=Q(kind="world") | Q(sent_micros__lte=F("received_micros")),
                violation_error_message="An account cannot send more than it has received.",
            ),
            models.CheckConstraint(
                name="account_sums_not_negative",
                condition=Q(sent_micros__gte=0, received_micros__gte=0, sent_count__gte=0),
            ),
        )

    def __str__(self) -> str:
        return self.code

    @property
    def balance_micros(self) -> int:
        """What the account holds now, in micro-USDC; of `WORLD`, minus what the contract holds."""
        return self.received_micros - self.sent_micros


class Reason(models.TextChoices):
    """Why money moved. The words are those of the verbs."""

    DEPOSIT = "deposit"
    SESSION_OPEN = "session_open"
    SESSION_TOP_UP = "session_top_up"
    SESSION_CLOSE = "session_close"
    PAYMENT = "payment"
    REFUND = "refund"
    HOLD = "hold"
    CAPTURE = "capture"
    RELEASE = "release"
    DISPUTE = "dispute"
    RULING = "ruling"
    SETTLE = "settle"
    SETTLE_VOID = "settle_void"
    CREDIT = "credit"
    PAYOUT = "payout"
    FEE = "fee"
    FEE_PAYOUT = "fee_payout"
    RECLAIM_SWEEP = "reclaim_sweep"
    RECLAIM = "reclaim"


class Transfer(models.Model):
    """One step of money, from one account to another. Never changed, never deleted: a correction is another transfer."""

    id = models.BigAutoField(primary_key=True)
    # The trigger that moves the money refuses an account that is not there, for a whole statement at once; a foreign key
    # would look each row up again. Accounts are never deleted.
    sender = models.ForeignKey(
        Account, on_delete=models.PROTECT, related_name="transfers_out", db_index=False, db_constraint=False
    )
    receiver = models.ForeignKey(
        Account, on_delete=models.PROTECT, related_name="transfers_in", db_index=False, db_constraint=False
    )
    amount_micros = models.BigIntegerField()
    reason = models.CharField(max_length=16, choices=Reason)
    ref = models.CharField(max_length=100)
    """What caused it: the id of a payment, batch or dispute, or ``<chain transaction hash>:<log index>``."""
    sender_sent_micros = models.BigIntegerField()
    """All that the sender has ever sent, this included: what it sent since any moment is one subtraction."""
    sender_nth = models.BigIntegerField()
    """Which of its sender's transfers it is, from 1."""
    created_at = models.DateTimeField(db_default=Now())
    """When the accounts were locked for it, so that an account's transfers are in the order of their times."""

    class Meta:
        indexes = (
            models.Index(fields=["sender", "created_at", "id"], name="transfer_sender"),
            models.Index(
                # Every payment but those to `payable` accounts, which nobody lists: the payments themselves are listed.
                fields=["receiver", "created_at", "id"],
                name="transfer_receiver",
                condition=~Q(reason="payment"),
            ),
            models.Index(
                fields=["sender", "created_at"],
                name="transfer_handed_on",
                condition=Q(reason__in=["session_open", "session_top_up"]),
            ),
            models.Index(
                fields=["receiver"], name="transfer_budget", condition=Q(reason__in=["session_open", "session_top_up"])
            ),
        )
        constraints = (
            models.CheckConstraint(name="transfer_positive", condition=Q(amount_micros__gt=0)),
            models.CheckConstraint(name="transfer_moves", condition=~Q(sender=F("receiver"))),
            models.UniqueConstraint(name="transfer_once", fields=["ref", "reason", "sender", "receiver"]),
        )

    def __str__(self) -> str:
        return f"{self.reason} {self.ref}"
