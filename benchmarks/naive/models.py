"""The tables of the naive project."""

import uuid
from typing import ClassVar, Self

from django.db import models


class Row(models.Model):
    """What all of them have."""

    objects: ClassVar[models.Manager[Self]] = models.Manager()

    class Meta:
        abstract = True

    def __str__(self) -> str:
        """Return which one it is."""
        return f"{type(self).__name__} {self.pk}"


class Pool(Row):
    """A budget: what was put in, and what is left."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    opening_micros = models.BigIntegerField()
    balance_micros = models.BigIntegerField()

    class Meta:
        app_label = "naive"
        constraints = [models.CheckConstraint(condition=models.Q(balance_micros__gte=0), name="pool_is_not_overspent")]


class Session(Row):
    """The right to spend from a pool under a policy, with a key of its own."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT)
    pool_id: uuid.UUID
    is_open = models.BooleanField(default=True)
    max_per_call_micros = models.BigIntegerField()
    allowed_recipients = models.JSONField(default=list)
    expires_at = models.DateTimeField(null=True)
    key_id = models.CharField(max_length=32, unique=True)
    secret_hash = models.BinaryField(max_length=32)

    class Meta:
        app_label = "naive"

    is_authenticated = True


class Agent(Row):
    """Who can be paid."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    uri = models.CharField(max_length=255, unique=True)
    provider_id = models.UUIDField(default=uuid.uuid4)

    class Meta:
        app_label = "naive"


class Payment(Row):
    """An amount that a session has paid to an agent, once for each idempotency key."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    session = models.ForeignKey(Session, on_delete=models.PROTECT)
    agent = models.ForeignKey(Agent, on_delete=models.PROTECT)
    amount_micros = models.BigIntegerField()
    remaining_micros = models.BigIntegerField()
    status = models.CharField(max_length=16, default="payable", db_index=True)
    metadata = models.JSONField(default=dict)
    idempotency_key = models.CharField(max_length=255)
    request_hash = models.BinaryField(max_length=32)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = "naive"
        constraints = [models.UniqueConstraint(fields=["session", "idempotency_key"], name="one_payment_for_each_key")]


class Transfer(Row):
    """One side of a payment in the ledger: negative for the pool, positive for the agent."""

    payment = models.ForeignKey(Payment, on_delete=models.PROTECT)
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, null=True)
    agent = models.ForeignKey(Agent, on_delete=models.PROTECT, null=True)
    amount_micros = models.BigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = "naive"


class Event(Row):
    """What has happened, for whoever wants to be told."""

    type = models.CharField(max_length=64)
    payment = models.ForeignKey(Payment, on_delete=models.PROTECT)
    payload = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = "naive"
