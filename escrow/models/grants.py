"""Test money that an account begins with, where no money is real. Fields and constraints; no behaviour."""

from django.db import models
from django.db.models.functions import Now

from escrow.models.pools import Pool


class Grant(models.Model):
    """The one grant of a payer, and the pool that is opened with it: the latest, where an opening has failed."""

    payer_id = models.UUIDField(primary_key=True)
    """As primary key: a payer gets one, for ever."""
    pool = models.OneToOneField(Pool, on_delete=models.PROTECT, null=True, related_name="grant")
    amount_micros = models.BigIntegerField()
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = (models.CheckConstraint(name="grant_positive", condition=models.Q(amount_micros__gt=0)),)

    def __str__(self) -> str:
        return f"grant of {self.payer_id}"
