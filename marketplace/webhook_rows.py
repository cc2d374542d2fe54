"""The rows of webhooks: where events are delivered, and each delivery. Fields only; the rules are in `marketplace.webhooks`
(an endpoint's life) and `marketplace.deliveries` (what is sent when).
"""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from escrow.models.types import Moves
from marketplace.rows import Row


class WebhookEndpoint(Row):
    """A URL that the events of one payer's, or one provider's, feed are posted to.

    No secret is here: it is computed from a seed and the pepper, see `marketplace.webhooks.secret_of`.
    """

    class Status(models.TextChoices):
        ACTIVE = "active"
        DISABLED = "disabled"

    MOVES: ClassVar[Moves] = {Status.ACTIVE: {Status.DISABLED}, Status.DISABLED: {Status.ACTIVE}}

    payer = models.ForeignKey(
        "marketplace.Payer", null=True, blank=True, on_delete=models.PROTECT, related_name="webhooks"
    )
    provider = models.ForeignKey(
        "marketplace.Provider", null=True, blank=True, on_delete=models.PROTECT, related_name="webhooks"
    )
    url = models.CharField(max_length=500)
    events = ArrayField(models.CharField(max_length=40), default=list, blank=True)
    """Types that are delivered, ``payment.*`` for a family of them; empty for all."""
    description = models.CharField(max_length=200, blank=True)
    status = models.CharField(max_length=16, choices=Status, default=Status.ACTIVE)
    reason = models.CharField(max_length=200, blank=True)
    """Why it is disabled."""
    position = models.BigIntegerField(default=0)
    """Every event of the feed up to here has its delivery, if it is to have one."""
    seed = models.UUIDField()
    previous_seed = models.UUIDField(null=True, blank=True)
    previous_until = models.DateTimeField(null=True, blank=True)
    """Until then messages are signed with the secret before, too."""
    failing_since = models.DateTimeField(null=True, blank=True)
    """The first failed attempt after the last that succeeded."""

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="webhook_has_one_owner",
                condition=Q(payer__isnull=False, provider__isnull=True) | Q(payer__isnull=True, provider__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"webhook {self.pk}"


class Delivery(Row):
    """One event on its way to one endpoint. Without an event it is a test."""

    class Status(models.TextChoices):
        PENDING = "pending"
        DELIVERED = "delivered"
        DEAD = "dead"

    MOVES: ClassVar[Moves] = {
        Status.PENDING: {Status.DELIVERED, Status.DEAD},
        Status.DELIVERED: {Status.PENDING},
        Status.DEAD: {Status.PENDING},
    }

    endpoint = models.ForeignKey(WebhookEndpoint, on_delete=models.CASCADE, related_name="deliveries", db_index=False)
    event = models.ForeignKey(
        "escrow.Event",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        db_index=False,
        db_constraint=False,  # events stay, and checking it would write on a published one
    )
    subject_id = models.UUIDField()
    """The event's: what deliveries are kept in order by."""
    status = models.CharField(max_length=16, choices=Status, default=Status.PENDING, db_default="pending")
    attempts = models.PositiveSmallIntegerField(default=0, db_default=0)
    next_at = models.DateTimeField()
    """When it is tried next. Moved on before each attempt, so that one that is cut off is made again."""
    last_status = models.PositiveSmallIntegerField(null=True, blank=True)
    last_error = models.CharField(max_length=200, blank=True, db_default="")
    delivered_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name_plural = "deliveries"
        constraints = [models.UniqueConstraint(fields=["endpoint", "event"], name="delivery_once")]
        indexes = [
            models.Index(fields=["endpoint", "next_at"], name="delivery_due", condition=Q(status="pending")),
            models.Index(
                fields=["endpoint", "subject_id", "event"], name="delivery_in_order", condition=Q(status="pending")
            ),
            models.Index(fields=["endpoint", "status", "id"], name="delivery_listed"),
            models.Index(fields=["status", "created_at"], name="delivery_forgotten"),
        ]

    def __str__(self) -> str:
        return f"delivery {self.pk}"
