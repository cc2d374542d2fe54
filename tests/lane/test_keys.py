"""Idempotency keys and API keys: one effect for each key, and a revocation that holds from the next call on."""

from collections import Counter
from datetime import timedelta

import pytest
from django.utils import timezone

from escrow import money
from escrow.models import Payment
from marketplace import keys
from marketplace.models import ApiKey, Scope
from tests.escrow.books import unmoved
from tests.lane.doors import PATIENCE, PAY, Asked, Lane, until
from tests.marketplace.conftest import World

pytestmark = pytest.mark.django_db(transaction=True)


def test_fifty_at_once_with_one_key_are_one_payment_and_fifty_equal_answers(market: World, lane: Lane) -> None:
    answers = lane.ask_all([Asked(market.a.by_session.key, dict(PAY), "k-1")] * 50)
    assert Counter(answer.status for answer in answers) == {201: 50}
    assert len({answer.raw for answer in answers}) == 1
    assert Counter(answer.headers.get("Idempotent-Replayed") for answer in answers) == {None: 1, "true": 49}
    assert Payment.objects.count() == 1
    assert answers[0].json["remaining"] == "24.988"


def test_fifty_at_once_with_one_key_and_two_bodies_are_one_payment(market: World, lane: Lane) -> None:
    bodies = [PAY, {**PAY, "amount": "0.013"}]
    answers = lane.ask_all([Asked(market.a.by_session.key, bodies[number % 2], "k-1") for number in range(50)])
    assert Counter(answer.status for answer in answers) == {201: 25, 409: 25}
    assert {answer.json["code"] for answer in answers if answer.status == 409} == {"idempotency_conflict"}
    [paid] = Payment.objects.all()
    same = {answer.raw: answer.json["amount"] for answer in answers if answer.status == 201}
    assert list(same.values()) == [money.render(paid.amount_micros)]


def test_one_key_at_two_processes_is_one_payment(market: World, lane: Lane) -> None:
    with Lane(batch_size=4) as other:
        asked = Asked(market.a.by_session.key, dict(PAY), "k-1")
        begun = [door.begin(asked) for _ in range(25) for door in (lane, other)]
        answers = [waiting.result(PATIENCE) for waiting in begun]
    assert Counter(answer.status for answer in answers) == {201: 50}
    assert len({answer.raw for answer in answers}) == 1
    assert Counter(answer.headers.get("Idempotent-Replayed") for answer in answers) == {None: 1, "true": 49}
    assert Payment.objects.count() == 1


def test_one_key_forty_times_in_a_batch_that_the_budget_refuses_is_refused_each_time(market: World, lane: Lane) -> None:
    asked = Asked(market.a.by_session.key, {**PAY, "amount": "25.01"}, "k-1")
    with unmoved():
        answers = lane.ask_all([asked] * 40)
    assert {(answer.status, answer.json["code"]) for answer in answers} == {(402, "insufficient_funds")}
    assert lane.pay(str(market.a.by_session.key), "k-1", amount="25.00").status == 201


def test_two_sessions_may_use_one_key_in_one_batch(market: World, lane: Lane) -> None:
    answers = lane.ask_all([Asked(buyer.by_session.key, dict(PAY), "k-1") for buyer in (market.a, market.b)])
    assert [answer.status for answer in answers] == [201, 201]
    assert answers[0].json["id"] != answers[1].json["id"]


def test_a_revoked_key_is_refused_on_its_next_call(market: World, lane: Lane) -> None:
    key, text = keys.issue(scope=Scope.SESSION, session=market.a.session, now=timezone.now())
    assert lane.pay(text, "k-1").status == 201
    keys.revoke(key=key, now=timezone.now())
    with unmoved():
        answers = [lane.ask(Asked(text)), lane.ask(Asked(text, dict(PAY), "k-1"))]
    assert [(answer.status, answer.json["code"]) for answer in answers] == [(401, "unauthenticated")] * 2
    assert lane.pay(str(market.a.by_session.key)).status == 201


