"""Rate limits in the lane: the same refusals as Django's, before an order waits for the database."""

import pytest

from escrow.models import Payment
from marketplace import keys
from marketplace.api import rates
from tests.escrow.books import unmoved
from tests.lane.doors import PAY, Asked, Lane
from tests.marketplace.conftest import World
from tests.marketplace.test_rates import only

pytestmark = pytest.mark.django_db(transaction=True)


def test_every_answer_says_what_is_left(market: World, lane: Lane) -> None:
    key = str(market.a.by_session.key)
    answers = [lane.pay(key), lane.ask(Asked(key, {**PAY, "amount": "26.00"})), lane.pay(key)]
    assert [answer.status for answer in answers] == [201, 402, 201]
    for number, answer in enumerate(answers):
        assert answer.headers["Ratelimit-Policy"] == '"payments";q=600000;w=60'
        assert answer.headers["Ratelimit"].startswith(f'"payments";r={599_999 - number};t=')
    assert lane.django.handed == 0


@pytest.mark.promise("S20")
def test_a_key_with_no_payments_left_is_refused_and_the_database_is_not_asked(
    market: World, lane: Lane, monkeypatch: pytest.MonkeyPatch, statements: list[tuple[bool, int]]
) -> None:
    only(monkeypatch, PAYMENTS=2)
    key = str(market.a.by_session.key)
    assert [lane.pay(key).status for _ in range(2)] == [201, 201]
    asked = len(statements)
    with unmoved():
        refused = lane.ask(Asked(key, dict(PAY), "k-3"))
    assert (refused.status, refused.json["code"], refused.json["outcome"]) == (429, "rate_limited", "not_charged")
    assert (refused.json["rule"], refused.json["limit"]) == ("payments", 2)
    assert refused.headers["Ratelimit"] == f'"payments";r=0;t={refused.headers["Retry-After"]}'
    assert len(statements) == asked
    assert lane.pay(str(market.b.by_session.key)).status == 201
    rates.forget()
    assert lane.ask(Asked(key, dict(PAY), "k-3")).status == 201


def test_refused_payments_are_few_because_each_is_kept(
    market: World, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, REFUSALS=2)
    key = str(market.a.by_session.key)
    with unmoved():
        answers = [lane.ask(Asked(key, {**PAY, "amount": "26.00"})) for _ in range(3)]
    assert [answer.status for answer in answers] == [402, 402, 429]
    assert answers[2].json["rule"] == "refusals"


def test_a_key_that_nobody_has_seen_is_admitted_by_the_database_and_counted_then(
    market: World, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, PAYMENTS=1)
    key = str(market.a.by_session.key)
    assert [answer.status for answer in (lane.pay(key), lane.ask(Asked(key)))] == [201, 429]
    assert Payment.objects.count() == 1


def test_made_up_keys_ask_the_database_as_often_as_an_address_may_and_fill_no_memory(
    market: World, lane: Lane, monkeypatch: pytest.MonkeyPatch, statements: list[tuple[bool, int]]
) -> None:
    only(monkeypatch, UNAUTHENTICATED=3)
    made_up = [keys.text_of("abcdefghijk" + letter, "b" * 32) for letter in "abcdefgh"]
    with unmoved():
        answers = [lane.ask(Asked(key)) for key in made_up]
    assert [answer.status for answer in answers] == [401, 401, 401, 429, 429, 429, 429, 429]
    assert answers[-1].json["rule"] == "unauthenticated"
    assert len(statements) == 3
    assert not rates._live
    assert not rates.PAYMENTS._counters._counts


def test_a_key_that_has_opened_something_is_not_refused_for_its_neighbours(
    market: World, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, UNAUTHENTICATED=1)
    key = str(market.a.by_session.key)
    assert lane.pay(key).status == 201
    for letter in "abc":
        lane.ask(Asked(keys.text_of("abcdefghijk" + letter, "b" * 32)))
    assert lane.pay(key).status == 201
    assert lane.ask(Asked(str(market.b.by_session.key))).status == 429
