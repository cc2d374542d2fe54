"""The lane's HTTP. Lives here: from a request to an order, and from a decision to the bytes of an answer.

The lane answers what goes well and every refusal of the money rooms. Anything else (a malformed request, a key that opens
nothing, an agent that nobody knows) it hands on to Django as it came, so that there is one place that explains it.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, cast
from uuid import uuid4

from django.conf import settings
from django.http.request import split_domain_port, validate_host

from escrow import money, payments, trail, verdicts
from escrow.errors import EscrowError
from escrow.verdicts import MAX_KNOWN
from marketplace import keys, meters
from marketplace.api import endpoint, errors, idempotency, parsing, show_sent, ways_on
from marketplace.api.bodies import PaymentIn
from marketplace.api.errors import Problem
from marketplace.api.rates import Standing
from marketplace.api.ways_on import About, Asked
from marketplace.lane import faults, quotas
from marketplace.lane.batches import Batches
from marketplace.lane.statement import Decision, Order

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Answer = tuple[int, list[tuple[bytes, bytes]], bytes]

PATH: Final = "/v1/payments"
_MAX_BODY: Final = settings.LANE_MAX_BODY_BYTES
_TLS_ONLY: Final = settings.SECURE_SSL_REDIRECT
"""Then Django redirects a plain request."""
_BEHIND_PROXY: Final = settings.BEHIND_PROXY
_READ: Final = frozenset(
    (b"authorization", b"idempotency-key", b"content-length", b"content-type", b"accept", b"host", b"x-forwarded-proto")
)
_UNUSUAL: Final = frozenset((b"transfer-encoding", b"content-encoding", b"expect"))
_HSTS: Final = f"max-age={settings.SECURE_HSTS_SECONDS}; includeSubDomains; preload"
_COMMON: Final = (
    (b"cache-control", b"no-store"),
    # What Django's middleware says of every answer.
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    *([(b"strict-transport-security", _HSTS.encode())] if settings.SECURE_HSTS_SECONDS else []),
)


class NotForTheLane(Exception):
    """The request is for Django to answer."""


class Door:
    """An ASGI application: the lane's one operation, and ``django`` for everything else."""

    def __init__(self, batches: Batches, django: App) -> None:
        self._batches = batches
        self._django = django
        self._sessions: dict[str, str] = {}
        """From the id of a session's key to its session, which never changes; the statement checks it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] == PATH:
            await self._pay(scope, receive, send)
        else:
            await self._hand_on(scope, receive, send)

    async def _hand_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        # WSGI writes `Some_Header` and `Some-Header` alike, so that one could pass for the other where only one is looked at.
        scope["headers"] = [header for header in scope["headers"] if b"_" not in header[0]]
        if 0 < _length(scope) <= settings.API_MAX_BODY_BYTES:
            # Read here, so that a caller who sends by the drop holds no thread of Django's.
            body = await _body(receive)
            if body is None:
                return
            receive = _replayed(body, receive)
        await self._django(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._batches.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._batches.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _pay(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            headers = plain_headers(scope)
        except NotForTheLane:
            await self._hand_on(scope, receive, send)
            return
        body = await _body(receive)
        if body is None:  # the caller is gone
            return
        begun = time.perf_counter()
        try:
            order = self._order(headers, body)
            answer = await self._answer(order, quotas.before(order, scope), body)
        except NotForTheLane:
            await self._hand_on(scope, _replayed(body, receive), send)
            return
        seconds = time.perf_counter() - begun
        meters.count(through="lane", method="POST", route=PATH[1:], status=answer[0], seconds=seconds)
        await _send(send, *answer)

    def _order(self, headers: Mapping[bytes, bytes], body: bytes) -> Order:
        try:
            scheme, _, token = headers[b"authorization"].decode("ascii").partition(" ")
            if scheme.lower() != "bearer":
                raise NotForTheLane
            key_id, secret_hash = keys.parse(token.strip())
            idempotency_key = idempotency.check_key(headers[b"idempotency-key"].decode("ascii"))
            if len(body) != int(headers[b"content-length"]):
                raise NotForTheLane
            raw = parsing.read(body)
            asked: PaymentIn = endpoint.read(PaymentIn, raw)
            payments.require_payable_amount(asked.amount)
        except (KeyError, ValueError, Problem, EscrowError):
            raise NotForTheLane from None
        return Order(
            key_id=key_id,
            secret_hash=secret_hash,
            session_id=str(asked.session_id) if asked.session_id else self._sessions.get(key_id),
            to=asked.to,
            amount_micros=asked.amount,
            shown_amount=money.render(asked.amount),
            metadata=parsing.canonical(asked.metadata).decode(),
            capability=asked.capability or "",
            idempotency_key=idempotency_key,
            request_hash=idempotency.hash_of("POST", PATH, raw),
        )

    async def _answer(self, order: Order, standing: Standing | None, body: bytes) -> Answer:
        about = About(moves_money=True, sent=lambda: ways_on.repeatable(lambda: json.loads(body), len(body)))
        about.quota = standing.headers if standing else {}
        if standing is not None and not standing.is_within:
            return _problem(standing.refusal(), about)
        try:
            decision, opinion = await self._batches.decide(order)
        except Exception as fault:  # noqa: BLE001 - every fault is an answer; what it is not sure of, it says so
            return _problem(faults.problem_of(fault), about)
        if not decision.admitted:
            raise NotForTheLane
        standing = standing or quotas.admitted(order)
        if decision.key_session_id is not None:
            if len(self._sessions) >= MAX_KNOWN:
                self._sessions.clear()  # each is learnt again by its next payment
            self._sessions[order.key_id] = decision.key_session_id
        verdict = decision.verdict
        if verdict.outcome in (verdicts.ALLOWED, verdicts.REPLAYED):
            return _sent(order, decision, standing)
        refusal = verdicts.refusal(
            verdict, amount_micros=order.amount_micros, opinion=opinion, key=order.idempotency_key
        )
        quotas.refused(order, refusal)
        about.scope, about.session_id, about.quota = decision.scope, decision.session_id, standing.headers
        return _problem(refusal, about)


def plain_headers(scope: Scope) -> dict[bytes, bytes]:
    """Return the headers that the lane reads. Raises NotForTheLane for a request that wants more care than it takes."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _READ:
            if name in found:
                raise NotForTheLane
            found[name] = value
        elif name in _UNUSUAL:
            raise NotForTheLane
    length = found.get(b"content-length", b"")
    is_plain = (
        not scope["query_string"]
        and _is_json(found.get(b"content-type", b""))
        and _is_content_with_json(found.get(b"accept", b"*/*"))
        and length.isdigit()
        and len(length) < 9
        and int(length) <= _MAX_BODY
        and (
            not _TLS_ONLY
            or scope["scheme"] == "https"
            or (_BEHIND_PROXY and found.get(b"x-forwarded-proto") == b"https")
        )
        and _is_host_allowed(found.get(b"host", b""))
    )
    if not is_plain:
        raise NotForTheLane
    return found


