"""An answer of the lane is the answer that Django gives: the same members, values, headers and refusals."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from escrow import pools, sessions, windows
from escrow.models import ChainCursor, Payment, Pool, Session
from escrow.policy import Policy
from escrow.windows import Window
from marketplace import keys
from marketplace.models import ApiKey, Scope
from tests.escrow import books
from tests.escrow.books import unmoved
from tests.lane.doors import PAY, Asked, Lane
from tests.marketplace.client import Answer
from tests.marketplace.conftest import World, buyer

pytestmark = pytest.mark.django_db(transaction=True)

OWN = {"id", "created_at", "remaining", "next_actions", "request_id"}
"""What two payments that are alike differ in."""


def without(answer: Answer, names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in answer.json.items() if name not in names}


def headers(answer: Answer) -> dict[str, str]:
    """Return an answer's headers but those that are another in each answer, and the methods that a path has."""
    names = set(answer.headers) - {"X-Request-Id", "Content-Length", "Allow", "Ratelimit"}
    return {name: answer.headers[name] for name in names}


def refused(lane: Lane, asked: Asked, *, by_lane: bool = True) -> Answer:
    """Send a request through both doors, see the same refusal, and that no money moved; return it."""
    before, handed = Payment.objects.count(), lane.django.handed
    with unmoved():
        ours = lane.ask(asked)
        assert (lane.django.handed == handed) is by_lane
        theirs = lane.ask_django(asked)
    assert Payment.objects.count() == before
    assert ours.status == theirs.status >= 400
    assert without(ours, {"request_id"}) == without(theirs, {"request_id"})
    assert headers(ours) == headers(theirs) | ({"Cache-Control": "no-store"} if by_lane else {})
    return ours


# --- what goes well -----------------------------------------------------------------------------------------------


def test_a_payment_through_either_door_has_the_same_answer(market: World, lane: Lane) -> None:
    metadata = {"n": [1, 2.5, None, True], "é": 'a "quote", a \\ and a % sign', "%(id)s": {}, "z": "\u007f\t"}
    asked = Asked(market.a.by_session.key, {**PAY, "currency": "USDC", "metadata": metadata})
    ours = lane.ask(asked)
    assert lane.django.handed == 0
    theirs = lane.ask_django(asked)
    assert ours.status == theirs.status == 201
    assert list(ours.json) == list(theirs.json)
    assert without(ours, OWN) == without(theirs, OWN)
    assert ours.json["metadata"] == metadata
    assert (ours.json["remaining"], theirs.json["remaining"]) == ("24.988", "24.976")
    said = [json.dumps(answer.json["next_actions"]).replace(answer.json["id"], "ID") for answer in (ours, theirs)]
    assert said[0] == said[1]
    assert headers(ours) == headers(theirs)
    assert Payment.objects.get(pk=ours.json["id"]).metadata == metadata


@pytest.mark.parametrize("is_lane_first", [True, False], ids=["the lane first", "django first"])
def test_a_replay_through_the_other_door_is_the_same_answer(market: World, lane: Lane, is_lane_first: bool) -> None:
    asked = Asked(market.a.by_session.key, {**PAY, "metadata": {"b": 1.0, "a": ["ü", {}]}}, "k-1")
    doors = [lane.ask, lane.ask_django]
    first, other = doors if is_lane_first else reversed(doors)
    paid = first(asked)
    assert (paid.status, "Idempotent-Replayed" in paid.headers) == (201, False)
    with unmoved():
        replays = [other(asked), first(replace(asked, body=dict(reversed(asked.body.items()))))]
    for replay in replays:
        assert (replay.status, replay.json) == (201, paid.json)
        assert headers(replay) == headers(paid) | {"Idempotent-Replayed": "true"}


def test_a_payer_names_the_session_through_either_door(market: World, lane: Lane) -> None:
    asked = Asked(market.a.by_payer.key, {**PAY, "session_id": str(market.a.session.pk)}, "k-1")
    paid = lane.ask(asked)
    assert lane.django.handed == 0
    assert (paid.status, paid.json["session_id"]) == (201, str(market.a.session.pk))
    assert lane.ask_django(asked).json == paid.json
    by_session = Asked(market.a.by_session.key, asked.body, "k-1")
    assert lane.ask(by_session).json == paid.json


def test_the_first_payment_ever_to_a_provider_and_the_next_ones_are_alike(market: World, lane: Lane) -> None:
    answers = [lane.pay(str(market.a.by_session.key), to="agent://check.example.dev") for _ in range(3)]
    assert [answer.json["remaining"] for answer in answers] == ["24.988", "24.976", "24.964"]


# --- what is refused ----------------------------------------------------------------------------------------------

OPENING = datetime.now(tz=UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=3)
CLOSED = Window(days=(OPENING.weekday(),), start=0, end=1440, zone="UTC")
"""Open on the day after the day after tomorrow, so that no test sees it open."""

