"""A policy that changes, and clocks that are wrong: the lane obeys the database's version and the database's clock."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db.models import F
from django.utils import timezone

from escrow.models import Payment, Session
from escrow.policy import Policy
from marketplace.lane import batches
from marketplace.lane.batches import ATTEMPTS
from tests.escrow.books import unmoved
from tests.lane.doors import PATIENCE, PAY, Asked, Lane, locked, until, waits_for_a_lock
from tests.marketplace.conftest import World

pytestmark = pytest.mark.django_db(transaction=True)

CHANGES = {
    "denied_recipients": Policy(denied_recipients=("lint.acme.dev",)),
    "allowed_recipients": Policy(allowed_recipients=("*.example.dev",)),
    "max_per_tx": Policy(max_per_tx=11_999),
    "max_total": Policy(max_total=20_000),
    "max_per_hour": Policy(max_per_hour=20_000),
    "max_per_day": Policy(max_per_day=20_000),
}


def amend(session: Session, policy: Policy) -> None:
    """Give a session another policy, as another process would."""
    amended = {"policy": policy.to_document(), "policy_version": F("policy_version") + 1}
    assert Session.objects.filter(pk=session.pk).update(**amended) == 1


def expiring(at: datetime) -> Policy:
    return Policy(expires_at=at)


def test_a_policy_that_has_changed_is_obeyed_on_the_next_call(market: World, lane: Lane) -> None:
    key, session = str(market.a.by_session.key), market.a.session
    assert lane.pay(key).status == 201
    for rule, policy in CHANGES.items():
        amend(session, policy)
        with unmoved():
            refused = lane.pay(key)
        assert (refused.status, refused.json["rule"]) == (403, rule)
        amend(session, expiring(timezone.now()))
        with unmoved():
            assert lane.pay(key).json["rule"] == "expires_at"
    amend(session, Policy())
    assert lane.pay(key).json["remaining"] == "24.976"


def test_a_policy_that_changes_while_an_order_waits_is_obeyed(market: World, lane: Lane) -> None:
    key, session = str(market.a.by_session.key), market.a.session
    assert lane.pay(key).status == 201
    with locked(session.account):
        waiting = lane.begin(Asked(key))
        until(lambda: any(waits_for_a_lock(pid) for pid in lane.pids))
        amend(session, CHANGES["denied_recipients"])
    answer = waiting.result(PATIENCE)
    assert (answer.status, answer.json["rule"]) == (403, "denied_recipients")


@pytest.mark.parametrize("hours", [-2, 2], ids=["slow", "fast"])
def test_a_web_clock_that_is_wrong_decides_nothing(
    market: World, lane: Lane, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    class Skewed:
        @staticmethod
        def now() -> datetime:
            return timezone.now() + timedelta(hours=hours)

    monkeypatch.setattr(batches, "timezone", Skewed)
    key, session = str(market.a.by_session.key), market.a.session
    now = timezone.now()
    for end, status in (
        (now + timedelta(hours=1), 201),
        (now - timedelta(hours=1), 403),
        (now + timedelta(hours=3), 201),
    ):
        amend(session, expiring(end))
        answers = [lane.pay(key) for _ in range(3)]
        assert [answer.status for answer in answers] == [status] * 3
    Session.objects.filter(pk=session.pk).update(expires_at=now + timedelta(hours=1))
    assert lane.pay(key).status == 201
    Session.objects.filter(pk=session.pk).update(expires_at=now)
    assert lane.pay(key).status == 409


def test_a_policy_that_never_stands_still_is_given_up_and_unpaid(
    market: World, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, learn, learnt = str(market.a.by_session.key), lane.batches._rules.learn, 0

    def learn_too_late(session_id: Any, facts: Any) -> None:
        nonlocal learnt
        learnt += 1
        learn(session_id, {**facts, "version": facts["version"] - 1})

    monkeypatch.setattr(lane.batches._rules, "learn", learn_too_late)
    with unmoved():
        answer = lane.ask(Asked(key))
    assert learnt == ATTEMPTS - 1
    assert (answer.status, answer.json["code"], answer.json["outcome"]) == (503, "unavailable", "not_charged")
    assert answer.headers["Retry-After"] == "1"
    monkeypatch.undo()
    assert lane.pay(key).status == 201


def test_a_policy_that_cannot_be_read_is_its_own_session_s_fault_alone(market: World, lane: Lane) -> None:
    """As a policy of a newer release would be to an older one that still runs beside it."""
    Session.objects.filter(pk=market.b.session.pk).update(policy={"max_per_week": "1.00"})
    paid, broken = lane.ask_all([Asked(str(buyer.by_session.key)) for buyer in (market.a, market.b)])
    assert paid.status == 201
    assert (broken.status, broken.json["code"], broken.json["outcome"]) == (500, "internal", "unknown")
    assert Payment.objects.get().session_id == market.a.session.pk


def test_a_large_body_is_django_s_and_pays_alike(market: World, lane: Lane) -> None:
    large = {**PAY, "metadata": {"text": "x" * 5_000}}
    assert lane.ask(Asked(str(market.a.by_session.key), large)).status == 201
    assert len(lane.pids) == 0
    assert Payment.objects.get().metadata == large["metadata"]