@lru_cache(maxsize=100)
def _is_json(content_type: bytes) -> bool:
    text = content_type.decode("latin-1")
    return text.partition(";")[0].strip().lower() == "application/json" and parsing.is_utf8(text)


@lru_cache(maxsize=100)
def _is_content_with_json(accept: bytes) -> bool:
    return any(kind in accept.lower() for kind in (b"application/json", b"application/*", b"*/*"))


@lru_cache(maxsize=100)
def _is_host_allowed(host: bytes) -> bool:
    domain, _ = split_domain_port(host.decode("latin-1"))
    return bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)


def _sent(order: Order, decision: Decision, standing: Standing) -> Answer:
    verdict = decision.verdict
    shown = show_sent.sent_json(
        id=cast("str", verdict.payment_id),
        session_id=cast("str", decision.session_id),
        to=order.to,
        provider_id=cast("str", decision.provider_id),
        amount=order.shown_amount,
        metadata=order.metadata,
        capability=f'"{order.capability}"' if order.capability else "null",
        created_at=cast("datetime", verdict.at),
        remaining_micros=verdict.remaining_micros,
    )
    headers = [
        (b"content-type", b"application/json"),
        (b"x-request-id", str(uuid4()).encode()),
        *quotas.headers(standing),
    ]
    if verdict.outcome == verdicts.REPLAYED:
        headers.append((b"idempotent-replayed", b"true"))
    return 201, headers, shown.encode()


def _problem(fault: Exception, about: About) -> Answer:
    request_id = str(uuid4())
    with trail.follow(request_id):
        status, more, document = errors.render(fault, Asked("POST", PATH, request_id, about))
    headers = [(name.lower().encode(), value.encode()) for name, value in more.items()]
    headers += [(b"content-type", errors.CONTENT_TYPE.encode()), (b"x-request-id", request_id.encode())]
    return status, headers, document.encode()


async def _body(receive: Receive) -> bytes | None:
    """Return the whole body; None when the caller has gone, or sends too slowly to be waited for."""
    parts: list[bytes] = []
    try:
        async with asyncio.timeout(settings.API_BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                parts.append(message.get("body", b""))
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        return None


def _length(scope: Scope) -> int:
    """Return the one Content-Length that a request says, 0 when it says none or none that is a number."""
    said = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(said[0][:12]) if len(said) == 1 and said[0].isdigit() else 0


def _replayed(body: bytes, receive: Receive) -> Receive:
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replay() -> Message:
        return next(messages, None) or await receive()

    return replay


async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    headers += [*_COMMON, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