RULES: dict[str, tuple[Policy, dict[str, object], dict[str, object]]] = {
    "max_per_tx": (Policy(max_per_tx=11_999), {}, {"limit": "0.011999", "would_allow": "0.011999"}),
    "max_total": (
        Policy(max_total=20_000), {"spent": 1}, {"limit": "0.02", "would_allow": "0.008", "spent": "0.012"},
    ),
    "max_per_hour": (
        Policy(max_per_hour=23_999), {"spent": 1}, {"limit": "0.023999", "would_allow": "0.011999", "spent": "0.012"},
    ),
    "max_per_day": (
        Policy(max_per_day=30_000), {"spent": 2}, {"limit": "0.03", "would_allow": "0.006", "spent": "0.024"},
    ),
    "max_tx_per_minute": (Policy(max_tx_per_minute=2), {"spent": 2}, {"limit": 2, "would_allow": None}),
    "allowed_recipients": (
        Policy(allowed_recipients=("*.example.dev",)), {},
        {"limit": ["*.example.dev"], "would_allow": ["*.example.dev"]},
    ),
    "denied_recipients": (
        Policy(denied_recipients=("lint.acme.dev",)), {}, {"limit": ["lint.acme.dev"], "would_allow": None},
    ),
    "expires_at": (
        Policy(expires_at=datetime(2026, 1, 1, tzinfo=UTC)), {}, {"limit": "2026-01-01T00:00:00Z", "would_allow": None},
    ),
    "windows": (
        Policy(windows=(CLOSED,)), {},
        {
            "limit": [windows.written(CLOSED)],
            "would_allow": f"{OPENING:%Y-%m-%d}T00:00:00Z",
            "available_at": f"{OPENING:%Y-%m-%d}T00:00:00Z",
        },
    ),
    "allowed_capabilities": (
        Policy(allowed_capabilities=("code.lint",)), {}, {"limit": ["code.lint"], "would_allow": ["code.lint"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.promise("S5", "S7", "S8", "S9", "S29")
def test_each_rule_of_a_policy_refuses_alike(market: World, lane: Lane, rule: str) -> None:
    policy, before, facts = RULES[rule]
    spender = buyer("payer C", policy)
    key = str(spender.by_session.key)
    for _ in range(int(str(before.get("spent", 0)))):
        assert lane.pay(key).status == 201
    answer = refused(lane, Asked(key))
    assert (answer.status, answer.json["code"], answer.json["rule"]) == (403, "policy_denied", rule)
    assert {name: answer.json.get(name) for name in facts} == facts
    assert answer.json["policy_version"] == 1
    assert answer.json["outcome"] == "not_charged"
    assert answer.json["retryable"] is (rule in ("max_per_hour", "max_per_day", "max_tx_per_minute", "windows"))
    assert answer.json["next_actions"][0]["path"] == f"/v1/sessions/{spender.session.pk}"


def test_more_than_is_left_is_refused_alike_to_a_session_and_to_its_payer(market: World, lane: Lane) -> None:
    dear = {**PAY, "amount": "25.000001"}
    told = refused(lane, Asked(market.a.by_session.key, dear))
    assert (told.status, told.json["code"]) == (402, "insufficient_funds")
    assert (told.json["remaining"], told.json["required"]) == ("25.00", "25.000001")
    of_payer = Asked(market.a.by_payer.key, {**dear, "session_id": str(market.a.session.pk)})
    action = refused(lane, of_payer).json["next_actions"][0]
    assert action["path"] == f"/v1/sessions/{market.a.session.pk}/top-up"


def close_session(market: World) -> None:
    sessions.close(session=market.a.session, now=timezone.now())


def end_session(market: World) -> None:
    Session.objects.filter(pk=market.a.session.pk).update(expires_at=timezone.now())


def close_pool(market: World) -> None:
    pools.close(pool=market.a.pool, now=timezone.now())


def end_pool(market: World) -> None:
    Pool.objects.filter(pk=market.a.pool.pk).update(expires_at=timezone.now())


@pytest.mark.parametrize(
    ("end", "state"),
    [(close_session, "closed"), (end_session, "expired"), (close_pool, "closing"), (end_pool, "expired")],
    ids=["closed session", "ended session", "closing pool", "ended pool"],
)
def test_what_is_over_pays_nothing_through_either_door(
    market: World, lane: Lane, end: Callable[[World], None], state: str
) -> None:
    assert lane.pay(str(market.a.by_session.key), "k-1").status == 201
    end(market)
    answer = refused(lane, Asked(market.a.by_session.key))
    assert (answer.status, answer.json["code"], answer.json["state"]) == (409, "conflict", state)
    assert lane.pay(str(market.a.by_session.key), "k-1").headers["Idempotent-Replayed"] == "true"


def test_while_settlement_is_paused_either_door_says_so_and_knows_what_was_paid(market: World, lane: Lane) -> None:
    assert lane.pay(str(market.a.by_session.key), "k-1").status == 201
    books.settlement_paused(market.a.pool)
    answer = refused(lane, Asked(market.a.by_session.key))
    assert (answer.status, answer.json["code"], answer.headers["Retry-After"]) == (503, "settlement_paused", "60")
    assert (answer.json["outcome"], answer.json["retryable"]) == ("not_charged", True)
    assert lane.pay(str(market.a.by_session.key), "k-1").headers["Idempotent-Replayed"] == "true"
    ChainCursor.objects.update(paused_at=None)
    assert lane.ask(Asked(market.a.by_session.key)).status == 201


def test_a_key_that_came_with_another_body_is_refused_alike(market: World, lane: Lane) -> None:
    lane.pay(str(market.a.by_session.key), "k-1")
    answer = refused(lane, Asked(market.a.by_session.key, {**PAY, "amount": "0.013"}, "k-1"))
    assert (answer.status, answer.json["code"]) == (409, "idempotency_conflict")
    assert answer.json["next_actions"][0]["path"] == f"/v1/payments?session_id={market.a.session.pk}"
    lane.ask_django(Asked(market.a.by_session.key, dict(PAY), "k-2"))
    assert refused(lane, Asked(market.a.by_session.key, {**PAY, "amount": "0.013"}, "k-2")).status == 409


def test_what_is_not_there_or_is_another_s_is_refused_alike(market: World, lane: Lane) -> None:
    key, payer_key = market.a.by_session.key, market.a.by_payer.key
    _, other = keys.open_session(pool=market.a.pool, budget_micros=1, policy=Policy(), now=timezone.now())
    cases = {
        "an agent that nobody knows": Asked(key, {**PAY, "to": "agent://unknown.acme.dev"}),
        "another payer's session": Asked(payer_key, {**PAY, "session_id": str(market.b.session.pk)}),
        "a session that is not there": Asked(payer_key, {**PAY, "session_id": str(uuid4())}),
        "another session of the same payer": Asked(other, {**PAY, "session_id": str(market.a.session.pk)}),
        "another payer's session, with a session's key": Asked(key, {**PAY, "session_id": str(market.b.session.pk)}),
    }
    for name, asked in cases.items():
        answer = refused(lane, asked, by_lane=False)
        assert (answer.status, answer.json["code"]) == (404, "not_found"), name


def test_a_payer_that_names_no_session_is_answered_by_django(market: World, lane: Lane) -> None:
    asked = Asked(market.a.by_payer.key, dict(PAY), "k-1")
    handed, paid, again = lane.django.handed, lane.ask(asked), lane.ask(asked)
    assert lane.django.handed == handed + 2
    assert (paid.status, paid.json["session_id"]) == (201, str(market.a.session.pk))
    assert again.headers["Idempotent-Replayed"] == "true"


def test_a_key_that_may_not_pay_is_refused_alike(market: World, lane: Lane) -> None:
    now, payer, session = timezone.now(), market.a.payer, market.a.session
    expiring, expired = keys.issue(scope=Scope.SESSION, session=session, expires_at=now + timedelta(days=1), now=now)
    ApiKey.objects.filter(pk=expiring.pk).update(expires_at=now)
    gone, revoked = keys.issue(scope=Scope.SESSION, session=session, now=now)
    keys.revoke(key=gone, now=now)
    _, reading = keys.issue(scope=Scope.SESSION, session=session, read_only=True, now=now)
    _, reading_payer = keys.issue(scope=Scope.PAYER, payer=payer, read_only=True, now=now)
    named = {**PAY, "session_id": str(session.pk)}
    key_id, secret = keys.derive(uuid4())
    own_id = ApiKey.objects.get(session=session, revoked_at=None, read_only=False, expires_at=None).key_id
    cases = [
        (401, "unauthenticated", Asked(expired)),
        (401, "unauthenticated", Asked(revoked)),
        (401, "unauthenticated", Asked(keys.text_of(key_id, secret))),
        (401, "unauthenticated", Asked(keys.text_of(own_id, secret))),
        (401, "unauthenticated", Asked(str(market.a.by_session.key)[:-1] + "1")),
        (401, "unauthenticated", Asked("")),
        (403, "forbidden", Asked(reading)),
        (403, "forbidden", Asked(reading_payer, named)),
        (403, "forbidden", Asked(market.one.by_provider.key)),
        (403, "forbidden", Asked(market.one.by_provider.key, named)),
    ]
    for status, code, asked in cases:
        answer = refused(lane, asked, by_lane=False)
        assert (answer.status, answer.json["code"]) == (status, code), asked
