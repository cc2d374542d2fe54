"""Asking a policy without spending: one payment that nobody makes, and the past under another policy."""

from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.utils import timezone

from escrow import history, pools, sessions
from escrow.models import Denial, Payment
from escrow.policy import Policy
from marketplace import keys
from marketplace.api import policies
from marketplace.models import Scope
from tests.escrow import books
from tests.marketplace.client import Caller
from tests.marketplace.conftest import World, buyer

pytestmark = pytest.mark.django_db

LINT = "agent://lint.acme.dev"
PAY = {"to": LINT, "amount": "0.012"}
CHECK, BACKTEST = "/v1/policy/check", "/v1/policy/backtest"
MEMBERS = {
    *("allowed", "code", "rule", "limit", "spent", "remaining", "would_allow", "available_at", "detail"),
    "policy_version",
}


def rows() -> dict[str, int]:
    """Return how many rows each table has."""
    tables = [model for model in apps.get_models() if model._meta.managed]
    return {model._meta.db_table: model._base_manager.count() for model in tables}


def check(caller: Caller, **body: Any) -> dict[str, Any]:
    before = rows()
    answer = caller.post(CHECK, PAY | body, idempotency_key=None)
    assert answer.status == 200, answer.json
    assert set(answer.json) == MEMBERS
    assert rows() == before
    return dict(answer.json)


# --- check ----------------------------------------------------------------------------------------------------------


def test_an_agent_is_told_what_would_be_left(world: World, unmoved) -> None:
    with unmoved():
        told = check(world.a.by_session)
    assert told == dict.fromkeys(MEMBERS) | {"allowed": True, "remaining": "24.988", "policy_version": 1}


def test_a_payer_names_the_session_and_an_agent_its_own_or_one_inside_it(world: World, unmoved) -> None:
    inside = sessions.open_child(parent=world.a.session, budget_micros=1_000_000, policy=Policy(), now=timezone.now())
    with unmoved():
        assert check(world.a.by_payer, session_id=str(world.a.session.pk))["remaining"] == "23.988"
        assert check(world.a.by_session, session_id=str(inside.pk))["remaining"] == "0.988"
        unnamed = world.a.by_payer.post(CHECK, PAY)
    assert (unnamed.status, unnamed.json["errors"][0]["field"]) == (400, "session_id")


@pytest.mark.parametrize(
    ("policy", "pay", "would"),
    [
        ({"max_per_tx": "0.01"}, {}, {"rule": "max_per_tx", "limit": "0.01", "would_allow": "0.01"}),
        ({"max_per_day": "0.01"}, {}, {"rule": "max_per_day", "limit": "0.01", "spent": "0.00", "would_allow": "0.01"}),
        ({"denied_recipients": ["lint.acme.dev"]}, {}, {"rule": "denied_recipients", "limit": ["lint.acme.dev"]}),
        ({"allowed_capabilities": ["review"]}, {"capability": "code.lint"}, {"rule": "allowed_capabilities"}),
        (
            {"approval_above": "0.01"},
            {},
            {"code": "approval_required", "rule": "approval_above", "would_allow": "0.01"},
        ),
        ({"expires_at": "2020-01-01T00:00:00Z"}, {}, {"rule": "expires_at", "would_allow": None}),
        ({}, {"amount": "25.01"}, {"code": "insufficient_funds", "remaining": "25.00", "would_allow": "25.00"}),
    ],
)
def test_the_answer_is_what_a_payment_gets(
    world: World, unmoved, policy: dict[str, Any], pay: dict[str, Any], would: dict[str, Any]
) -> None:
    proposed = check(world.a.by_session, policy=policy, **pay)
    world.a.by_payer.post(f"/v1/sessions/{world.a.session.pk}/policy", {"policy": policy})
    told = check(world.a.by_session, **pay)
    with unmoved():
        paid = world.a.by_session.post("/v1/payments", PAY | pay).json
    assert told | {"policy_version": None} == proposed
    expected = {"code": "policy_denied"} | would
    assert {name: told[name] for name in expected} == expected
    members = ("code", "rule", "limit", "spent", "remaining", "would_allow", "available_at", "detail")
    assert {name: told[name] for name in members} == {name: paid.get(name) for name in members}
    assert told["policy_version"] == 2
    assert told["code"] == "insufficient_funds" or paid["policy_version"] == 2


def test_a_window_that_is_closed_says_when_it_opens(world: World) -> None:
    opening = timezone.now().replace(hour=9, minute=0, second=0, microsecond=0) + timedelta(days=3)
    days = [("mon", "tue", "wed", "thu", "fri", "sat", "sun")[opening.weekday()]]
    policy = {"windows": [{"days": days, "from": "09:00", "to": "10:00", "zone": "UTC"}]}
    told = check(world.a.by_session, policy=policy, at=f"{opening - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}")
    assert (told["code"], told["rule"]) == ("policy_denied", "windows")
    assert told["available_at"] == told["would_allow"] == f"{opening:%Y-%m-%dT%H:%M:%SZ}"
    assert check(world.a.by_session, policy=policy, at=told["available_at"])["allowed"] is True


