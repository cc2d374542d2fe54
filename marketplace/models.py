"""The market's rows: who buys, who sells, what is sold, with which key, and the tasks between them.

Lives here: fields, constraints, statuses and their moves. Money does not: it is in `escrow.models`, and a task's money
is a hold there. What a row means to a caller (rules, refusals) is in the verb modules of this package. The rows of
webhooks have a room of their own, `marketplace.webhook_rows`, and are named here with the others.
"""

from dataclasses import asdict, dataclass
from typing import ClassVar, Self

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import Q

from escrow.models.types import Moves
from marketplace.rows import Row
from marketplace.webhook_rows import Delivery, WebhookEndpoint

__all__ = [
    "Agent", "ApiKey", "Delivery", "IdempotencyRecord", "Offering", "Payer", "Pricing", "Provider", "Scope", "Task",
    "Terms", "WebhookEndpoint",
]  # fmt: skip

AGENT_URI_PATTERN = r"^agent://[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$"


class Scope(models.TextChoices):
    """What a key may do at most; a read-only key of the same scope may only look."""

    PAYER = "payer"
    SESSION = "session"
    PROVIDER = "provider"


class Payer(Row):
    """A person or firm that buys: owner of pools, sessions and tasks. `escrow.models.Pool.payer_id` holds its id."""

    name = models.CharField(max_length=200)
    email = models.EmailField(blank=True)

    def __str__(self) -> str:
        return self.name


class Provider(Row):
    """A person or firm that sells: owner of agents. Its `party` is who it is to the money."""

    name = models.CharField(max_length=200)
    party = models.OneToOneField("escrow.Party", on_delete=models.PROTECT, related_name="provider")

    def __str__(self) -> str:
        return self.name


class Agent(Row):
    """A specialist by its public name, ``agent://lint.acme.dev``."""

    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="agents")
    uri = models.CharField(max_length=261, unique=True)
    name = models.CharField(max_length=200)
    description = models.TextField(blank=True, max_length=4000)
    endpoint = models.CharField(max_length=500, blank=True)
    capabilities = ArrayField(models.CharField(max_length=64), default=list)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(uri__regex=AGENT_URI_PATTERN), name="agent_uri_is_a_dns_name"),
        ]
        indexes = [GinIndex(fields=["capabilities"], name="agent_capabilities")]

    def __str__(self) -> str:
        return self.uri

    @property
    def host(self) -> str:
        """The URI without its scheme: how the HTTP API names the agent in a path."""
        return self.uri.removeprefix("agent://")


class Pricing(models.TextChoices):
    """When the price is due: with each call, or once the outcome is delivered."""

    PER_CALL = "per_call"
    PER_OUTCOME = "per_outcome"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What an agent sells and for how much (micro-USDC), before it is an offering."""

    capability: str
    pricing: Pricing | str
    price_micros: int
    unit: str = "call"
    description: str = ""


class Offering(Row):
    """One version of what an agent sells, at a price. A trigger keeps it as it is; a new price is a new version."""

    agent = models.ForeignKey(Agent, on_delete=models.PROTECT, related_name="offerings")
    version = models.PositiveIntegerField(default=1)
    capability = models.CharField(max_length=64)
    pricing = models.CharField(max_length=16, choices=Pricing)
    price_micros = models.BigIntegerField()
    unit = models.CharField(max_length=32, default="call")
    description = models.TextField(blank=True, max_length=1000)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["agent", "capability", "version"], name="offering_version_once"),
            models.CheckConstraint(condition=Q(price_micros__gte=1), name="offering_has_a_price"),
        ]

    def __str__(self) -> str:
        return f"{self.capability} v{self.version}"

    @classmethod
    def of(cls, agent: Agent, terms: Terms, *, version: int) -> Self:
        """Return terms as a version of an agent's offering, not saved."""
        return cls(agent=agent, version=version, **asdict(terms))


