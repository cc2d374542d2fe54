"""While an account is locked by somebody else only the orders that need it wait; what waits too long is said to be unpaid."""

from typing import Any

import psycopg
import pytest
from django.db import connection

from escrow import ledger
from escrow.models import Account, Payment
from escrow.policy import Policy
from tests.escrow import books
from tests.lane.doors import PATIENCE, PAY, Asked, Lane, locked, until, waits_for_a_lock
from tests.marketplace.client import Answer
from tests.marketplace.conftest import World

pytestmark = pytest.mark.django_db(transaction=True)


def payable(market: World) -> Account:
    """Return the account of what pool A owes provider one."""
    return ledger.payable(market.a.pool, market.one.provider.party)


def warm(market: World, lane: Lane) -> None:
    """Let the lane pay once for each session, so that it knows their policies."""
    for buyer in (market.a, market.b):
        assert lane.pay(str(buyer.by_session.key)).status == 201


def is_unavailable(answer: Answer, outcome: str) -> bool:
    """Return whether an answer says that nothing could be done now, and when to ask again."""
    said = (answer.status, answer.json["code"], answer.json["outcome"], answer.json["retryable"])
    assert answer.json["next_actions"][0]["why"] == "Repeat the request with the same Idempotency-Key."
    return said == (503, "unavailable", outcome, True) and answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize("which", ["the session's account", "what is owed", "both"])
def test_an_order_whose_accounts_are_locked_holds_nobody_back(market: World, lane: Lane, which: str) -> None:
    warm(market, lane)
    own, owed = market.a.session.account, payable(market)
    accounts = {"the session's account": [own], "what is owed": [owed], "both": [own, owed]}[which]
    with locked(*accounts):
        waiting = [lane.begin(Asked(market.a.by_session.key)) for _ in range(5)]
        until(lambda: any(waits_for_a_lock(pid) for pid in lane.pids))
        for _ in range(5):
            assert lane.pay(str(market.b.by_session.key)).status == 201
        assert not any(answer.done() for answer in waiting)
        assert books.balance(own) == 24_988_000
    answers = [answer.result(PATIENCE) for answer in waiting]
    assert {answer.status for answer in answers} == {201}
    assert sorted(answer.json["remaining"] for answer in answers) == ["24.928", "24.94", "24.952", "24.964", "24.976"]


def test_an_order_of_the_same_batch_does_not_wait_with_the_locked_one(market: World, lane: Lane) -> None:
    warm(market, lane)
    answers: list[Any] = []
    with locked(market.a.session.account):
        begun = [lane.begin(Asked(buyer.by_session.key)) for _ in range(10) for buyer in (market.a, market.b)]
        answers = [answer.result(PATIENCE) for answer in begun[1::2]]
        assert {answer.status for answer in answers} == {201}
        assert not any(answer.done() for answer in begun[::2])
    assert {answer.result(PATIENCE).status for answer in begun[::2]} == {201}
    assert Payment.objects.count() == 22


def test_what_the_holder_of_the_lock_spends_counts_before_what_waited(market: World, lane: Lane) -> None:
    warm(market, lane)
    with locked(market.a.session.account):
        waiting = lane.begin(Asked(market.a.by_session.key, {**PAY, "amount": "20.00"}))
        until(lambda: any(waits_for_a_lock(pid) for pid in lane.pids))
        books.pay(market.a.session, market.one.provider.party, 10_000_000)
    answer = waiting.result(PATIENCE)
    assert (answer.status, answer.json["code"], answer.json["remaining"]) == (402, "insufficient_funds", "14.988")


def test_a_lock_that_is_held_too_long_is_an_answer_and_no_payment(market: World, settings: Any) -> None:
    settings.LANE_LOCK_TIMEOUT_MS = 100
    asked = Asked(market.a.by_session.key, dict(PAY), "k-1")
    with Lane() as lane:
        warm(market, lane)
        with locked(market.a.session.account, payable(market)):
            with books.unmoved():
                assert is_unavailable(lane.ask(asked), "not_charged")
                several = lane.ask_all([Asked(market.a.by_session.key) for _ in range(3)])
                assert all(is_unavailable(answer, "not_charged") for answer in several)
            assert lane.pay(str(market.b.by_session.key)).status == 201
        assert lane.pay(str(market.a.by_session.key), "k-1").json["remaining"] == "24.976"
        assert len(lane.pids) == 2


