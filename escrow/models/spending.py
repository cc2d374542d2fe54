"""What sessions spend on: payments, holds, invoices, disputes. Fields, constraints and allowed moves; no behaviour."""

from typing import ClassVar

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from escrow.models.ledger import Account
from escrow.models.pools import Party, Pool, Session
from escrow.models.types import Moves, UuidV7

DUE = F("amount_micros") - F("deducted_micros")
"""`Payment.due_micros` in the database, where many are added up."""


class Payment(models.Model):
    """One debt to one party: an immediate call, an approved invoice, or a provider's part of a ruling."""

    class Kind(models.TextChoices):
        CALL = "call"
        INVOICE = "invoice"
        RULING = "ruling"

    class Status(models.TextChoices):
        PAYABLE = "payable"
        SETTLING = "settling"
        SETTLED = "settled"
        REFUNDED = "refunded"
        OFFSET = "offset"
        """Nothing of it will land: what was still owed for it has paid for refunds of other payments."""
        DISPUTED = "disputed"

    MOVES: ClassVar[Moves] = {
        Status.PAYABLE: {Status.SETTLING, Status.REFUNDED, Status.OFFSET, Status.DISPUTED},
        Status.SETTLING: {Status.SETTLED, Status.PAYABLE},
        Status.SETTLED: set(),
        Status.REFUNDED: set(),
        Status.OFFSET: {Status.REFUNDED},
        Status.DISPUTED: set(),
    }

    id = models.UUIDField(primary_key=True, editable=False, db_default=UuidV7())
    session = models.ForeignKey(Session, on_delete=models.PROTECT, related_name="payments", db_index=False)
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="payments", db_index=False)
    party = models.ForeignKey(Party, on_delete=models.PROTECT, related_name="payments", db_index=False)
    kind = models.CharField(max_length=8, choices=Kind, default=Kind.CALL)
    status = models.CharField(max_length=8, choices=Status, default=Status.PAYABLE)
    to = models.CharField(max_length=261)
    amount_micros = models.BigIntegerField()
    refunded_micros = models.BigIntegerField(default=0, db_default=0)
    """What of it has gone back to its payer's side, before or after it landed."""
    deducted_micros = models.BigIntegerField(default=0, db_default=0)
    """What of the debt was given back before it went into a batch, as its own refund or in place of another payment's.
    From then on a trigger keeps it as it is, because the batch was signed for the rest.
    """
    metadata = models.JSONField(default=dict)
    idempotency_key = models.CharField(max_length=255)
    request_hash = models.BinaryField(max_length=32)
    remaining_micros = models.BigIntegerField()
    """What the session had left right after it: part of the answer, so that a repeated request gets the same one."""
    payer_id = models.UUIDField()
    """The pool's, for the payer's own list: with millions of payments a page must be a walk along one index."""
    capability = models.CharField(max_length=64, db_default="", default="")
    policy_version = models.PositiveIntegerField(null=True)
    """Under which version of the session's policy it was decided; empty where the decision was another's, as of a hold."""
    record = models.ForeignKey(
        "escrow.BatchRecord", on_delete=models.PROTECT, null=True, related_name="payments", db_index=False
    )
    redeemed_hash = models.CharField(max_length=64, blank=True)
    redeemed_at = models.DateTimeField(null=True)
    reason = models.TextField(blank=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = (
            models.Index(fields=["session", "id"], name="payment_session"),
            models.Index(fields=["party", "id"], name="payment_party"),
            models.Index(fields=["payer_id", "id"], name="payment_payer"),
            models.Index(fields=["record"], name="payment_record", condition=Q(record__isnull=False)),
            models.Index(fields=["pool", "created_at"], name="payment_due", condition=Q(status="payable")),
        )
        constraints = (
            models.UniqueConstraint(name="payment_once", fields=["session", "idempotency_key"]),
            models.CheckConstraint(name="payment_positive", condition=Q(amount_micros__gt=0)),
            models.CheckConstraint(
                name="payment_in_batch_when_settling",
                condition=Q(status__in=["settling", "settled"], record__isnull=False)
                | Q(status__in=["payable", "refunded", "offset", "disputed"], record__isnull=True),
            ),
            models.CheckConstraint(
                name="payment_refunded_at_most_once",
                condition=Q(refunded_micros__gte=0, refunded_micros__lte=F("amount_micros")),
            ),
            models.CheckConstraint(
                name="payment_used_up_when_gone",
                condition=Q(deducted_micros__gte=0)
                & (
                    Q(status__in=["refunded", "offset"], deducted_micros=F("amount_micros"))
                    | Q(
                        status__in=["payable", "settling", "settled", "disputed"],
                        deducted_micros__lt=F("amount_micros"),
                    )
                ),
            ),
            models.CheckConstraint(
                name="payment_refunded_as_a_whole",
                condition=~Q(status="refunded") | Q(refunded_micros=F("amount_micros")),
            ),
        )

    def __str__(self) -> str:
        return f"payment {self.id}"

    @property
    def due_micros(self) -> int:
        """What of it is to land, or has landed, on chain."""
        return self.amount_micros - self.deducted_micros

    @property
    def unrefunded_micros(self) -> int:
        """What of it has not gone back."""
        return self.amount_micros - self.refunded_micros


class Hold(models.Model):
    """Money of a session set aside for one party, in an account of its own.

    One with an ``expires_at`` is its buyer's to capture. One without belongs to a task or an invoice, and ends with that.
    """

    class Status(models.TextChoices):
        HELD = "held"
        CAPTURED = "captured"
        RELEASED = "released"

    MOVES: ClassVar[Moves] = {
        Status.HELD: {Status.CAPTURED, Status.RELEASED},
        Status.CAPTURED: set(),
        Status.RELEASED: set(),
    }

    id = models.UUIDField(primary_key=True, editable=False, db_default=UuidV7())
    session = models.ForeignKey(Session, on_delete=models.PROTECT, related_name="holds", db_index=False)
    party = models.ForeignKey(Party, on_delete=models.PROTECT, related_name="holds", db_index=False)
    payer_id = models.UUIDField()
    """The pool's, for the payer's own list."""
    account = models.OneToOneField(Account, on_delete=models.PROTECT, related_name="hold")
    payment = models.OneToOneField(Payment, on_delete=models.PROTECT, null=True, related_name="hold")
    """The debt that it was captured into; none while it is held, and none of what went into a dispute."""
    to = models.CharField(max_length=261)
    status = models.CharField(max_length=8, choices=Status, default=Status.HELD)
    metadata = models.JSONField(default=dict)
    expires_at = models.DateTimeField(null=True)
    capability = models.CharField(max_length=64, blank=True, default="")
    policy_version = models.PositiveIntegerField(null=True)
    """Under which version of the session's policy it was decided."""
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = (
            models.Index(fields=["session", "created_at", "id"], name="hold_session"),
            models.Index(fields=["party", "created_at", "id"], name="hold_party"),
            models.Index(fields=["payer_id", "created_at", "id"], name="hold_payer"),
            models.Index(fields=["session", "id"], name="hold_decided"),
            models.Index(fields=["payer_id", "id"], name="hold_decided_payer"),
            models.Index(
                fields=["expires_at"], name="hold_timer", condition=Q(status="held", expires_at__isnull=False)
            ),
        )
        constraints = (
            models.CheckConstraint(
                name="hold_captured_into_a_payment", condition=Q(payment__isnull=True) | Q(status="captured")
            ),
        )

    def __str__(self) -> str:
        return f"hold {self.id}"

    @property
    def amount_micros(self) -> int:
        """What was set aside: all that its account ever received, in micro-USDC."""
        return self.account.received_micros


class Invoice(models.Model):
    """A provider's claim on a hold, for finished work."""

    class Status(models.TextChoices):
        SUBMITTED = "submitted"
        REJECTED = "rejected"
        APPROVED = "approved"
        WITHDRAWN = "withdrawn"
        DISPUTED = "disputed"
        RULED = "ruled"

    MOVES: ClassVar[Moves] = {
        Status.SUBMITTED: {Status.APPROVED, Status.REJECTED, Status.WITHDRAWN, Status.DISPUTED},
        Status.REJECTED: {Status.APPROVED, Status.WITHDRAWN, Status.DISPUTED},
        Status.DISPUTED: {Status.RULED},
        Status.APPROVED: set(),
        Status.WITHDRAWN: set(),
        Status.RULED: set(),
    }

    id = models.UUIDField(primary_key=True, editable=False, db_default=UuidV7())
    session = models.ForeignKey(Session, on_delete=models.PROTECT, related_name="invoices", db_index=False)
    party = models.ForeignKey(Party, on_delete=models.PROTECT, related_name="invoices", db_index=False)
    hold = models.OneToOneField(Hold, on_delete=models.PROTECT, related_name="invoice")
    payment = models.OneToOneField(Payment, on_delete=models.PROTECT, null=True, related_name="invoice")
    to = models.CharField(max_length=261)
    number = models.CharField(max_length=64)
    task_ref = models.CharField(max_length=100, blank=True)
    amount_micros = models.BigIntegerField()
    memo = models.TextField(blank=True)
    deliverable = models.JSONField(default=dict)
    status = models.CharField(max_length=9, choices=Status, default=Status.SUBMITTED)
    reason = models.TextField(blank=True)
    review_by = models.DateTimeField()
    """When silence decides: a submitted invoice is approved, a rejected one goes to a dispute."""
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = (
            models.Index(fields=["session", "id"], name="invoice_session"),
            models.Index(fields=["party", "id"], name="invoice_party"),
            models.Index(fields=["review_by"], name="invoice_timer", condition=Q(status__in=["submitted", "rejected"])),
        )
        constraints = (
            models.UniqueConstraint(name="invoice_number_once", fields=["session", "party", "number"]),
            models.CheckConstraint(name="invoice_positive", condition=Q(amount_micros__gt=0)),
        )

    def __str__(self) -> str:
        return f"invoice {self.number}"


class Dispute(models.Model):
    """Money that two parties disagree on, until a person rules. Off chain while unsettled, else in the contract."""

    class Status(models.TextChoices):
        OPENING = "opening"
        OPEN = "open"
        ANSWERED = "answered"
        RULING = "ruling"
        RULED = "ruled"
        FAILED = "failed"

    MOVES: ClassVar[Moves] = {
        Status.OPENING: {Status.OPEN, Status.FAILED},
        Status.OPEN: {Status.ANSWERED, Status.RULING, Status.RULED},
        Status.ANSWERED: {Status.RULING, Status.RULED},
        Status.RULING: {Status.RULED},
        Status.RULED: set(),
        Status.FAILED: {Status.OPEN},  # the chain decides: a signed dispute can still be carried out by anybody
    }

    id = models.UUIDField(primary_key=True, editable=False, db_default=UuidV7())
    session = models.ForeignKey(Session, on_delete=models.PROTECT, related_name="disputes")
    party = models.ForeignKey(Party, on_delete=models.PROTECT, related_name="disputes")
    invoice = models.OneToOneField(Invoice, on_delete=models.PROTECT, null=True, related_name="dispute")
    payment = models.ForeignKey(Payment, on_delete=models.PROTECT, null=True, related_name="disputes")
    account = models.OneToOneField(Account, on_delete=models.PROTECT, related_name="dispute")
    on_chain = models.BooleanField(default=False)
    amount_micros = models.BigIntegerField()
    status = models.CharField(max_length=8, choices=Status, default=Status.OPEN)
    reason = models.TextField()
    answer = models.TextField(blank=True)
    to_provider_bps = models.PositiveIntegerField(null=True)
    to_provider_micros = models.BigIntegerField(null=True)
    ruling_reason = models.TextField(blank=True)
    ruled_by = models.CharField(max_length=150, blank=True)
    ruled_payment = models.OneToOneField(Payment, on_delete=models.PROTECT, null=True, related_name="ruling")
    answer_by = models.DateTimeField()
    rule_by = models.DateTimeField()
    created_at = models.DateTimeField(db_default=Now())
    answered_at = models.DateTimeField(null=True)
    ruled_at = models.DateTimeField(null=True)

    class Meta:
        constraints = (
            models.CheckConstraint(
                name="dispute_of_one_thing",
                condition=Q(invoice__isnull=False, payment__isnull=True)
                | Q(invoice__isnull=True, payment__isnull=False),
            ),
            models.CheckConstraint(
                name="dispute_ruled_with_reason",
                condition=~Q(status="ruled")
                | (Q(to_provider_bps__isnull=False) & Q(to_provider_micros__isnull=False) & ~Q(ruling_reason="")),
            ),
            models.CheckConstraint(
                name="dispute_split_fits",
                condition=Q(to_provider_micros__isnull=True)
                | Q(to_provider_micros__gte=0, to_provider_micros__lte=F("amount_micros")),
            ),
        )

    def __str__(self) -> str:
        return f"dispute {self.id}"
