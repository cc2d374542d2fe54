"""What must be told: the second outbox. Fields only; `escrow.events` writes and publishes it."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class Event(models.Model):
    """Something that happened, told to a payer, to a party, or to both. The publisher gives the ``position``."""

    id = models.BigAutoField(primary_key=True)
    payer_id = models.UUIDField(null=True)
    party_id = models.UUIDField(null=True)
    type = models.CharField(max_length=40)
    subject_type = models.CharField(max_length=20)
    subject_id = models.UUIDField()
    payload = models.JSONField(default=dict)
    position = models.BigIntegerField(null=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        # An unpublished event is in one index beside the primary key: each payment writes one.
        indexes = (
            models.Index(fields=["id"], name="event_unpublished", condition=Q(position__isnull=True)),
            models.Index(fields=["payer_id", "position"], name="event_payer", condition=Q(position__isnull=False)),
            models.Index(fields=["party_id", "position"], name="event_party", condition=Q(position__isnull=False)),
        )
        constraints = (
            models.UniqueConstraint(
                name="event_position_once", fields=["position"], condition=Q(position__isnull=False)
            ),
            models.CheckConstraint(
                name="event_has_a_reader", condition=Q(payer_id__isnull=False) | Q(party_id__isnull=False)
            ),
        )

    def __str__(self) -> str:
        return f"{self.type} {self.subject_id}"
