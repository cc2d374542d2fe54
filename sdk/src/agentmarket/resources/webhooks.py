"""Where events are delivered: `client.webhooks`. Verifying what comes is `agentmarket.webhooks`'. Each verb is one request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from agentmarket import wire
from agentmarket.decode import Answer
from agentmarket.errors import NextAction
from agentmarket.operations import Listing, Resource, S_co, listing, operation
from agentmarket.steps import Steps, one_key


@dataclass(frozen=True, kw_only=True)
class Webhook(Answer):
    id: str
    url: str
    status: str
    events: tuple[str, ...] = ()
    description: str = ""
    reason: str | None = None
    position: int = 0
    pending: int = 0
    dead: int = 0
    failing_since: datetime | None = None
    previous_secret_until: datetime | None = None
    created_at: datetime | None = None
    next_actions: tuple[NextAction, ...] = ()
    #: only in the answer that made it, and in the answer that rotated it
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Delivery(Answer):
    id: str
    #: the header `webhook-id` of its message
    webhook_id: str
    type: str
    status: str
    position: int = 0
    subject_id: str | None = None
    attempts: int = 0
    next_attempt_at: datetime | None = None
    last_status: int | None = None
    last_error: str = ""
    created_at: datetime | None = None
    delivered_at: datetime | None = None


class Webhooks(Resource[S_co]):
    @operation
    def create(
        self, *, url: str, events: Sequence[str] | None = None, description: str | None = None, key: str | None = None
    ) -> Steps[Webhook]:
        """Have events posted to a URL, all of them or the types named. Its `secret` is shown in this answer only."""
        body = {"url": url, "events": None if events is None else [*events], "description": description}
        return self._fetch(Webhook, _once("/v1/webhooks", body, key))

    @listing
    def list(self, *, limit: int | None = None) -> Listing[Webhook]:
        return Listing(wire.get("/v1/webhooks", limit=limit), Webhook)

    @operation
    def get(self, webhook_id: str) -> Steps[Webhook]:
        return self._get(Webhook, _path(webhook_id))

    @operation
    def delete(self, webhook_id: str) -> Steps[Webhook]:
        """Deleted with its deliveries; the answer is what it was."""
        return self._fetch(Webhook, wire.Request("DELETE", _path(webhook_id)))

    @operation
    def rotate_secret(
        self, webhook_id: str, *, overlap_seconds: int | None = None, key: str | None = None
    ) -> Steps[Webhook]:
        """A new `secret`, shown in this answer only. Until the overlap ends messages are signed with the one before, too."""
        body = {"overlap_seconds": overlap_seconds}
        return self._fetch(Webhook, _once(_path(webhook_id, "rotate-secret"), body, key))

    @operation
    def test(self, webhook_id: str) -> Steps[Delivery]:
        """A `webhook.test` for this webhook alone."""
        return self._leave(Delivery, _path(webhook_id, "test"))

    @listing
    def deliveries(self, webhook_id: str, *, status: str | None = None, limit: int | None = None) -> Listing[Delivery]:
        return Listing(wire.get(_path(webhook_id, "deliveries"), status=status, limit=limit), Delivery)

    @operation
    def replay(self, webhook_id: str, *, after: int | None = None) -> Steps[Webhook]:
        """What was not delivered is tried again now; with `after`, every event after that position. Turns it on again."""
        return self._leave(Webhook, _path(webhook_id, "replay"), {"after": after})


def _once(path: str, body: Mapping[str, object], key: str | None) -> wire.Request:
    """A POST that moves no money and has its effect once for a key, so that it may be repeated."""
    request = wire.post(path, body, repeatable=True)
    return replace(request, headers=((wire.KEY_HEADER, one_key(key)),))


def _path(webhook_id: str, *more: str) -> str:
    return "/".join(("/v1/webhooks", wire.segment(webhook_id), *more))