def test_a_statement_that_takes_too_long_is_an_answer_and_no_payment(market: World, settings: Any) -> None:
    settings.LANE_STATEMENT_TIMEOUT_MS = 100
    with Lane() as lane:
        warm(market, lane)
        with locked(market.a.session.account, payable(market)), books.unmoved():
            assert is_unavailable(lane.ask(Asked(market.a.by_session.key, dict(PAY), "k-1")), "not_charged")
        assert lane.pay(str(market.a.by_session.key), "k-1").status == 201


def test_more_orders_than_may_wait_are_refused_at_once_and_untried(market: World) -> None:
    with Lane(queue_length=2, started=False) as lane:
        waiting = [lane.begin(Asked(market.a.by_session.key, dict(PAY), f"k-{number}")) for number in range(2)]
        with books.unmoved():
            answers = [lane.ask(Asked(market.a.by_session.key, dict(PAY), "k-3")) for _ in range(3)]
        for answer in answers:
            assert is_unavailable(answer, "not_charged")
            assert answer.json["detail"] == "Too many payments are waiting already; this one was not tried."
        lane.start()
        assert [answer.result(PATIENCE).status for answer in waiting] == [201, 201]
        assert lane.pay(str(market.a.by_session.key), "k-3").json["remaining"] == "24.964"


def test_orders_that_wait_for_a_lock_fill_the_queue_too(market: World) -> None:
    with Lane(queue_length=2, batch_size=1) as lane:
        warm(market, lane)
        with locked(market.a.session.account):
            waiting = [lane.begin(Asked(market.a.by_session.key)) for _ in range(1)]
            until(lambda: any(waits_for_a_lock(pid) for pid in lane.pids))
            for number in (1, 2):
                waiting.append(lane.begin(Asked(market.a.by_session.key)))
                until(lambda number=number: len(lane.batches._patient.waiting) == number)
            assert is_unavailable(lane.ask(Asked(market.b.by_session.key)), "not_charged")
        assert [answer.result(PATIENCE).status for answer in waiting] == [201] * 3
        assert lane.pay(str(market.b.by_session.key)).status == 201


def test_orders_that_wait_for_one_lock_wait_for_it_once_and_together(
    market: World, settings: Any, statements: list[tuple[bool, int]]
) -> None:
    settings.LANE_LOCK_TIMEOUT_MS = 100
    with Lane() as lane:
        warm(market, lane)
        del statements[:]
        with locked(market.a.session.account), books.unmoved():
            answers = lane.ask_all([Asked(market.a.by_session.key) for _ in range(6)])
    assert all(is_unavailable(answer, "not_charged") for answer in answers)
    assert [patient for patient, _ in statements].count(True) == 1
    assert {orders for _, orders in statements} == {6}


@pytest.mark.parametrize("which", ["the session's account", "what is owed", "both"])
def test_an_account_that_is_locked_is_never_judged_without_waiting(market: World, which: str) -> None:
    spending, to = books.session(micros=10, policy=Policy(max_per_hour=10)), books.party()
    books.pay(spending, to, 1)
    accounts = {"the session's account": [spending.account], "what is owed": [ledger.payable(spending.pool, to)]}
    accounts["both"] = [account for one in accounts.values() for account in one]
    place = connection.get_connection_params()
    statement = "SELECT outcome FROM escrow_judge(false, NULL, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
    orders = [[spending.pk], [to.pk], [6], ["k"], [b"\1" * 32], [spending.policy_version], [None], [None], [None]]
    with psycopg.connect(
        **{name: place[name] for name in ("host", "port", "dbname", "user") if name in place}
    ) as other:
        locking = "SELECT 1 FROM escrow_account WHERE id = ANY(%s) FOR NO KEY UPDATE"
        other.execute(locking, [[account.pk for account in accounts[which]]])
        with connection.cursor() as cursor:
            cursor.execute(statement, orders)
            assert cursor.fetchall() == [("busy",)]
    with connection.cursor() as cursor:
        cursor.execute(statement, orders)
        assert cursor.fetchall() == [("allowed",)]
