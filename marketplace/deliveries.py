"""From the feed to the endpoints. Lives here: which event is delivered to whom, when it is tried, and what an attempt means.

Three steps, each of which may stop anywhere and be taken again. *Fan out*: an endpoint's position moves along its owner's
feed, and each event on the way gets a delivery. *Claim*: a due delivery has its next attempt put off before this one is
made, so an attempt that is cut off is made again, with the same ``webhook-id``. *Record*: what the attempt meant. The
attempt itself is made in no database transaction.

A subject's events come in order: one is not tried while an earlier one of the same subject waits for the same endpoint.
"""

import json
import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet

from escrow import events, lifecycle
from escrow.errors import InvalidInput, StateConflict
from escrow.models import Event
from marketplace import outside, webhooks
from marketplace.models import Delivery, WebhookEndpoint

log = logging.getLogger(__name__)

DELIVERY = Delivery.Status
GONE: Final = 410
"""The answer by which a receiver says that it wants no more, for good."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that is to be tried now, with all that the attempt needs."""

    delivery: Delivery
    endpoint: WebhookEndpoint
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt: the status that was answered, or why there was none."""

    status: int | None
    error: str = ""

    @property
    def is_delivered(self) -> bool:
        """Whether the receiver has taken it."""
        return self.status is not None and 200 <= self.status < 300


def fan_out_due(*, now: datetime, limit: int) -> int:
    """Make the deliveries of what was published, for some endpoints that are behind; return how many."""
    mark = events.published()
    new = Event.objects.filter(pk__gt=OuterRef("position"), pk__lte=mark)
    behind = Exists(new.filter(payer_id=OuterRef("payer_id"))) | Exists(
        new.filter(party_id=OuterRef("provider__party_id"))
    )
    endpoints = WebhookEndpoint.objects.filter(behind, status=WebhookEndpoint.Status.ACTIVE).order_by("?")[:limit]
    made = 0
    for endpoint in endpoints:
        made += fan_out(endpoint, now=now)
    return made


@transaction.atomic
def fan_out(of: WebhookEndpoint, *, now: datetime) -> int:
    """Move one endpoint along its feed, by a page; return how many deliveries that made.

    After a replay the page has events that were delivered before: their deliveries are pending again.
    """
    mine = WebhookEndpoint.objects.select_related("provider").select_for_update(skip_locked=True, of=("self",))
    endpoint = mine.filter(pk=of.pk, status=WebhookEndpoint.Status.ACTIVE).first()
    if endpoint is None or _is_full(endpoint):
        return 0
    party_id = endpoint.provider.party_id if endpoint.provider else None
    page = list(
        events.feed(
            payer_id=endpoint.payer_id, party_id=party_id, after=endpoint.position, limit=settings.WEBHOOK_FAN_OUT
        )
    )
    if not page:
        return 0
    wanted = [event for event in page if webhooks.wants(endpoint, event.type)]
    earlier = Delivery.objects.filter(endpoint=endpoint, event__in=[event.pk for event in wanted])
    for status in (DELIVERY.DELIVERED, DELIVERY.DEAD):
        lifecycle.move_all(earlier, frm=status, to=DELIVERY.PENDING, attempts=0, next_at=now, delivered_at=None)
    made = [Delivery(endpoint=endpoint, event=event, subject_id=event.subject_id, next_at=now) for event in wanted]
    Delivery.objects.bulk_create(made, ignore_conflicts=True)
    WebhookEndpoint.objects.filter(pk=endpoint.pk).update(position=page[-1].pk)
    return len(made)


def _is_full(endpoint: WebhookEndpoint) -> bool:
    waiting = Delivery.objects.filter(endpoint=endpoint, status=DELIVERY.PENDING).order_by()
    return waiting[settings.WEBHOOK_MAX_PENDING - 1 :].exists()


def endpoints_due(*, now: datetime, limit: int) -> "QuerySet[WebhookEndpoint]":
    """Return some endpoints for which a delivery is due, in no order: nobody is always the first."""
    due = Delivery.objects.filter(endpoint=OuterRef("pk"), status=DELIVERY.PENDING, next_at__lte=now)
    active = WebhookEndpoint.objects.filter(Exists(due), status=WebhookEndpoint.Status.ACTIVE)
    return active.order_by("?")[:limit]


@transaction.atomic
def claim(endpoint: WebhookEndpoint, *, now: datetime, limit: int) -> list[Claimed]:
    """Take due deliveries of an endpoint, and put their next attempts off until this one must be over."""
    waiting = Delivery.objects.filter(status=DELIVERY.PENDING, endpoint=OuterRef("endpoint"))
    earlier = waiting.filter(subject_id=OuterRef("subject_id"), event__lt=OuterRef("event"))
    due = Delivery.objects.filter(~Exists(earlier), endpoint=endpoint, status=DELIVERY.PENDING, next_at__lte=now)
    rows = list(due.select_for_update(skip_locked=True).order_by("next_at", "event")[:limit])
    if not rows:
        return []
    again_at = now + timedelta(seconds=settings.WEBHOOK_LEASE_SECONDS)
    Delivery.objects.filter(pk__in=[row.pk for row in rows]).update(attempts=F("attempts") + 1, next_at=again_at)
    told = Event.objects.in_bulk([row.event_id for row in rows if row.event_id is not None])
    claimed = []
    for row in rows:
        row.attempts += 1
        id, body = message(row, told.get(row.event_id or 0))
        headers = webhooks.signed(endpoint, id=id, body=body, now=now)
        claimed.append(Claimed(row, endpoint, headers, body))
    return claimed


def message(row: Delivery, event: Event | None) -> tuple[str, bytes]:
    """Return a message's id and its body: the same at every attempt, and for an event the same at every endpoint."""
    facts = (
        {"position": event.pk, "subject_type": event.subject_type, "subject_id": str(event.subject_id)}
        if event
        else {"position": 0, "subject_type": "webhook", "subject_id": str(row.subject_id)}
    )
    at = (event or row).created_at.isoformat().replace("+00:00", "Z")
    content = {
        "type": event.type if event else webhooks.TEST,
        "timestamp": at,
        "data": {**facts, "payload": event.payload if event else {}},
    }
    return id_of(row), json.dumps(content, separators=(",", ":")).encode()


