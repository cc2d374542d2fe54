"""Requests and replies as plain values: how a request is written, how a reply becomes JSON or an error.

Nothing here opens a connection or waits; the API key is not here either (the shells add it when they send).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote
from uuid import UUID

from agentmarket import errors

PAYMENT_HEADER = "Agent-Payment"
KEY_HEADER = "Idempotency-Key"
REPLAYED_HEADER = "idempotent-replayed"
JSON_TYPE = "application/json"


@dataclass(frozen=True)
class Request:
    """One HTTP request. `key` marks one that moves money; `repeatable` one that may be sent again after silence."""

    method: str
    url: str
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = field(default=None, repr=False)
    key: str | None = None
    repeatable: bool = False
    #: to an agent, not to the market: the API key must not go with it
    foreign: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    timeout: float | None = None

    def all_headers(self) -> dict[str, str]:
        headers = {"Accept": f"{JSON_TYPE}, application/problem+json", **dict(self.headers)}
        if self.body is not None:
            headers["Content-Type"] = JSON_TYPE
        if self.key is not None:
            headers[KEY_HEADER] = self.key
        return headers


@dataclass(frozen=True)
class Reply:
    """What came back. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def replayed(self) -> bool:
        """Whether the market had done this before, for the same key."""
        return self.headers.get(REPLAYED_HEADER, "").lower() == "true"


@dataclass(frozen=True)
class Silence:
    """No reply. `sent` is False only when the request certainly did not leave."""

    reason: str
    sent: bool


def get(path: str, **query: object) -> Request:
    pairs = tuple((name, _query_text(value)) for name, value in query.items() if value is not None)
    return Request("GET", path, query=pairs, repeatable=True)


def post(
    path: str, body: Mapping[str, Any] | None = None, *, key: str | None = None, repeatable: bool = False
) -> Request:
    """A POST without its None fields. With a `key` it may always be repeated: the market answers a key once."""
    stated = {name: value for name, value in (body or {}).items() if value is not None}
    return Request("POST", path, body=encode(stated), key=key, repeatable=repeatable or key is not None)


def segment(name: str) -> str:
    """One part of a path, whatever it contains."""
    return quote(name, safe="")


