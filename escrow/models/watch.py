"""What operators look at and what they did. Fields, constraints and allowed values; no behaviour."""

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from escrow.models.chain import ChainAction, ChainCursor, SignerNonce


class Pulse(models.Model):
    """What a worker saw when it last looked at the chain: one row for each worker, written over each time.

    The web asks no node; it reads this.
    """

    worker = models.CharField(max_length=200, unique=True)
    at = models.DateTimeField()
    chain_id = models.BigIntegerField(null=True)
    """As the node says; none when no node answered."""
    code_present = models.BooleanField(null=True)
    head_block = models.BigIntegerField(null=True)
    head_at = models.DateTimeField(null=True)
    gas_price_wei = models.PositiveBigIntegerField(null=True)
    """What a chain transaction would offer now, base fee and tip together."""
    signers = models.JSONField(default=dict)
    """By address: `balance_wei` as text, and `nonce`, the next one as the chain has it."""
    error = models.TextField(blank=True)

    class Meta:
        ordering = ("-at",)

    def __str__(self) -> str:
        return f"{self.worker} at {self.at:%H:%M:%S}"


class Setback(models.Model):
    """A row that a sweep could not take a step with: how often, why, and when it is tried again."""

    sweep = models.CharField(max_length=60)
    subject = models.CharField(max_length=60)
    """The primary key of the row, as text."""
    failures = models.PositiveIntegerField(default=1)
    error = models.TextField()
    first_at = models.DateTimeField(db_default=Now())
    last_at = models.DateTimeField(db_default=Now())
    next_at = models.DateTimeField(db_default=Now())
    parked_at = models.DateTimeField(null=True)
    """Since when it is set aside: only a person has it tried again."""

    class Meta:
        constraints = (models.UniqueConstraint(name="setback_once", fields=["sweep", "subject"]),)
        indexes = (models.Index(fields=["parked_at"], name="setback_parked", condition=Q(parked_at__isnull=False)),)

    def __str__(self) -> str:
        return f"{self.sweep} of {self.subject}"


class Remedy(models.Model):
    """What a person did about something that was stuck. Only ever added; the database refuses anything else."""

    class Kind(models.TextChoices):
        RETRY = "retry"
        REBROADCAST = "rebroadcast"
        BUMP = "bump"
        PARK = "park"
        RELEASE = "release"
        CLEAR_SIGNER = "clear_signer"
        CLEAR_CURSOR = "clear_cursor"
        TRY_AGAIN = "try_again"

    SUBJECTS: ClassVar = ("action", "signer", "cursor", "setback")

    kind = models.CharField(max_length=20, choices=Kind)
    action = models.ForeignKey(ChainAction, on_delete=models.PROTECT, null=True, related_name="remedies")
    signer = models.ForeignKey(SignerNonce, on_delete=models.PROTECT, null=True, related_name="remedies")
    cursor = models.ForeignKey(ChainCursor, on_delete=models.PROTECT, null=True, related_name="remedies")
    setback = models.CharField(max_length=121, blank=True)
    """Sweep and subject: the row itself goes once a step succeeds."""
    by = models.CharField(max_length=150)
    reason = models.TextField()
    outcome = models.TextField()
    at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name_plural = "remedies"
        indexes = (models.Index(fields=["setback"], name="remedy_setback", condition=~Q(setback="")),)
        constraints = (
            models.CheckConstraint(name="remedy_has_a_reason", condition=~Q(reason="") & ~Q(by="")),
            models.CheckConstraint(
                name="remedy_has_one_subject",
                condition=Q(action__isnull=False, signer__isnull=True, cursor__isnull=True, setback="")
                | Q(action__isnull=True, signer__isnull=False, cursor__isnull=True, setback="")
                | Q(action__isnull=True, signer__isnull=True, cursor__isnull=False, setback="")
                | (Q(action__isnull=True, signer__isnull=True, cursor__isnull=True) & ~Q(setback="")),
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} by {self.by}"
