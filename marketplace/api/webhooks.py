"""/v1/webhooks. Lives here: HTTP only; `marketplace.webhooks` decides, `marketplace.outside` says what may be called."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast
from uuid import UUID

from django.db.models import Count, Q, QuerySet

from marketplace import deliveries, outside, webhooks
from marketplace.api import actions, auth, scope
from marketplace.api import webhook_shapes as shapes
from marketplace.api.auth import Actor
from marketplace.api.endpoint import Call, Endpoint, serves
from marketplace.api.errors import Problem
from marketplace.api.pages import matching, page
from marketplace.api.queries import PageQuery
from marketplace.api.ways_on import Action, get, post
from marketplace.models import Delivery, Scope, WebhookEndpoint

_VETTING: Final = threading.BoundedSemaphore(2)
"""Hosts that are looked up at once: name servers that never answer must not take every thread of the web."""


def vet(call: Call) -> None:
    """Look the host up, before a database transaction is open."""
    if not _VETTING.acquire(blocking=False):
        raise Problem(
            "unavailable",
            "Other hosts are being looked up; this one was not. Nothing was made.",
            headers={"Retry-After": "1"},
            retryable=True,
            untouched=True,
        )
    try:
        outside.vet(call.body.url)
    finally:
        _VETTING.release()


class Webhooks(Endpoint):
    """Where the caller's events are delivered."""

    @serves(
        auth.OWNER,
        body=shapes.WebhookIn,
        answer=shapes.WebhookWithSecret,
        status=201,
        reveals=True,
        revealed="secret",
        before=vet,
    )
    def post(self, call: Call) -> shapes.Webhook:
        """Have events delivered to a URL.

        What is published from now on is posted to it, signed as Standard Webhooks wants it. The secret is shown in this
        answer only.
        """
        body, key = call.body, call.actor.key
        made = webhooks.create(
            url=body.url,
            filters=body.events,
            description=body.description or "",
            payer=key.payer,
            provider=key.provider,
            seed=cast("UUID", call.record_id),
        )
        return show(made, call.actor)

    @serves(auth.OWNER, query=PageQuery, answer=shapes.WebhookPage)
    def get(self, call: Call) -> shapes.WebhookPage:
        """List the caller's webhooks."""
        return shapes.WebhookPage(**page(mine(call.actor), call.query, lambda rows: show_all(rows, call.actor)))


class OneWebhook(Endpoint):
    """One webhook."""

    @serves(auth.OWNER, answer=shapes.Webhook)
    def get(self, call: Call, webhook_id: UUID) -> shapes.Webhook:
        """Read a webhook: whether it is active, and what waits for it."""
        return show(scope.one(mine(call.actor), webhook_id), call.actor)

    @serves(auth.OWNER, answer=shapes.Webhook)
    def delete(self, call: Call, webhook_id: UUID) -> shapes.Webhook:
        """Delete a webhook with all its deliveries. The answer is what it was."""
        row = scope.one(mine(call.actor), webhook_id)
        was = show(row, call.actor)
        webhooks.delete(endpoint=row)
        return was.model_copy(update={"next_actions": []})


class RotateSecret(Endpoint):
    """A webhook's secret."""

    @serves(auth.OWNER, body=shapes.SecretRotation, answer=shapes.WebhookWithSecret, reveals=True, revealed="secret")
    def post(self, call: Call, webhook_id: UUID) -> shapes.Webhook:
        """Give a webhook a new secret, shown in this answer only.

        Until the overlap ends each message has two signatures: one by the new secret and one by the secret before.
        """
        row = webhooks.rotate_secret(
            endpoint=scope.one(mine(call.actor), webhook_id),
            seed=cast("UUID", call.record_id),
            overlap_seconds=call.body.overlap_seconds,
            now=call.now,
        )
        return show(row, call.actor)


class Test(Endpoint):
    """A try of a webhook."""

    @serves(auth.OWNER, answer=shapes.WebhookDelivery, status=202)
    def post(self, call: Call, webhook_id: UUID) -> shapes.WebhookDelivery:
        """Have a `webhook.test` delivered to this webhook and to no other. It is in nobody's feed."""
        row = scope.one(mine(call.actor), webhook_id)
        return show_delivery(webhooks.test(endpoint=row, now=call.now))