def test_a_halt_is_told_too(world: World) -> None:
    pools.freeze(payer_id=world.a.payer.pk, reason="stolen", now=timezone.now())
    told = check(world.a.by_session)
    assert (told["allowed"], told["code"], told["rule"]) == (False, "conflict", None)
    assert told["detail"].startswith("The payer has frozen all spending")


def test_that_settlement_is_paused_is_told_too(world: World) -> None:
    books.settlement_paused(world.a.pool)
    told = check(world.a.by_session)
    assert (told["allowed"], told["code"], told["rule"]) == (False, "settlement_paused", None)
    assert told["detail"] == world.a.by_session.post("/v1/payments", PAY).json["detail"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"to": "agent://unknown.acme.dev"}, 404),
        ({"to": "lint.acme.dev"}, 400),
        ({"amount": 1}, 400),
        ({"amount": "0"}, 400),
        ({"amount": "1099511.627776"}, 400),
        ({"capability": "other"}, 400),
        ({"policy": {"max_per_tx": 1}}, 400),
        ({"policy": {"unknown": "1"}}, 400),
        ({"policy": []}, 400),
        ({"at": "9999-12-31T23:59:59Z"}, 400),
        ({"at": "0001-01-01T00:00:00Z"}, 400),
        ({"at": "2026-01-01"}, 400),
        ({"session_id": "x"}, 400),
        ({"metadata": {}}, 400),
    ],
)
def test_what_could_not_be_paid_or_is_no_question_is_refused(
    world: World, unmoved, change: dict[str, Any], status: int
) -> None:
    before = rows()
    with unmoved():
        answer = world.a.by_session.post(CHECK, PAY | change)
    assert answer.status == status
    assert rows() == before


def test_every_key_of_a_buyer_may_ask_about_its_own_and_nobody_else(world: World) -> None:
    now, mine = timezone.now(), str(world.a.session.pk)
    readers = (
        keys.issue(scope=Scope.PAYER, payer=world.a.payer, read_only=True, now=now)[1],
        keys.issue(scope=Scope.SESSION, session=world.a.session, read_only=True, now=now)[1],
    )
    for text in readers:
        assert check(Caller(text), session_id=mine)["allowed"] is True
        body = {"policy": {}, "session_id": mine}
        assert Caller(text).post(BACKTEST, body, idempotency_key=None).status == 200
        assert Caller(text).post("/v1/payments", PAY).status == 403
    for path, body in ((CHECK, PAY), (BACKTEST, {"policy": {}})):
        for stranger in (world.b.by_payer, world.b.by_session):
            assert stranger.post(path, body | {"session_id": mine}).status == 404
        assert world.one.by_provider.post(path, body | {"session_id": mine}).status == 403
        assert world.nobody.post(path, body).status == 401


def test_a_refusal_offers_the_question_that_would_pass(world: World) -> None:
    limited = buyer("payer C", Policy(max_per_tx=10_000))
    offers = limited.by_session.post("/v1/payments", PAY | {"capability": "code.lint"}).json["next_actions"]
    offer = next(action for action in offers if action["path"] == CHECK)
    assert offer["body"] == {
        "session_id": str(limited.session.pk), "to": LINT, "amount": "0.01", "capability": "code.lint",
    }  # fmt: skip
    assert "headers" not in offer
    assert limited.by_session.post(CHECK, offer["body"], idempotency_key=None).json["allowed"] is True
    held = limited.by_session.post("/v1/holds", PAY).json["next_actions"]
    assert [action["body"]["amount"] for action in held if action["path"] == CHECK] == ["0.01"]


def test_a_closed_window_offers_the_question_at_its_opening(world: World) -> None:
    day = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[(timezone.now() + timedelta(days=3)).weekday()]
    window = {"days": [day], "from": "09:00", "to": "10:00", "zone": "UTC"}
    limited = buyer("payer C", Policy.from_document({"windows": [window]}))
    refusal = limited.by_session.post("/v1/payments", PAY).json
    offer = next(action for action in refusal["next_actions"] if action["path"] == CHECK)
    assert offer["body"]["at"] == refusal["available_at"]
    assert limited.by_session.post(CHECK, offer["body"], idempotency_key=None).json["allowed"] is True


# --- backtest -------------------------------------------------------------------------------------------------------


