"""What can be sent next after a refusal. Lives here: what is known of a refused call, and the requests that get it further.

What makes sense after an answer that went well is `marketplace.api.actions`'. Each way on can be sent as it is; where only the
caller knows what belongs into a body, its members are named instead.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError
from rest_framework.request import Request

from escrow import money
from escrow.errors import InvalidInput
from marketplace.api.fields import JsonObject, Shape

ECHO_MAX: Final = 4 * 1024
"""Bytes of a body that an answer repeats, for the caller to send again; of a larger one it says only that it is the same."""

THE_SAME: Final = "the same body"
_REPEAT: Final = "Repeat the request with the same Idempotency-Key."
_REPEATED: Final = {
    "internal": _REPEAT,
    "unavailable": _REPEAT,
    "rate_limited": "Wait for Retry-After seconds, then repeat the request with the same Idempotency-Key.",
    "pool_opening": "Wait for Retry-After seconds, then repeat the request with the same Idempotency-Key.",
    "settlement_paused": "Wait for Retry-After seconds, then repeat the request with the same Idempotency-Key.",
    "approval_required": "Once it is approved, repeat the request with the same Idempotency-Key.",
}
"""Codes after which the very same request is the way on."""


def _unknown() -> object:
    return None


@dataclass(slots=True)
class About:
    """What is known of the call that failed: set on the request as soon as it is known."""

    moves_money: bool = False
    scope: str = ""
    session_id: str | None = None
    quota: dict[str, str] = field(default_factory=dict)
    """The headers that say what the key has left of its quota."""
    sent: Callable[[], object] = _unknown
    """Returns the body that came, where it can be repeated; asked only when it is needed."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The request that a problem answers."""

    method: str
    path: str
    request_id: str
    about: About
    query: str = ""


def _is_none(value: object) -> bool:
    return value is None