class ApiKey(Row):
    """A bearer key. Holds the public id and an HMAC of the secret; the secret itself is shown once and kept nowhere."""

    key_id = models.CharField(max_length=12, unique=True)
    secret_hash = models.BinaryField(max_length=32)
    name = models.CharField(max_length=200, blank=True)
    scope = models.CharField(max_length=16, choices=Scope)
    read_only = models.BooleanField(default=False)
    payer = models.ForeignKey(Payer, null=True, blank=True, on_delete=models.PROTECT, related_name="keys")
    provider = models.ForeignKey(Provider, null=True, blank=True, on_delete=models.PROTECT, related_name="keys")
    session = models.ForeignKey("escrow.Session", null=True, blank=True, on_delete=models.PROTECT, related_name="keys")
    ceiling_micros = models.BigIntegerField(null=True, blank=True, editable=False)
    """What its session was opened with for this key alone; None for a key of a session that stands by itself."""
    opened_by = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="opened")
    """The session's key that opened the session that this one is of: a thief's go together."""
    rotated_from = models.OneToOneField(
        "self", null=True, blank=True, editable=False, on_delete=models.PROTECT, related_name="rotated_to"
    )
    """The key that this one takes the place of. One to one: a key has one successor, whoever asks at the same time."""
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="key_owner_fits_its_scope",
                condition=(
                    Q(scope=Scope.PAYER, payer__isnull=False, provider__isnull=True, session__isnull=True)
                    | Q(scope=Scope.SESSION, payer__isnull=False, provider__isnull=True, session__isnull=False)
                    | Q(scope=Scope.PROVIDER, payer__isnull=True, provider__isnull=False, session__isnull=True)
                ),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.scope} key {self.key_id}"


class Task(Row):
    """A piece of work with a budget. Its money is `hold` until it is submitted and `invoice` after that.

    ``status`` holds what the market decides. What happens to the invoice (accepted, rejected, disputed, closed) is
    read off the invoice, so the two cannot disagree: see `marketplace.tasks.status_of`.
    """

    class Status(models.TextChoices):
        POSTED = "posted"
        ASSIGNED = "assigned"
        SUBMITTED = "submitted"
        CANCELLED = "cancelled"
        EXPIRED = "expired"

    MOVES: ClassVar[Moves] = {
        Status.POSTED: {Status.ASSIGNED, Status.CANCELLED, Status.EXPIRED},
        Status.ASSIGNED: {Status.SUBMITTED, Status.CANCELLED, Status.EXPIRED},
        Status.SUBMITTED: set(),
        Status.CANCELLED: set(),
        Status.EXPIRED: set(),
    }

    payer = models.ForeignKey(Payer, on_delete=models.PROTECT, related_name="tasks")
    session = models.ForeignKey("escrow.Session", on_delete=models.PROTECT, related_name="tasks")
    title = models.CharField(max_length=200)
    brief = models.JSONField(default=dict)
    capability = models.CharField(max_length=64)
    budget_micros = models.BigIntegerField()
    status = models.CharField(max_length=16, choices=Status, default=Status.POSTED)
    agent = models.ForeignKey(Agent, null=True, blank=True, on_delete=models.PROTECT, related_name="tasks")
    hold = models.OneToOneField("escrow.Hold", null=True, blank=True, on_delete=models.PROTECT, related_name="task")
    invoice = models.OneToOneField(
        "escrow.Invoice", null=True, blank=True, on_delete=models.PROTECT, related_name="task"
    )
    due_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(budget_micros__gte=1), name="task_has_a_budget"),
            models.CheckConstraint(
                name="task_money_fits_its_status",
                condition=(
                    Q(status="posted", agent__isnull=True, hold__isnull=True, invoice__isnull=True)
                    | Q(status="assigned", agent__isnull=False, hold__isnull=False, invoice__isnull=True)
                    | Q(status="submitted", agent__isnull=False, hold__isnull=False, invoice__isnull=False)
                    | Q(status__in=["cancelled", "expired"], invoice__isnull=True)
                ),
            ),
        ]
        indexes = [
            models.Index(fields=["payer", "id"], name="task_of_payer"),
            models.Index(fields=["session", "id"], name="task_of_session"),
            models.Index(fields=["agent", "id"], name="task_of_agent"),
            models.Index(fields=["due_at"], condition=Q(status__in=["posted", "assigned"]), name="task_waiting"),
        ]

    def __str__(self) -> str:
        return self.title


class IdempotencyRecord(Row):
    """The answer that an Idempotency-Key has had, written in the database transaction of the effect it answers for."""

    owner_id = models.UUIDField()
    key = models.CharField(max_length=255)
    request_hash = models.BinaryField(max_length=32)
    status = models.PositiveSmallIntegerField(null=True)
    body = models.TextField(blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["owner_id", "key"], name="idempotency_key_once")]

    def __str__(self) -> str:
        return self.key
