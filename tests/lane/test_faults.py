"""Connections cut, a database away, a server killed: what was answered is in the books, the rest can be repeated."""

import os
import signal
from typing import Any

import asyncpg
import psycopg
import pytest
from django.db import connection

from escrow.models import Payment
from marketplace.lane import statement
from tests.escrow import books
from tests.lane.doors import PATIENCE, PAY, Asked, Lane, locked, until, waits_for_a_lock
from tests.lane.servers import paid, serving
from tests.marketplace.conftest import World

pytestmark = pytest.mark.django_db(transaction=True)

KILLS = 20 if os.environ.get("FULL") else 3
BUDGET = 25_000_000


def end_backend(pid: int) -> None:
    """End a process of the database, and wait until it is gone."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        assert cursor.fetchone() == (True,)


# --- connections --------------------------------------------------------------------------------------------------


def test_a_connection_that_was_cut_between_batches_is_opened_again(market: World, lane: Lane) -> None:
    key = str(market.a.by_session.key)
    for number in range(3):
        assert lane.pay(key, f"k-{number}").status == 201
        end_backend(lane.pids[-1])
    answers = lane.ask_all([Asked(key, dict(PAY), f"k-{number}") for number in range(6)])
    assert [answer.status for answer in answers] == [201] * 6
    assert [answer.headers.get("Idempotent-Replayed") for answer in answers] == ["true"] * 3 + [None] * 3
    assert len(lane.pids) == 4
    assert books.balance(market.a.session.account) == BUDGET - 6 * 12_000


def test_a_connection_that_is_cut_during_a_batch_costs_no_answer(market: World, lane: Lane) -> None:
    key = str(market.a.by_session.key)
    lane.pay(key)
    with locked(market.a.session.account):
        waiting = [lane.begin(Asked(key)) for _ in range(4)]
        until(lambda: len(lane.pids) == 2 and waits_for_a_lock(lane.pids[1]))
        end_backend(lane.pids[1])
        until(lambda: len(lane.pids) == 3 and waits_for_a_lock(lane.pids[2]))
    assert [answer.result(PATIENCE).status for answer in waiting] == [201] * 4
    assert books.balance(market.a.session.account) == BUDGET - 5 * 12_000


def test_a_connection_that_is_cut_again_and_again_is_an_answer_that_can_be_repeated(market: World, lane: Lane) -> None:
    key = str(market.a.by_session.key)
    lane.pay(key)
    with locked(market.a.session.account), books.unmoved():
        waiting = lane.begin(Asked(key, dict(PAY), "k-1"))
        for opened in (2, 3):
            until(lambda opened=opened: len(lane.pids) == opened and waits_for_a_lock(lane.pids[-1]))
            end_backend(lane.pids[-1])
        answer = waiting.result(PATIENCE)
    assert (answer.status, answer.json["code"], answer.json["outcome"]) == (503, "unavailable", "unknown")
    assert (answer.headers["Retry-After"], answer.json["retryable"]) == ("1", True)
    assert lane.pay(key, "k-1").json["remaining"] == "24.976"


def test_a_commit_of_which_the_answer_was_lost_is_one_payment(
    market: World, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, decide, lost = str(market.a.by_session.key), statement.decide, 0
    lane.pay(key)

    async def answer_lost(opened: Any, *rest: Any, **more: Any) -> Any:
        nonlocal lost
        decided = await decide(opened, *rest, **more)
        if not lost:
            lost += 1
            opened.terminate()
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        return decided

    monkeypatch.setattr(statement, "decide", answer_lost)
    answers = lane.ask_all([Asked(key, dict(PAY), f"k-{number}") for number in range(8)])
    assert lost == 1
    assert [answer.status for answer in answers] == [201] * 8
    assert {answer.json["id"] for answer in answers} == {
        str(payment.pk) for payment in Payment.objects.filter(idempotency_key__startswith="k-")
    }
    assert books.balance(market.a.session.account) == BUDGET - 9 * 12_000


def test_a_database_that_is_away_is_said_and_its_return_is_noticed(market: World, lane: Lane) -> None:
    key, place = str(market.a.by_session.key), connection.get_connection_params()
    lane.pay(key)
    address = {name: place[name] for name in ("host", "port", "user") if name in place}
    name = place["dbname"]
    with psycopg.connect(**address, dbname="postgres", autocommit=True) as outside:
        outside.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        try:
            end_backend(lane.pids[0])
            with books.unmoved():
                before = lane.attempts
                answers = lane.ask_all([Asked(key, dict(PAY), f"k-{number}") for number in range(3)])
                assert lane.attempts == before + 1, "each order waited for the database by itself"
        finally:
            outside.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    for answer in answers:
        assert (answer.status, answer.json["code"], answer.headers["Retry-After"]) == (503, "unavailable", "1")
        assert answer.json["outcome"] == "unknown"
    again = lane.ask_all([Asked(key, dict(PAY), f"k-{number}") for number in range(3)])
    assert [(answer.status, answer.headers.get("Idempotent-Replayed")) for answer in again] == [(201, None)] * 3
    assert len(lane.pids) == 2


def test_a_database_that_does_not_answer_is_said_after_its_time_is_up(market: World, settings: Any) -> None:
    settings.LANE_STATEMENT_TIMEOUT_MS = 200
    key = str(market.a.by_session.key)
    with Lane() as lane:
        assert lane.pay(key).status == 201
        os.kill(lane.pids[0], signal.SIGSTOP)  # as a network that drops everything
        try:
            waiting = [lane.begin(Asked(key, dict(PAY), f"k-{number}")) for number in range(3)]
            answers = [answer.result(PATIENCE) for answer in waiting]
        finally:
            os.kill(lane.pids[0], signal.SIGCONT)
        assert {answer.status for answer in answers} <= {201, 503}
        again = lane.ask_all([Asked(key, dict(PAY), f"k-{number}") for number in range(3)])
    assert [answer.status for answer in again] == [201] * 3
    assert books.balance(market.a.session.account) == BUDGET - 4 * 12_000


# --- the server ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", range(KILLS))
def test_a_server_that_is_killed_under_load_has_paid_what_it_answered(market: World, lane: Lane, run: int) -> None:
    key = str(market.a.by_session.key)
    with serving() as server:
        load = server.load(key, "run-")
        until(lambda: len(paid("run-")) >= 200)
        assert server.end(signal.SIGKILL) == -signal.SIGKILL
        seen = load.result()
    answered, unanswered = set(seen["numbers"]), set(seen["unanswered"])
    assert answered
    assert answered <= paid("run-").keys() <= answered | unanswered
    again = [Asked(key, {"to": PAY["to"], "amount": "0.000001"}, f"run-{number}") for number in sorted(unanswered)]
    answers = lane.ask_all(again)
    assert {answer.status for answer in answers} <= {201}
    found = paid("run-")
    assert [answer.json["id"] for answer in answers] == [str(found[number].pk) for number in sorted(unanswered)]
    assert found.keys() == answered | unanswered
    assert books.balance(market.a.session.account) == BUDGET - len(found)


def test_the_lane_s_connections_cut_under_load_cost_no_payment(market: World) -> None:
    key, cut = str(market.a.by_session.key), "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE "
    cut += "datname = current_database() AND pid <> pg_backend_pid()"
    with serving() as server:
        load = server.load(key, "run-", count=6_000)
        for reached in (500, 1_500, 2_500, 3_500):
            until(lambda reached=reached: Payment.objects.count() >= reached)
            with connection.cursor() as cursor:
                cursor.execute(cut)
                assert cursor.fetchone()[0] >= 1
        seen = load.result()
    assert (seen["codes"], seen["errors"], seen["unanswered"]) == ({"201": 6_000}, 0, [])
    assert paid("run-").keys() == set(seen["numbers"]) == set(range(6_000))
    assert books.balance(market.a.session.account) == BUDGET - 6_000
