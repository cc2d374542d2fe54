"""What must be told: the second outbox. Fields only; `escrow.events` writes and publishes it."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class Event(models.Model):
    """Something that happened, told to a payer, to a party, or to both. Its id is its position in their feeds."""

    id = models.BigAutoField(primary_key=True)
    payer_id = models.UUIDField(null=True)
    party_id = models.UUIDField(null=True)
    type = models.CharField(max_length=40)
    subject_type = models.CharField(max_length=20)
    subject_id = models.UUIDField()
    payload = models.JSONField(default=dict)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = (
            models.Index(fields=["payer_id", "id"], name="event_payer", condition=Q(payer_id__isnull=False)),
            models.Index(fields=["party_id", "id"], name="event_party", condition=Q(party_id__isnull=False)),
        )
        constraints = (
            models.CheckConstraint(
                name="event_has_a_reader", condition=Q(payer_id__isnull=False) | Q(party_id__isnull=False)
            ),
        )

    def __str__(self) -> str:
        return f"{self.type} {self.subject_id}"


class EventMark(models.Model):
    """The one row that says up to which id events are published, and which id may be next."""

    published_id = models.BigIntegerField(default=0)
    pending_id = models.BigIntegerField(default=0)
    pending_xid = models.BigIntegerField(default=0)
    """Every database transaction that drew an id up to ``pending_id`` has a smaller number than this."""

    class Meta:
        constraints = (models.CheckConstraint(name="event_mark_once", condition=Q(pk=1)),)

    def __str__(self) -> str:
        return f"published to {self.published_id}"
