"""What must be told: the second outbox. Fields only; `escrow.events` writes and publishes it."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class Event(models.Model):
    """Something that happened, told to one owner. ``position`` is given by the publisher, in the order of publication."""

    class Owner(models.TextChoices):
        PAYER = "payer"
        PARTY = "party"

    id = models.BigAutoField(primary_key=True)
    owner_kind = models.CharField(max_length=5, choices=Owner)
    owner_id = models.UUIDField()
    type = models.CharField(max_length=40)
    subject_type = models.CharField(max_length=20)
    subject_id = models.UUIDField()
    payload = models.JSONField(default=dict)
    position = models.BigIntegerField(null=True, unique=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = (
            models.Index(fields=["owner_kind", "owner_id", "position"], name="event_feed"),
            models.Index(fields=["id"], name="event_unpublished", condition=Q(position__isnull=True)),
        )

    def __str__(self) -> str:
        return f"{self.type} {self.subject_id}"