class Deliveries(Endpoint):
    """A webhook's deliveries."""

    @serves(auth.OWNER, query=shapes.DeliveryQuery, answer=shapes.WebhookDeliveryPage)
    def get(self, call: Call, webhook_id: UUID) -> shapes.WebhookDeliveryPage:
        """List deliveries of the last 30 days, and those that wait."""
        of = scope.one(mine(call.actor), webhook_id)
        rows = matching(Delivery.objects.filter(endpoint=of).select_related("event"), call.query, "status")
        return shapes.WebhookDeliveryPage(**page(rows, call.query, lambda found: [show_delivery(row) for row in found]))


class Replay(Endpoint):
    """A webhook's second chance."""

    @serves(auth.OWNER, body=shapes.ReplayIn, answer=shapes.Webhook)
    def post(self, call: Call, webhook_id: UUID) -> shapes.Webhook:
        """Have everything that was not delivered tried again now; with `after`, every event after that position.

        A disabled webhook is active again, and goes on where it stopped.
        """
        row = scope.one(mine(call.actor), webhook_id)
        return show(webhooks.replay(endpoint=row, after=call.body.after, now=call.now), call.actor)


def mine(actor: Actor) -> "QuerySet[WebhookEndpoint]":
    """Return the webhooks of the payer, or those of the provider."""
    if actor.scope == Scope.PROVIDER:
        return WebhookEndpoint.objects.filter(provider_id=actor.provider_id)
    if actor.scope == Scope.PAYER:
        return WebhookEndpoint.objects.filter(payer_id=actor.payer_id)
    return WebhookEndpoint.objects.none()  # a webhook is of no session


def show(row: WebhookEndpoint, actor: Actor) -> shapes.Webhook:
    """Show one webhook."""
    return show_all([row], actor)[0]


def show_all(rows: Sequence[WebhookEndpoint], actor: Actor) -> list[shapes.Webhook]:
    """Show webhooks, each with what waits for it and what was given up."""
    kept = Delivery.objects.filter(endpoint__in=rows, status__in=("pending", "dead"))
    counted = kept.order_by().values("endpoint").annotate(
        pending=Count("pk", filter=Q(status="pending")), dead=Count("pk", filter=Q(status="dead"))
    )  # fmt: skip
    counts: dict[UUID, Mapping[str, Any]] = {count["endpoint"]: count for count in counted}
    return [_show(row, actor, counts.get(row.pk, {})) for row in rows]


def _show(row: WebhookEndpoint, actor: Actor, count: Mapping[str, Any]) -> shapes.Webhook:
    names = ("url", "events", "description", "status", "position", "failing_since", "created_at")
    return shapes.Webhook.model_validate(
        {
            "id": row.pk,
            **{name: getattr(row, name) for name in names},
            "reason": row.reason or None,
            "pending": count.get("pending", 0),
            "dead": count.get("dead", 0),
            "previous_secret_until": row.previous_until,
            "next_actions": _next_actions(row, actor),
        }
    )


def _next_actions(endpoint: WebhookEndpoint, actor: Actor) -> list[Action]:
    """One that is active can be tried; one that is disabled, or behind, can be set going again."""
    path = f"/v1/webhooks/{endpoint.pk}"
    offers = [get(f"{path}/deliveries", "See what was delivered, and what was not.")]
    if endpoint.status == WebhookEndpoint.Status.ACTIVE:
        offers.append(post(f"{path}/test", "Have a test delivered.", keyed=False))
    if endpoint.status == WebhookEndpoint.Status.DISABLED or endpoint.failing_since is not None:
        offers.append(post(f"{path}/replay", "Once it answers again: have all that waits delivered now.", keyed=False))
    return actions.of(actor, offers)


def show_delivery(row: Delivery) -> shapes.WebhookDelivery:
    """Show one delivery."""
    names = ("subject_id", "status", "attempts", "last_status", "last_error", "created_at", "delivered_at")
    return shapes.WebhookDelivery.model_validate(
        {
            "id": row.pk,
            "webhook_id": deliveries.id_of(row),
            "position": row.event_id or 0,
            "type": row.event.type if row.event else webhooks.TEST,
            "next_attempt_at": row.next_at if row.status == Delivery.Status.PENDING else None,
            **{name: getattr(row, name) for name in names},
        }
    )