def test_an_expired_or_narrowed_key_is_refused_on_its_next_call(market: World, lane: Lane) -> None:
    key, text = keys.issue(scope=Scope.SESSION, session=market.a.session, now=timezone.now())
    mine = ApiKey.objects.filter(pk=key.pk)
    for change, status in (({"expires_at": timezone.now()}, 401), ({"expires_at": None, "read_only": True}, 403)):
        mine.update(expires_at=None, read_only=False)
        assert lane.pay(text).status == 201
        mine.update(**change)
        with unmoved():
            assert lane.ask(Asked(text)).status == status


def test_a_rotated_key_pays_until_the_overlap_is_over_and_its_successor_at_once(market: World, lane: Lane) -> None:
    old, old_text = keys.issue(scope=Scope.SESSION, session=market.a.session, now=timezone.now())
    made, text = keys.rotate(key=old, now=timezone.now())
    assert [lane.pay(key).status for key in (old_text, text)] == [201, 201]
    ApiKey.objects.filter(pk=old.pk).update(expires_at=timezone.now())
    with unmoved():
        assert lane.ask(Asked(old_text)).status == 401
    _, newest = keys.rotate(key=made, now=timezone.now(), overlap=timedelta())
    with unmoved():
        assert lane.ask(Asked(text)).status == 401
    assert lane.pay(newest).status == 201


def test_a_key_with_a_ceiling_pays_that_and_no_more_and_nothing_once_it_is_revoked(market: World, lane: Lane) -> None:
    key, text = keys.issue_with_ceiling(session=market.a.session, ceiling_micros=30_000, now=timezone.now())
    assert [lane.pay(text).json["remaining"] for _ in range(2)] == ["0.018", "0.006"]
    with unmoved():
        assert lane.pay(text).status == 402
    keys.revoke(key=key, now=timezone.now())
    with unmoved():
        assert lane.ask(Asked(text)).status == 401
    market.a.session.account.refresh_from_db()
    assert market.a.session.account.balance_micros == 25_000_000 - 24_000


def test_a_payer_s_key_is_asked_on_each_call_whose_session_it_is(market: World, lane: Lane) -> None:
    named = {**PAY, "session_id": str(market.a.session.pk)}
    assert lane.pay(str(market.a.by_payer.key), **named).status == 201
    market.a.pool.payer_id = market.b.payer.pk
    market.a.pool.save(update_fields=["payer_id"])
    with unmoved():
        assert lane.ask(Asked(market.a.by_payer.key, named)).status == 404
    assert lane.pay(str(market.b.by_payer.key), **named).status == 201


def test_when_a_key_was_last_used_is_noted_once_a_minute(market: World, lane: Lane) -> None:
    mine = ApiKey.objects.filter(session=market.a.session)
    assert mine.get().last_used_at is None
    before = timezone.now() - timedelta(seconds=1)
    lane.pay(str(market.a.by_session.key))
    until(lambda: mine.get().last_used_at is not None)
    noted = mine.get().last_used_at
    assert before < noted <= timezone.now() + timedelta(seconds=1)
    lane.pay(str(market.a.by_session.key))
    lane.pay(str(market.a.by_session.key))  # its batch comes after whatever the one before it had to note
    assert mine.get().last_used_at == noted
    earlier = noted - timedelta(minutes=2)
    mine.update(last_used_at=earlier)
    lane.pay(str(market.a.by_session.key))
    until(lambda: mine.get().last_used_at > earlier)


def test_a_key_that_is_refused_is_not_noted_as_used(market: World, lane: Lane) -> None:
    key, text = keys.issue(scope=Scope.SESSION, session=market.a.session, now=timezone.now())
    keys.revoke(key=key, now=timezone.now())
    assert lane.ask(Asked(text)).status == 401
    assert lane.pay(str(market.a.by_session.key)).status == 201
    assert ApiKey.objects.get(pk=key.pk).last_used_at is None