def backtest(caller: Caller, policy: dict[str, Any], **body: Any) -> dict[str, Any]:
    before = rows()
    answer = caller.post(BACKTEST, {"policy": policy, **body}, idempotency_key=None)
    assert answer.status == 200, answer.json
    assert rows() == before
    return dict(answer.json)


@pytest.fixture
def spent(world: World) -> World:
    """Return a market where A's session paid 1.00, 2.00 and 3.00, held 4.00, and was refused 30.00."""
    for amount in ("1.00", "2.00", "3.00"):
        world.a.by_session.post("/v1/payments", {"to": LINT, "amount": amount})
    world.a.by_session.post("/v1/holds", {"to": "agent://check.example.dev", "amount": "4.00"})
    assert world.a.by_session.post("/v1/payments", {"to": LINT, "amount": "30.00"}).status == 402
    return world


def test_a_policy_is_tried_on_what_was_decided(spent: World, unmoved) -> None:
    with unmoved():
        told = backtest(spent.a.by_session, {"max_per_tx": "2.50"})
    example, other = told.pop("examples")
    assert told == {
        "days": 30, "decisions": 5, "refused": {"count": 2, "amount": "7.00"},
        "by_rule": [{"rule": "max_per_tx", "count": 2, "amount": "7.00"}],
        "still_refused": {"count": 1, "amount": "30.00"}, "newly_allowed": {"count": 0, "amount": "0.00"},
        "waiting": {"count": 0, "amount": "0.00"},
    }  # fmt: skip
    paid = Payment.objects.get(amount_micros=3_000_000)
    assert example == {
        "at": paid.created_at.isoformat().replace("+00:00", "Z"), "session_id": str(spent.a.session.pk),
        "kind": "payment", "to": LINT, "amount": "3.00", "currency": "USDC", "capability": None, "rule": "max_per_tx",
        "limit": "2.50", "spent": None, "would_allow": "2.50",
        "detail": "3.00 USDC is over the limit of 2.50 for one payment.",
    }  # fmt: skip
    assert (other["kind"], other["amount"]) == ("hold", "4.00")


def test_what_the_policy_keeps_counts_and_what_it_refuses_does_not(spent: World) -> None:
    told = backtest(spent.a.by_session, {"max_per_hour": "5.00"})
    assert told["by_rule"] == [{"rule": "max_per_hour", "count": 2, "amount": "7.00"}]  # 1 and 2 pass, 3 and 4 do not
    assert [example["spent"] for example in told["examples"]] == ["3.00", "3.00"]


def test_what_came_back_makes_room_in_a_total(spent: World) -> None:
    held = spent.a.by_session.get("/v1/holds").json["items"][0]["id"]
    spent.a.by_session.post(f"/v1/holds/{held}/release", {})
    spent.a.by_session.post("/v1/payments", {"to": LINT, "amount": "5.00"})
    assert backtest(spent.a.by_session, {"max_total": "11.00"})["refused"]["count"] == 0
    assert backtest(spent.a.by_session, {"max_total": "10.00"})["refused"] == {"count": 1, "amount": "5.00"}


def test_what_a_person_would_be_asked_for_is_said(spent: World) -> None:
    told = backtest(spent.a.by_session, {"approval_above": "2.00"})
    assert (told["refused"]["count"], told["waiting"]) == (0, {"count": 2, "amount": "7.00"})


def test_what_waited_for_a_person_is_a_refusal_of_the_policys(world: World) -> None:
    limited = buyer("payer C", Policy(approval_above=10_000))
    assert limited.by_session.post("/v1/payments", PAY).status == 403
    assert limited.by_session.post("/v1/holds", PAY).status == 403
    assert backtest(limited.by_session, {})["newly_allowed"] == {"count": 2, "amount": "0.024"}
    assert backtest(limited.by_session, {"approval_above": "0.01"})["still_refused"]["count"] == 2


def test_a_payer_tries_it_on_one_session_or_on_each(spent: World) -> None:
    _, text = keys.open_session(pool=spent.a.pool, budget_micros=5_000_000, policy=Policy(), now=timezone.now())
    Caller(text).post("/v1/payments", {"to": LINT, "amount": "4.00"})
    total = {"max_total": "9.00"}
    each = backtest(spent.a.by_payer, total)
    assert (each["decisions"], each["refused"]) == (6, {"count": 1, "amount": "4.00"})  # 10 in one, and 4 in the other
    mine = backtest(spent.a.by_payer, total, session_id=str(spent.a.session.pk))
    assert (mine["decisions"], mine["refused"]["count"]) == (5, 1)
    assert backtest(Caller(text), total)["decisions"] == 1
    known = {"new_recipient_max": "1.00"}
    assert backtest(spent.a.by_payer, known)["refused"] == {"count": 1, "amount": "4.00"}  # the hold for somebody new
    assert backtest(spent.b.by_payer, total)["decisions"] == 0


