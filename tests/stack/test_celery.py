"""Workers and Redis under fire, real ones, on a real database: each hold is released once, whatever dies or comes twice."""

import os
import signal
from typing import Any

import pytest

from escrow.models import Account, Hold, Reason, Session, Setback, Transfer
from marketplace.management.stack import valkey
from tests.escrow import books
from tests.marketplace.conftest import make_world
from tests.stack.fleet import children, fleet, overdue, stopped_at, until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]
SWEEP = "escrow.timer_sweep"
COUNT = 12
AT = 5


@pytest.fixture
def spending() -> Session:
    return books.session(micros=25_000_000)


def released() -> int:
    return Transfer.objects.filter(reason=Reason.RELEASE).count()


def check(session: Session, count: int) -> None:
    """Every hold was released, once, and its money is back."""
    assert (Hold.objects.filter(status="released").count(), Hold.objects.filter(status="held").count()) == (count, 0)
    refs = list(Transfer.objects.filter(reason=Reason.RELEASE).values_list("ref", "amount_micros"))
    assert len(refs) == len(set(refs)) == count
    assert {micros for _, micros in refs} == {10_000}
    assert Account.objects.get(pk=session.account_id).balance_micros == 25_000_000
    assert not Setback.objects.exists()
    books.check_conservation()


def test_a_pool_child_that_is_killed_mid_sweep_loses_nothing_and_doubles_nothing(spending: Session) -> None:
    rows = overdue(spending, COUNT)
    with fleet() as made:
        worker = made.worker("one")
        with stopped_at(rows[AT]) as wait_for:
            made.ask(SWEEP)
            wait_for(1)
            assert released() == AT
            [child] = children(worker)
            child.send_signal(signal.SIGKILL)
            child.wait(10)
        # No beat here: it is the same message that is given out again.
        until(lambda: released() == COUNT, "the sweep is run again")
        assert worker.process.poll() is None
    check(spending, COUNT)


def test_a_message_given_out_again_while_it_runs_has_one_effect(spending: Session) -> None:
    rows = overdue(spending, COUNT)
    with fleet() as made:
        for name in ("one", "two", "three"):
            made.worker(name, app="tests.stack.impatient")
        with stopped_at(rows[AT]) as wait_for:
            made.ask(SWEEP)
            wait_for(3)  # visible again after a second: the other two have it too, though the first still runs
            assert released() == AT
        until(lambda: released() == COUNT, "the sweeps are over")
        made.ask(SWEEP)
        made.supervisor.close()
    check(spending, COUNT)


def test_a_worker_that_is_told_to_stop_mid_sweep_ends_it_while_the_next_one_begins(spending: Session) -> None:
    rows = overdue(spending, COUNT)
    with fleet() as made:
        old = made.worker("old")
        with stopped_at(rows[AT]) as wait_for:
            made.ask(SWEEP)
            wait_for(1)
            os.kill(old.process.pid, signal.SIGTERM)
            made.worker("new")
            made.ask(SWEEP)
            wait_for(2)
            assert old.process.poll() is None
        until(lambda: released() == COUNT, "the sweeps are over")
        assert old.process.wait(30) == 0
    check(spending, COUNT)


def test_redis_is_flushed_and_killed_and_nothing_is_lost(spending: Session, settings: Any) -> None:
    world = make_world()
    with fleet() as made:
        settings.REDIS_URL = made.redis
        worker = made.worker("one", processes=2)
        made.beat()
        rows = overdue(spending, COUNT)
        with stopped_at(rows[0]) as wait_for:
            wait_for(1)
            with made.app.connection_for_write() as broker:
                broker.default_channel.client.flushall()
        until(lambda: released() == COUNT, "beat has sent the sweep again after the flush")

        made.supervisor.kill("valkey")
        overdue(spending, COUNT)
        paid = world.a.by_session.post("/v1/payments", {"to": "agent://lint.acme.dev", "amount": "0.01"})
        asked = world.a.by_payer.post("/v1/pools", {"deposit": "5.00"})
        assert (paid.status, asked.status) == (201, 202)
        ready = {of["name"]: of["ok"] for of in world.nobody.get("/readyz").json["checks"]}
        assert (ready["database"], ready["broker"]) == (True, False)
        assert valkey.start(made.supervisor) == made.redis

        def come_back() -> bool:
            if worker.process.poll() is not None and "two" not in started:
                started.append("two")
                made.worker("two", processes=2)  # as whatever looks after it does: docs/decisions/redis-holds-hints.md
            return released() == 2 * COUNT

        started = ["one"]
        until(come_back, "workers and beat have come back")
    check(spending, 2 * COUNT)
