"""A server whose clock is two hours wrong, or a worker: nothing that is decided about money changes."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from escrow import clock, offchain, sessions
from escrow.models import Hold, Session
from escrow.policy import Policy
from marketplace import keys
from tests.marketplace.client import Caller
from tests.marketplace.conftest import World

pytestmark = pytest.mark.django_db(transaction=True)

PAY: dict[str, Any] = {"to": "agent://lint.acme.dev", "amount": "1.00"}
WRONG = [timedelta(hours=-2), timedelta(hours=2)]
HOUR = timedelta(hours=1)


@contextmanager
def lying(by: timedelta) -> Iterator[None]:
    """Have this process's clock say something else; the database's says what it said."""
    honest = timezone.now
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timezone, "now", lambda: honest() + by)
        yield


def opened(world: World, policy: Policy, **more: Any) -> tuple[Session, Caller]:
    session, key = keys.open_session(
        pool=world.a.pool, budget_micros=10 * 10**6, policy=policy, now=timezone.now(), **more
    )
    return session, Caller(key)


def test_the_clock_is_the_database_s(market: World) -> None:
    with lying(timedelta(days=400)):
        assert timezone.now() - clock.now() > timedelta(days=399)


@pytest.mark.parametrize("by", WRONG)
@pytest.mark.parametrize("rule", ["max_per_hour", "max_per_day", "max_tx_per_minute"])
def test_what_counts_against_a_limit_counts(market: World, by: timedelta, rule: str) -> None:
    limit = 1 if rule == "max_tx_per_minute" else 10**6
    session, caller = opened(market, Policy(**{rule: limit}))  # type: ignore[arg-type]
    assert caller.post("/v1/payments", PAY).status == 201
    with lying(by):
        for path in ("/v1/payments", "/v1/holds"):
            answer = caller.post(path, PAY)
            assert (answer.status, answer.json["rule"]) == (403, rule)
        answer = caller.post(f"/v1/sessions/{session.pk}/children", {"budget": "1.00"})
        assert (answer.status, answer.json["rule"]) == (403, rule)


@pytest.mark.parametrize("by", WRONG)
def test_a_share_that_was_given_back_is_not_free_before_its_hour_is_over(market: World, by: timedelta) -> None:
    session, caller = opened(market, Policy(max_per_hour=10**6))
    child = caller.post(f"/v1/sessions/{session.pk}/children", {"budget": "1.00"})
    assert Caller(child.json["api_key"]).post("/v1/payments", PAY).status == 201
    with lying(by):
        assert caller.post(f"/v1/sessions/{child.json['id']}/close", {}).status == 200
    for path in ("/v1/payments", "/v1/holds"):
        answer = caller.post(path, PAY)
        assert (answer.status, answer.json["rule"]) == (403, "max_per_hour")


@pytest.mark.parametrize("by", WRONG)
def test_what_ends_in_an_hour_has_not_ended(market: World, by: timedelta) -> None:
    end = timezone.now() + HOUR
    session, caller = opened(market, Policy(expires_at=end), expires_at=end)
    held = caller.post("/v1/holds", {**PAY, "expires_in_seconds": 3600}).json
    with lying(by):
        assert caller.post("/v1/payments", PAY).status == 201
        assert caller.post("/v1/holds", PAY).status == 201
        assert caller.post(f"/v1/sessions/{session.pk}/children", {"budget": "1.00"}).status == 201
        offchain.timer_sweep()
        assert Hold.objects.get(pk=held["id"]).status == "held"
        assert caller.post(f"/v1/holds/{held['id']}/capture", {}).status == 201
    assert Session.objects.get(pk=session.pk).status == "open"


@pytest.mark.parametrize("by", WRONG)
def test_what_ended_an_hour_ago_has_ended(market: World, by: timedelta) -> None:
    session, caller = opened(market, Policy())
    held = caller.post("/v1/holds", {**PAY, "expires_in_seconds": 60}).json
    ended = timezone.now() - HOUR
    Hold.objects.filter(pk=held["id"]).update(expires_at=ended)
    sessions.change_policy(session=session, policy=Policy(expires_at=ended), now=timezone.now())
    with lying(by):
        assert caller.post(f"/v1/holds/{held['id']}/capture", {}).json["state"] == "expired"
        for path in ("/v1/payments", "/v1/holds"):
            assert caller.post(path, PAY).json["rule"] == "expires_at"
        Session.objects.filter(pk=session.pk).update(expires_at=ended)
        for path in ("/v1/payments", "/v1/holds", f"/v1/sessions/{session.pk}/children"):
            answer = caller.post(path, {"budget": "1.00"} if path.endswith("children") else PAY)
            assert (answer.status, answer.json["state"]) == (409, "expired")
        offchain.timer_sweep()
        assert Session.objects.get(pk=session.pk).status == "closed"


@pytest.mark.parametrize("by", WRONG)
def test_an_hour_that_is_open_by_the_wrong_clock_alone_is_shut(market: World, by: timedelta) -> None:
    there = (clock.now() + by).strftime("%H")
    window = {"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "zone": "UTC"}
    until = f"{int(there) + 1:02d}:00"
    said = {"windows": [{**window, "from": f"{there}:00", "to": until}]}
    _, caller = opened(market, Policy.from_document(said))
    with lying(by):
        for path in ("/v1/payments", "/v1/holds"):
            answer = caller.post(path, PAY)
            assert (answer.status, answer.json["rule"]) == (403, "windows")