def test_only_the_days_that_were_asked_for_are_told_of(spent: World) -> None:
    old = timezone.now() - timedelta(days=2, hours=1)
    for place, row in enumerate(Payment.objects.order_by("created_at")):
        at = old + timedelta(seconds=place)
        id = f"{int(at.timestamp() * 1000):012x}7{place:03x}8{place:015x}"
        Payment.objects.filter(pk=row.pk).update(created_at=at, id=id)
    two, three = (backtest(spent.a.by_session, {"max_per_hour": "4.50"}, days=days) for days in (2, 3))
    assert (two["decisions"], two["refused"]["count"]) == (2, 0)  # the hold and what was refused
    assert (three["decisions"], three["refused"]) == (5, {"count": 1, "amount": "3.00"})
    counted = backtest(spent.a.by_session, {"max_total": "6.50"}, days=2)
    assert (counted["decisions"], counted["refused"]) == (2, {"count": 1, "amount": "4.00"})  # what is older counts


def test_more_than_is_read_at_once_is_refused_with_what_would_pass(spent: World, settings, unmoved) -> None:
    settings.BACKTEST_MAX_DECISIONS = 4
    with unmoved():
        every = spent.a.by_payer.post(BACKTEST, {"policy": {}})
        total = spent.a.by_session.post(BACKTEST, {"policy": {"max_total": "1.00"}})
    assert (every.status, every.json["code"]) == (400, "invalid_request")
    assert every.json["errors"][0] == {
        "field": "days", "rule": "has more than 4 decisions to read",
        "message": "days has more than 4 decisions to read.", "would_pass": "the session_id of one session",
    }  # fmt: skip
    assert "a policy without max_total" in total.json["errors"][0]["would_pass"]
    settings.BACKTEST_MAX_DECISIONS = 5
    assert backtest(spent.a.by_payer, {})["decisions"] == 5


def test_days_that_would_pass_are_named_and_pass(world: World, settings) -> None:
    for days in (1, 2, 20, 21):
        world.a.by_session.post("/v1/payments", PAY)
        at = timezone.now() - timedelta(days=days - 1, hours=1)
        id = f"{int(at.timestamp() * 1000):012x}7{days:03x}8{days:015x}"
        Payment.objects.filter(pk=Payment.objects.latest("id").pk).update(created_at=at, id=id)
    settings.BACKTEST_MAX_DECISIONS = 2
    refusal = world.a.by_session.post(BACKTEST, {"policy": {}}).json
    days = int(refusal["errors"][0]["would_pass"])
    assert days == 18
    assert backtest(world.a.by_session, {}, days=days)["decisions"] == 2


def test_a_few_are_made_at_once_and_the_others_told_to_come_again(spent: World, settings) -> None:
    with ExitStack() as busy:
        for _ in range(settings.BACKTEST_AT_ONCE):
            busy.enter_context(policies._thread())
        answer = spent.a.by_session.post(BACKTEST, {"policy": {}}, idempotency_key=None)
        assert (answer.status, answer.json["code"], answer.headers["Retry-After"]) == (503, "unavailable", "2")
        assert check(spent.a.by_session)["allowed"] is True
        assert spent.a.by_session.post("/v1/payments", PAY).status == 201
    assert backtest(spent.a.by_session, {})["decisions"] == 6
    settings.BACKTEST_MAX_DECISIONS = 1
    for _ in range(settings.BACKTEST_AT_ONCE + 1):
        assert spent.a.by_session.post(BACKTEST, {"policy": {}}).status == 400  # a refusal gives its place back


def test_a_history_is_read_in_the_order_of_an_index_and_not_sorted(world: World) -> None:
    history._by_index()
    for one, index in ((world.a.session, "session"), (None, "payer")):
        past = history.History(world.a.payer.pk, one, timezone.now() - timedelta(days=30), returns=one is not None)
        plans = [rows.explain() for rows in past._sources()]
        assert not [plan for plan in plans if "Sort" in plan]
        for plan, table in zip(plans, ("payment", "denial", "hold"), strict=False):
            assert f"Index Scan using {table}_{index} on" in plan
        assert len(plans) == (4 if one else 3)


@pytest.mark.parametrize("body", [
    {}, {"policy": None}, {"policy": {"max_per_tx": 1}}, {"policy": {}, "days": 0}, {"policy": {}, "days": 366},
    {"policy": {}, "days": "7"}, {"policy": {}, "days": True}, {"policy": {}, "since": "2026"},
    {"policy": {}, "session_id": 1},
])  # fmt: skip
def test_what_is_no_question_is_refused(world: World, unmoved, body: dict[str, Any]) -> None:
    with unmoved():
        assert world.a.by_session.post(BACKTEST, body).status == 400
    assert not Denial.objects.exists()
