"""What was decided of requests to spend: refusals, and a person's answers. Fields and allowed moves; no behaviour.

An allowed request is its payment or its hold, which say under which version of the policy. `Decision` reads all of it as one.
"""

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from escrow.models.pools import Party, Session
from escrow.models.types import Moves, UuidV7


class Kind(models.TextChoices):
    """What was asked for."""

    PAYMENT = "payment"
    HOLD = "hold"


class Denial(models.Model):
    """A request to spend that was refused: by which rule, under which version of the policy, on which facts."""

    id = models.UUIDField(primary_key=True, editable=False, db_default=UuidV7())
    session = models.ForeignKey(Session, on_delete=models.PROTECT, related_name="denials", db_index=False)
    payer_id = models.UUIDField()
    party = models.ForeignKey(Party, on_delete=models.PROTECT, related_name="denials", db_index=False)
    kind = models.CharField(max_length=8, choices=Kind)
    rule = models.CharField(max_length=40)
    """A key of the policy, or what else refused: ``insufficient_funds``, ``session_paused``, ``pool_frozen`` …"""
    policy_version = models.PositiveIntegerField()
    to = models.CharField(max_length=261)
    capability = models.CharField(max_length=64, blank=True, default="")
    amount_micros = models.BigIntegerField()
    facts = models.JSONField(default=dict)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = (
            models.Index(fields=["session", "id"], name="denial_session"),
            models.Index(fields=["payer_id", "id"], name="denial_payer"),
        )

    def __str__(self) -> str:
        return f"denial {self.id}"


class Decision(models.Model):
    """Every request to spend that was decided, allowed or denied: a view over payments, holds and denials.

    A row without a version of a policy was decided as something else: a payment that came out of a hold or a ruling.
    """

    id = models.UUIDField(primary_key=True)
    session = models.ForeignKey(Session, on_delete=models.DO_NOTHING, related_name="decisions")
    payer_id = models.UUIDField()
    party = models.ForeignKey(Party, on_delete=models.DO_NOTHING, related_name="decisions")
    kind = models.CharField(max_length=8, choices=Kind)
    is_allowed = models.BooleanField()
    rule = models.CharField(max_length=40)
    policy_version = models.PositiveIntegerField()
    to = models.CharField(max_length=261)
    capability = models.CharField(max_length=64)
    amount_micros = models.BigIntegerField()
    facts = models.JSONField()
    created_at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = "escrow_decision"

    def __str__(self) -> str:
        return f"decision {self.id}"


class Approval(models.Model):
    """One request that is over what its session may spend without a person: what was asked, and the person's answer."""

    class Status(models.TextChoices):
        WAITING = "waiting"
        APPROVED = "approved"
        REFUSED = "refused"
        EXPIRED = "expired"

    MOVES: ClassVar[Moves] = {
        Status.WAITING: {Status.APPROVED, Status.REFUSED, Status.EXPIRED},
        Status.APPROVED: {Status.EXPIRED},
        Status.REFUSED: {Status.EXPIRED},
        Status.EXPIRED: set(),
    }

    id = models.UUIDField(primary_key=True, editable=False, db_default=UuidV7())
    session = models.ForeignKey(Session, on_delete=models.PROTECT, related_name="approvals", db_index=False)
    payer_id = models.UUIDField()
    kind = models.CharField(max_length=8, choices=Kind)
    fingerprint = models.BinaryField(max_length=32)
    """SHA-256 of the request and its idempotency key: a yes is to this request and to no other."""
    to = models.CharField(max_length=261)
    capability = models.CharField(max_length=64, blank=True, default="")
    amount_micros = models.BigIntegerField()
    metadata = models.JSONField(default=dict)
    status = models.CharField(max_length=8, choices=Status, default=Status.WAITING)
    reason = models.TextField(blank=True, default="")
    decided_by = models.CharField(max_length=150, blank=True, default="")
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    decided_at = models.DateTimeField(null=True)

    class Meta:
        indexes = (
            models.Index(fields=["session", "id"], name="approval_session"),
            models.Index(fields=["payer_id", "id"], name="approval_payer"),
            models.Index(fields=["expires_at"], name="approval_ends", condition=~Q(status="expired")),
        )
        constraints = (
            models.UniqueConstraint(
                name="approval_once", fields=["session", "fingerprint"], condition=~Q(status="expired")
            ),
            models.CheckConstraint(name="approval_positive", condition=Q(amount_micros__gt=0)),
        )

    def __str__(self) -> str:
        return f"approval {self.id}"