class Action(Shape):
    """A request that makes sense now. Members that say nothing are left out."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    why: str
    headers: Annotated[
        list[str] | None, Field(description="Headers to send beside key and content type.", exclude_if=_is_none)
    ] = None
    body: Annotated[JsonObject | None, Field(description="A body that can be sent as it is.", exclude_if=_is_none)] = (
        None
    )
    needs: Annotated[
        list[str] | None,
        Field(
            description="Members of the body that only the caller knows; then there is no `body`.", exclude_if=_is_none
        ),
    ] = None


def get(path: str, why: str) -> Action:
    """Return a request that only reads."""
    return Action(method="GET", path=path, why=why)


def post(path: str, why: str, *needs: str, body: object = None, keyed: bool = True) -> Action:
    """Return a request that changes something: with a body to send, or the members that only the caller knows.

    ``keyed`` is whether it takes an Idempotency-Key.
    """
    known = body if isinstance(body, dict) else {}
    return Action(
        method="POST",
        path=path,
        why=why,
        headers=["Idempotency-Key"] if keyed else None,
        body=None if needs else known,
        needs=list(needs) or None,
    )


def after(code: str, facts: Mapping[str, object], asked: Asked) -> list[Action]:
    """Return what can be sent next to get further, most useful first."""
    return [
        *_first(code, facts, asked),
        get(f"/docs/errors/{code}", "Read what this code means and what helps."),
    ]


def _first(code: str, facts: Mapping[str, object], asked: Asked) -> list[Action]:
    about = asked.about
    session = f"/v1/sessions/{about.session_id}" if about.session_id else None
    match code:
        case "insufficient_funds" if session and about.scope == "payer":
            return [_top_up(session, facts)]
        case "insufficient_funds" | "policy_denied" if session:
            look = get(session, "See what is left and what the policy allows.")
            return [look, *(_check(facts, about) if code == "policy_denied" else [])]
        case "insufficient_funds":
            return [get("/v1/pools", "See what the pools hold; top one up, then repeat the request.")]
        case "idempotency_conflict" if session:
            path = f"/v1/payments?session_id={about.session_id}"
            return [get(path, "See what the key has done already.")]
        case "approval_required" if "approval_id" in facts:
            return [*_approval(str(facts["approval_id"]), about.scope), _again(code, asked)]
        case "forbidden":
            return [get("/v1/me", "See whose key this is, and what it may do.")]
        case "conflict" | "already_redeemed" | "duplicate_invoice" if asked.method == "POST":
            return [get(_subject(asked.path), "Read its state and its next actions.")]
        case "not_settled_yet":
            return [get(_subject(asked.path), "Read its status: a receipt is there once it is settling.")]
    return [_again(code, asked)] if code in _REPEATED else []


def _top_up(session: str, facts: Mapping[str, object]) -> Action:
    why = "Move more of the pool's money into the session, then repeat the request."
    try:
        missing = money.parse(facts.get("required")) - money.parse(facts.get("remaining"), minimum=0)
    except InvalidInput:
        missing = 0
    path = f"{session}/top-up"
    return post(path, why, body={"amount": money.render(missing)}) if missing > 0 else post(path, why, "amount")


def _check(facts: Mapping[str, object], about: About) -> list[Action]:
    """Return the question what a payment would be answered that the policy allows more likely; none for other requests."""
    sent = about.sent()
    if not isinstance(sent, dict) or not isinstance(sent.get("to"), str) or "amount" not in sent:
        return []
    body = {"session_id": about.session_id, "to": sent["to"], "amount": _allowed(facts, sent["amount"])}
    if sent.get("capability") is not None:
        body["capability"] = sent["capability"]
    if facts.get("available_at") is not None:
        body["at"] = facts["available_at"]
    why = "Ask what would be answered to what the policy allows, or to anything else; nothing is paid."
    return [post("/v1/policy/check", why, body=body, keyed=False)]


def _allowed(facts: Mapping[str, object], amount: object) -> object:
    """Return the amount that would pass, where that is what the policy limits and where there is one."""
    try:
        return money.render(money.parse(facts.get("would_allow")))
    except InvalidInput:
        return amount


def _approval(id: str, scope: str) -> list[Action]:
    path = f"/v1/approvals/{id}"
    if scope == "payer":
        return [post(f"{path}/approve", "Approve it, if you may.", keyed=False)]
    return [get(path, "See whether it is approved.")]


def _again(code: str, asked: Asked) -> Action:
    target = f"{asked.path}?{asked.query}" if asked.query else asked.path
    if asked.method == "DELETE":
        return Action(method="DELETE", path=target, why=_once_more(code))
    if asked.method != "POST":
        return get(target, _once_more(code))
    body, keyed = asked.about.sent(), asked.about.moves_money
    why = _REPEATED[code] if keyed else _once_more(code)
    return post(target, why, *([] if body is not None else [THE_SAME]), body=body, keyed=keyed)


def _once_more(code: str) -> str:
    return _REPEATED[code].replace(" with the same Idempotency-Key", "")


def _subject(path: str) -> str:
    parts = path.split("/")
    return "/".join(parts[:4]) if len(parts) > 4 else path


def repeatable(read: Callable[[], Any], length: int) -> object:
    """Return a body of that many bytes as it came, or None when it is too large to repeat, or is none."""
    if length > ECHO_MAX:
        return None
    try:
        found = read()
        json.dumps(found)
    except Exception:  # noqa: BLE001 - whatever is wrong with it is not what the answer is about
        return None
    return found


def sent(shape: type[Shape], request: Request) -> object:
    """Return the body that a request came with, or None when it cannot be sent again as it is."""
    length = request.META.get("CONTENT_LENGTH") or "0"
    if not length.isascii() or not length.isdigit():
        return None
    body = repeatable(lambda: request.data, int(length[:12]))
    try:
        shape.model_validate(body)
    except ValidationError:
        return None
    return body
