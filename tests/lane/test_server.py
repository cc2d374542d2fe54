"""The real server under a load from another process: budgets, refunds through Django beside the lane, and its end."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from escrow import ledger
from escrow.models import Payment
from tests.escrow import books
from tests.lane.doors import PATIENCE, locked, until
from tests.lane.servers import paid, serving
from tests.marketplace.conftest import World

pytestmark = pytest.mark.django_db(transaction=True)

BUDGET = 25_000_000


@pytest.mark.promise("S6", "S20")
def test_two_hundred_callers_on_a_budget_for_a_hundred_are_answered_a_hundred_and_a_hundred(market: World) -> None:
    with serving() as server:
        key, amount = str(market.a.by_session.key), "0.25"
        seen = server.load(key, "run-", amount, connections=200, count=200).result()
        assert seen["codes"] == {"201": 100, "insufficient_funds": 100}
        assert (seen["errors"], seen["unanswered"], seen["refused"]) == (0, [], 100)
    assert books.balance(market.a.session.account) == 0
    assert paid("run-").keys() == set(seen["numbers"])


def test_payments_by_the_lane_and_refunds_by_django_at_once_add_up(market: World) -> None:
    refunds = {"refund_token": market.one.by_provider.key}
    with serving() as server:
        load = server.load(
            str(market.a.by_session.key), "run-", connections=16, count=600, refund_share=0.25, **refunds
        )
        seen = load.result()
    assert (seen["codes"], seen["errors"]) == ({"201": 600}, 0)
    assert seen["refunds"]["codes"] == {"200": 150}
    assert Payment.objects.filter(status=Payment.Status.REFUNDED).count() == 150
    assert books.balance(market.a.session.account) == BUDGET - 450
    assert books.balance(ledger.payable(market.a.pool, market.one.provider.party)) == 450


def test_a_server_that_is_told_to_stop_under_load_answers_what_it_took(market: World) -> None:
    with serving() as server:
        load = server.load(str(market.a.by_session.key), "run-")
        until(lambda: len(paid("run-")) >= 200)
        assert server.end(signal.SIGTERM) == 0
        seen = load.result()
    assert set(seen["codes"]) == {"201"}
    assert paid("run-").keys() == set(seen["numbers"])
    assert books.balance(market.a.session.account) == BUDGET - len(seen["numbers"])


def test_a_server_that_is_told_to_stop_answers_what_waits_for_a_lock(market: World) -> None:
    with serving() as server, ThreadPoolExecutor(4) as callers:
        key = str(market.a.by_session.key)
        assert server.pay(key, "k")[0] == 201
        with locked(market.a.session.account):
            waiting = [callers.submit(server.pay, key, f"k-{number}") for number in range(4)]
            until(lambda: blocked() == 1)
            server.process.send_signal(signal.SIGTERM)
            until(lambda: not server.listens())
        assert [answer.result(PATIENCE)[0] for answer in waiting] == [201] * 4
        assert server.process.wait(PATIENCE) == 0
    assert books.balance(market.a.session.account) == BUDGET - 5


def blocked() -> int:
    """Return how many connections wait for a lock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted")
        return int(cursor.fetchone()[0])
