"""Webhook endpoints. Lives here: their life, their secrets and how a message is signed. What is sent when is
`marketplace.deliveries`'.

Messages follow the Standard Webhooks specification (standardwebhooks.com): ``webhook-id`` stays over retries,
``webhook-signature`` is HMAC-SHA256 over ``id.timestamp.body`` with the secret's bytes. The database has no secret: it is
computed from the endpoint's seed and the pepper, as API keys are from theirs, so that the answer which shows it once can be
given again.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import transaction

from escrow import events, lifecycle
from escrow.errors import InvalidInput, StateConflict
from marketplace.models import Delivery, Payer, Provider, WebhookEndpoint

TEST: Final = "webhook.test"
DISABLED: Final = "webhook.disabled"
MAX_FILTERS: Final = 20
_FILTER: Final = re.compile(r"[a-z][a-z_]{0,19}\.(?:[a-z][a-z_]{0,18}|\*)")

ENDPOINT = WebhookEndpoint.Status
DELIVERY = Delivery.Status


@transaction.atomic
def create(
    *,
    url: str,
    seed: UUID,
    payer: Payer | None = None,
    provider: Provider | None = None,
    filters: Sequence[str] = (),
    description: str = "",
) -> WebhookEndpoint:
    """Make an endpoint of a payer or a provider. What is published from now on is delivered to it.

    The URL must have passed `marketplace.outside.vet`; it is vetted again at every attempt. Raises StateConflict when the
    owner has as many endpoints as it may.
    """
    for number, name in enumerate(filters):
        check_filter(name, f"events.{number}")
    # The owner's row is locked, so that two requests at once do not both take the last place.
    if payer is not None:
        Payer.objects.select_for_update(no_key=True).get(pk=payer.pk)
    elif provider is not None:
        Provider.objects.select_for_update(no_key=True).get(pk=provider.pk)
    most = settings.WEBHOOK_MAX_ENDPOINTS
    if WebhookEndpoint.objects.filter(payer=payer, provider=provider).count() >= most:
        raise StateConflict(
            "webhook", "full", f"There are {most} webhooks, and no more are possible: delete one first."
        )
    return WebhookEndpoint.objects.create(
        payer=payer,
        provider=provider,
        url=url,
        events=list(dict.fromkeys(filters)),
        description=description,
        position=events.published(),
        seed=seed,
    )


def check_filter(name: str, field: str = "events") -> str:
    """Return a type of event, or a family of them, of the right form. Raises InvalidInput."""
    if not _FILTER.fullmatch(name):
        raise InvalidInput(field, "is not a type of event", '"payment.created", or "payment.*" for all of a payment')
    return name


def wants(endpoint: WebhookEndpoint, type: str) -> bool:
    """Return whether an endpoint is told of a type of event."""
    return not endpoint.events or type in endpoint.events or f"{type.partition('.')[0]}.*" in endpoint.events


@transaction.atomic
def rotate_secret(*, endpoint: WebhookEndpoint, seed: UUID, overlap_seconds: int, now: datetime) -> WebhookEndpoint:
    """Give an endpoint a new secret. Until the overlap ends every message is signed with the one before, too."""
    row = _locked(endpoint)
    row.previous_seed, row.previous_until = row.seed, now + timedelta(seconds=overlap_seconds)
    row.seed = seed
    row.save(update_fields=["seed", "previous_seed", "previous_until"])
    return row


@transaction.atomic
def delete(*, endpoint: WebhookEndpoint) -> WebhookEndpoint:
    """Delete an endpoint with all its deliveries; return it as it was."""
    row = _locked(endpoint)
    Delivery.objects.filter(endpoint=row).delete()
    WebhookEndpoint.objects.filter(pk=row.pk).delete()
    return row


@transaction.atomic
def test(*, endpoint: WebhookEndpoint, now: datetime) -> Delivery:
    """Have a ``webhook.test`` delivered to one endpoint. One that still waits is returned instead of another."""
    row = _locked(endpoint)
    if row.status != ENDPOINT.ACTIVE:
        raise StateConflict("webhook", row.status, "The webhook is disabled; POST its /replay turns it on again.")
    waiting = Delivery.objects.filter(endpoint=row, event=None, status=DELIVERY.PENDING).first()
    return waiting or Delivery.objects.create(endpoint=row, subject_id=row.pk, next_at=now)


@transaction.atomic
def replay(*, endpoint: WebhookEndpoint, now: datetime, after: int | None = None) -> WebhookEndpoint:
    """Have everything that was not delivered tried again from now on, and with ``after`` every event after that position.

    A disabled endpoint is turned on by it: it goes on where it stopped.
    """
    row = _locked(endpoint)
    if row.status == ENDPOINT.DISABLED:
        lifecycle.move(row, ENDPOINT.ACTIVE, reason="", failing_since=None)
    mine = Delivery.objects.filter(endpoint=row)
    lifecycle.move_all(mine, frm=DELIVERY.DEAD, to=DELIVERY.PENDING, attempts=0, next_at=now)
    hurry(row, now=now)
    if after is not None and after < row.position:
        row.position = after  # fanning out from there finds the deliveries that were made, and has them made again
        row.save(update_fields=["position"])
    return row


def hurry(endpoint: WebhookEndpoint, *, now: datetime) -> None:
    """Have what waits for its next attempt tried now. What is being tried at this moment is left alone."""
    being_tried = now + timedelta(seconds=settings.WEBHOOK_LEASE_SECONDS)
    waiting = Delivery.objects.filter(endpoint=endpoint, status=DELIVERY.PENDING, next_at__gt=being_tried)
    waiting.update(next_at=now)


@transaction.atomic
def disable(*, endpoint: WebhookEndpoint, reason: str) -> bool:
    """Stop delivering to an endpoint, and tell its owner by an event. Return whether it was this call that did."""
    row = WebhookEndpoint.objects.select_for_update().filter(pk=endpoint.pk, status=ENDPOINT.ACTIVE).first()
    if row is None:
        return False
    lifecycle.move(row, ENDPOINT.DISABLED, reason=reason)
    events.record(
        type=DISABLED,
        subject_type="webhook",
        subject_id=row.pk,
        payload={"reason": reason, "position": row.position},
        payer_id=row.payer_id,
        party=row.provider.party if row.provider else None,
    )
    return True


def secret_of(seed: UUID) -> str:
    """Return the secret that belongs to a seed: ``whsec_`` and 32 bytes in base64, as the specification writes one."""
    return "whsec_" + base64.b64encode(_bytes_of(seed)).decode()


def signed(endpoint: WebhookEndpoint, *, id: str, body: bytes, now: datetime) -> Mapping[str, str]:
    """Return the headers that name, date and sign a message, with one signature for each secret that is good now."""
    seeds = [endpoint.seed]
    if endpoint.previous_seed and endpoint.previous_until and now < endpoint.previous_until:
        seeds.append(endpoint.previous_seed)
    moment = int(now.timestamp())
    content = b"%s.%d.%s" % (id.encode(), moment, body)
    signatures = [f"v1,{base64.b64encode(hmac.digest(_bytes_of(seed), content, 'sha256')).decode()}" for seed in seeds]
    return {"webhook-id": id, "webhook-timestamp": str(moment), "webhook-signature": " ".join(signatures)}


def _bytes_of(seed: UUID) -> bytes:
    return hmac.digest(settings.API_KEY_PEPPER.encode(), f"webhook-secret:{seed}".encode(), hashlib.sha256)


def _locked(endpoint: WebhookEndpoint) -> WebhookEndpoint:
    """Return the row as it is now. Raises StateConflict when it was deleted meanwhile."""
    row = WebhookEndpoint.objects.select_for_update().filter(pk=endpoint.pk).first()
    if row is None:
        raise StateConflict("webhook", "deleted", "The webhook was deleted.")
    return row