def id_of(row: Delivery) -> str:
    """Return what names a message at every attempt: its ``webhook-id``."""
    return f"evt_{row.event_id}" if row.event_id is not None else f"test_{row.pk}"


def attempt(claimed: Claimed) -> Outcome:
    """Post a message to its endpoint. Touches no row."""
    headers = {
        **claimed.headers,
        "Content-Type": "application/json",
        "User-Agent": "AgentMarket-Webhooks/1",
    }
    try:
        status = outside.post(claimed.endpoint.url, claimed.body, headers, seconds=settings.WEBHOOK_TIMEOUT_SECONDS)
    except outside.Unreached as failure:
        return Outcome(None, failure.reason)
    except InvalidInput as refusal:
        return Outcome(None, refusal.detail)
    if 300 <= status < 400:
        return Outcome(status, "The answer is a redirect; they are not followed.")
    return Outcome(status, "" if 200 <= status < 300 else f"The answer was {status}.")


@transaction.atomic
def record(claimed: Claimed, outcome: Outcome, *, now: datetime) -> None:
    """Write down what an attempt meant for the delivery, and for the endpoint."""
    row = claimed.delivery
    facts = {"last_status": outcome.status, "last_error": outcome.error}
    try:
        if outcome.is_delivered:
            lifecycle.move(row, DELIVERY.DELIVERED, delivered_at=now, **facts)
            _answers(claimed.endpoint, now=now)
            return
        failing_since = _fails(claimed.endpoint, now=now)
        if row.attempts > len(settings.WEBHOOK_RETRY_SECONDS):
            lifecycle.move(row, DELIVERY.DEAD, **facts)
        else:
            Delivery.objects.filter(pk=row.pk, status=DELIVERY.PENDING).update(
                next_at=now + _pause(row.attempts), **facts
            )
    except StateConflict:
        return  # another attempt, after this one had seemed cut off, has decided it; or the endpoint was deleted
    log.info("Delivery %s failed at attempt %d: %s", row.pk, row.attempts, outcome.error)
    if outcome.status == GONE:
        webhooks.disable(endpoint=claimed.endpoint, reason="The endpoint answered 410: it wants no more.")
    elif row.status == DELIVERY.DEAD and failing_since <= now - settings.WEBHOOK_DISABLE_AFTER:
        days = settings.WEBHOOK_DISABLE_AFTER.days
        webhooks.disable(
            endpoint=claimed.endpoint, reason=f"Nothing could be delivered for {days} days. {outcome.error}"
        )


def _answers(endpoint: WebhookEndpoint, *, now: datetime) -> None:
    """Note that an endpoint answers again, and have what waits for it tried at once."""
    if WebhookEndpoint.objects.filter(pk=endpoint.pk, failing_since__isnull=False).update(failing_since=None):
        webhooks.hurry(endpoint, now=now)


def _fails(endpoint: WebhookEndpoint, *, now: datetime) -> datetime:
    """Note that an endpoint fails, and return since when."""
    WebhookEndpoint.objects.filter(pk=endpoint.pk, failing_since=None).update(failing_since=now)
    since = WebhookEndpoint.objects.filter(pk=endpoint.pk).values_list("failing_since", flat=True).first()
    return since or now


def _pause(attempts: int) -> timedelta:
    """Return how long to wait after so many attempts, a little more or less."""
    seconds = settings.WEBHOOK_RETRY_SECONDS[attempts - 1]
    spread = settings.WEBHOOK_JITTER
    return timedelta(seconds=seconds * random.uniform(1 - spread, 1 + spread))  # noqa: S311 - no secret


def forget(*, now: datetime, limit: int) -> int:
    """Delete deliveries that were made or given up long ago; return how many."""
    old = Q(status__in=(DELIVERY.DELIVERED, DELIVERY.DEAD), created_at__lt=now - settings.WEBHOOK_KEEP)
    found: list[UUID] = list(Delivery.objects.filter(old).order_by("created_at").values_list("pk", flat=True)[:limit])
    return Delivery.objects.filter(pk__in=found).delete()[0]
