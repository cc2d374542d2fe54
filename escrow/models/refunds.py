"""Refunds, and the debts that paid for them. Fields, constraints and allowed moves; no behaviour."""

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from escrow.models.pools import Party, Session
from escrow.models.spending import Payment
from escrow.models.types import Moves, UuidV7


class Refund(models.Model):
    """All or a part of a payment that goes back: asked for by its payer, or given by its provider at once."""

    class Status(models.TextChoices):
        REQUESTED = "requested"
        PAID = "paid"
        DECLINED = "declined"
        LAPSED = "lapsed"

    MOVES: ClassVar[Moves] = {
        Status.REQUESTED: {Status.PAID, Status.DECLINED, Status.LAPSED},
        Status.PAID: set(),
        Status.DECLINED: set(),
        Status.LAPSED: set(),
    }

    id = models.UUIDField(primary_key=True, editable=False, db_default=UuidV7())
    payment = models.ForeignKey(Payment, on_delete=models.PROTECT, related_name="refunds")
    session = models.ForeignKey(Session, on_delete=models.PROTECT, related_name="refunds", db_index=False)
    party = models.ForeignKey(Party, on_delete=models.PROTECT, related_name="refunds", db_index=False)
    payer_id = models.UUIDField()
    """The pool's, for the payer's own list."""
    amount_micros = models.BigIntegerField()
    status = models.CharField(max_length=9, choices=Status)
    reason = models.TextField()
    """Of whoever began it: why the payer asks, or why the provider gives back."""
    answer = models.TextField(blank=True)
    """What became of a request, in words: the provider's, or what its silence means."""
    answer_by = models.DateTimeField(null=True)
    """Until when the provider may answer; empty where nobody asked."""
    created_at = models.DateTimeField(db_default=Now())
    answered_at = models.DateTimeField(null=True)

    class Meta:
        indexes = (
            models.Index(fields=["session", "id"], name="refund_session"),
            models.Index(fields=["party", "id"], name="refund_party"),
            models.Index(fields=["payer_id", "id"], name="refund_payer"),
            models.Index(fields=["answer_by"], name="refund_timer", condition=Q(status="requested")),
        )
        constraints = (
            models.CheckConstraint(name="refund_positive", condition=Q(amount_micros__gt=0)),
            models.CheckConstraint(
                name="refund_waits_for_an_answer", condition=~Q(status="requested") | Q(answer_by__isnull=False)
            ),
            models.CheckConstraint(
                name="refund_answered_in_words",
                condition=~Q(status__in=["declined", "lapsed"]) | (Q(answered_at__isnull=False) & ~Q(answer="")),
            ),
            models.UniqueConstraint(name="refund_requested_once", fields=["payment"], condition=Q(status="requested")),
        )

    def __str__(self) -> str:
        return f"refund {self.id}"


class Deduction(models.Model):
    """What one debt gave for one refund: its own payment's, or another's that had landed already. Never changed."""

    refund = models.ForeignKey(Refund, on_delete=models.PROTECT, related_name="deductions", db_index=False)
    payment = models.ForeignKey(Payment, on_delete=models.PROTECT, related_name="deductions")
    amount_micros = models.BigIntegerField()

    class Meta:
        constraints = (
            models.UniqueConstraint(name="deduction_once", fields=["refund", "payment"]),
            models.CheckConstraint(name="deduction_positive", condition=Q(amount_micros__gt=0)),
        )

    def __str__(self) -> str:
        return f"{self.payment_id} for {self.refund_id}"