def encode(value: object) -> bytes:
    """JSON bytes. UUID, Decimal and dates are written as strings; NaN and lone surrogates are refused here."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise errors.InvalidRequest(f"This cannot be written as JSON: {error}.", outcome="not_charged") from None


def canonical(value: object) -> bytes:
    """JSON bytes that do not depend on the order in which an object was written. Refuses what `encode` refuses."""
    plain = json.loads(encode(value))
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def request_hash(agent: str, method: str, target: str, body: bytes) -> str:
    """What binds a payment to one request to one agent: SHA-256 over agent, method, target and body, 64 hex digits."""
    return hashlib.sha256(f"{agent}\n{method.upper()}\n{target}\n".encode() + body).hexdigest()


def read(reply: Reply) -> Any:
    """The JSON of an accepted reply."""
    try:
        return json.loads(reply.body)
    except (ValueError, RecursionError):
        raise errors.InvalidReply(
            f"The answer (status {reply.status}) is not JSON: is this the right address?",
            status=reply.status,
            request_id=reply.headers.get("x-request-id"),
        ) from None


def problem(reply: Reply) -> Mapping[str, Any]:
    """The problem document of a refusal; empty when there is none (a proxy's page)."""
    try:
        document = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def refusal(reply: Reply, *, key: str | None = None) -> errors.AgentMarketError:
    """The error for a reply that is not a success."""
    document = problem(reply)
    kind = _CODES.get(str(document.get("code"))) or _STATUSES.get(reply.status)
    if kind is None:
        kind = errors.ServerError if reply.status >= 500 else errors.InvalidRequest
    return kind(
        _text(document.get("detail"))
        or _text(document.get("title"))
        or f"The answer was {reply.status}, without a problem document.",
        code=_text(document.get("code")),
        status=reply.status,
        **{name: _text(document.get(name)) for name in ("rule", "spent", "remaining", "required", "state")},
        limit=_texts(document.get("limit")),
        policy_version=_whole(document.get("policy_version")),
        approval_id=_text(document.get("approval_id")),
        available_at=_moment(document.get("available_at")),
        checkpoint=_checkpoint(document),
        would_allow=_texts(document.get("would_allow")),
        retryable=document.get("retryable") is True,
        outcome=_outcome(document.get("outcome")),
        next_actions=_next_actions(document.get("next_actions")),
        request_id=_text(document.get("request_id")) or reply.headers.get("x-request-id"),
        errors=_field_errors(document.get("errors")),
        retry_after=retry_after(reply),
        key=key,
    )


def retry_after(reply: Reply) -> float | None:
    """Seconds to wait: a number, or an HTTP date less the answer's own Date (our clock may be wrong)."""
    text = reply.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        wait = parsedate_to_datetime(text) - parsedate_to_datetime(reply.headers.get("date", ""))
        return max(0.0, wait.total_seconds())
    except (TypeError, ValueError):
        return None


def _plain(value: object) -> str:
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON")


def _query_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(value: object) -> str | None:
    return None if value is None or value == "" else str(value)


def _texts(value: object) -> str | tuple[str, ...] | None:
    return tuple(map(str, value)) or None if isinstance(value, list) else _text(value)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _moment(value: object) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _checkpoint(document: Mapping[str, Any]) -> errors.Checkpoint | None:
    """Where the budget stands; an answer that only names what is left is one too."""
    stated = document.get("checkpoint")
    facts = stated if isinstance(stated, dict) else document
    names = ("budget", "spent", "remaining")
    if stated is None and document.get("code") != "insufficient_funds":
        return None
    return errors.Checkpoint(**{name: _text(facts.get(name)) for name in names})


def _outcome(value: object) -> errors.Outcome | None:
    return value if value in ("not_charged", "charged", "unknown") else None


def _next_actions(value: object) -> tuple[errors.NextAction, ...]:
    items = value if isinstance(value, list) else []
    return tuple(errors.NextAction.read(item) for item in items if isinstance(item, dict))


def _field_errors(value: object) -> tuple[errors.FieldError, ...]:
    items = value if isinstance(value, list) else []
    return tuple(
        errors.FieldError(
            field=str(item.get("field", "")),
            rule=str(item.get("rule", "")),
            message=str(item.get("message", "")),
            would_pass=item.get("would_pass"),
        )
        for item in items
        if isinstance(item, dict)
    )


#: every code of the API; a test holds this against the market's own list
_CODES: Mapping[str, type[errors.AgentMarketError]] = {
    "invalid_request": errors.InvalidRequest,
    "invalid_json": errors.InvalidRequest,
    "idempotency_key_required": errors.InvalidRequest,
    "method_not_allowed": errors.InvalidRequest,
    "not_acceptable": errors.InvalidRequest,
    "payload_too_large": errors.InvalidRequest,
    "unsupported_media_type": errors.InvalidRequest,
    "unauthenticated": errors.Unauthenticated,
    "forbidden": errors.Forbidden,
    "policy_denied": errors.PolicyDenied,
    "approval_required": errors.ApprovalRequired,
    "insufficient_funds": errors.BudgetExhausted,
    "not_found": errors.NotFound,
    "conflict": errors.Conflict,
    "already_redeemed": errors.Conflict,
    "duplicate_invoice": errors.Conflict,
    "not_settled_yet": errors.Conflict,
    "idempotency_conflict": errors.IdempotencyConflict,
    "pool_opening": errors.PoolOpening,
    "rate_limited": errors.RateLimited,
    "settlement_paused": errors.SettlementPaused,
    "unavailable": errors.Unavailable,
    "internal": errors.ServerError,
}
_STATUSES: Mapping[int, type[errors.AgentMarketError]] = {
    401: errors.Unauthenticated,
    402: errors.InsufficientFunds,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    429: errors.RateLimited,
    503: errors.Unavailable,
}
