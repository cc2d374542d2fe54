"""Recovery, measured: servers die or go away with a thousand chain actions waiting, and real workers take it from there.

Lives here: the three outages, the backlog, and the client that goes on paying meanwhile. Here everything is as in production:
PostgreSQL is durable, Celery's workers and beat run as in Compose, blocks come by the clock, and nothing is brought forward.
No proxy is between a worker and the node, which would cost more than the node: an outage is a node that is stopped.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from uuid import uuid4

import redis
from django.db import DatabaseError, close_old_connections, connections
from django.utils import timezone

from escrow import pools
from escrow.models import ChainAction
from marketplace.management.crashtest.ground import Ground
from marketplace.management.crashtest.judge import Judge
from marketplace.management.crashtest.table import Result
from marketplace.management.crashtest.web import CREATED, FAILURE, Web
from marketplace.management.stack import ready
from marketplace.management.stack.stack import ROOT, WORKERS
from marketplace.management.stack.supervisor import Service

BACKLOG: Final = 1_000
OUT_SECONDS: Final = 60.0
BLOCK_SECONDS: Final = 0.2
PATIENCE_SECONDS: Final = 300.0
ASKED_OUTSIDE: Final = 2
"""Answers while the chain is away, at least: the first may have been on its way before."""
OUTSIDE_SECONDS: Final = 10.0
PAUSE_SECONDS: Final = 0.02
"""Between two payments: the client is there to see that they are answered, not how many can be."""
PROCESSES: Final = {"worker": 2, "offchain": 1}
FAULTS: Final = ("redis flush", "postgres killed", "rpc out")


@dataclass
class Payer:
    """A client that pays again and again, and repeats what was not answered, until it is told to stop."""

    web: Web
    ground: Ground
    answered: int = 0
    repeated: int = 0
    longest: float = 0.0
    """Seconds between two answers, at most."""
    unanswered: str = ""
    """The key that waits for its answer."""
    failure: str = ""
    """What ended it before it was told to stop."""
    _stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._pay, daemon=True)
        self._thread.start()

    def stop(self) -> list[str]:
        """Stop once the last request is answered; return what it did not get through."""
        self._stopped.set()
        self._thread.join(PATIENCE_SECONDS)
        found = [f"the paying client ended: {self.failure}"] if self.failure else []
        return found + ([f"key {self.unanswered} is not answered"] if self.unanswered else [])

    def _pay(self) -> None:
        try:
            self._pay_on()
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody else would hear of it
            self.failure = f"{type(error).__name__}: {error}"

    def _pay_on(self) -> None:
        key, last = "", time.monotonic()
        while not self._stopped.is_set() or key:
            self.unanswered = key = key or f"recovery/{uuid4()}"
            tenant = self.ground.tenants[0]
            answer = self.web.ask(tenant, 0, 1_000, key)
            if answer is not None and answer[0] == CREATED:
                self.ground.note(tenant, 0, 1_000, key, answer[1]["id"])
                self.answered += 1
                self.longest, last, key = max(self.longest, time.monotonic() - last), time.monotonic(), ""
                self.unanswered = ""
            elif answer is not None and answer[0] < FAILURE:
                self.ground.asked.wrong.append(f"key {key} was answered {answer}")
                self.unanswered = key = ""
            else:
                self.repeated += 1
            time.sleep(PAUSE_SECONDS)


def measure(fault: str, *, backlog: int = BACKLOG, out_seconds: float = OUT_SECONDS) -> Result:
    """Play one outage; the result's recovery is how long the backlog took from its end on."""
    with Ground(durable=True, block_seconds=BLOCK_SECONDS) as ground:
        judge, web = Judge(ground), Web(ground, Judge(ground))
        _start_workers(ground)
        payer = Payer(web, ground)
        node = ground.supervisor.children["anvil"].process
        node.send_signal(signal.SIGSTOP)
        out, before = time.monotonic(), payer.answered
        _fill(ground, backlog)
        while fault == "rpc out" and time.monotonic() - out < out_seconds:
            time.sleep(0.1)
        _until(
            lambda: payer.answered - before >= ASKED_OUTSIDE, OUTSIDE_SECONDS
        )  # a small backlog is asked for in no time
        during = payer.answered - before
        _OUTAGES[fault](ground)
        node.send_signal(signal.SIGCONT)
        healed = time.monotonic()
        waited = _until(lambda: _left() == 0)
        recovery = time.monotonic() - healed
        wrong = payer.stop()
        for name in ("beat", *WORKERS):
            ground.supervisor.stop(name)
        ground.end_faults()
        if not ground.heal():
            wrong.append("it did not come to rest")
        verdict = judge.judge()
        verdict.unexplained += wrong
        if during < ASKED_OUTSIDE:
            verdict.unexplained.append(f"{during} payments were answered while the chain was away")
        if not waited:
            verdict.unexplained.append(f"{_left()} chain actions were left after {PATIENCE_SECONDS:.0f} s")
        web.close()
    info = (
        f"{backlog} chain actions final {recovery:.1f} s after the end; {during} payments answered while the chain was away "
        f"({healed - out:.0f} s), {payer.answered} in all, {payer.repeated} repeated, longest wait {payer.longest:.2f} s"
    )
    sums = len(verdict.lost), len(verdict.doubled), len(verdict.unexplained)
    return Result(f"recovery {fault}", 0, *sums, recovery, tuple(verdict.lines()), info=info, **verdict.judged)


def _start_workers(ground: Ground) -> None:
    for name, app in WORKERS.items():
        options = ["--pool", "prefork", "--concurrency", str(PROCESSES[name]), "--hostname", f"{name}@%h"]
        _start(ground, name, [app, "worker", *options], " ready.")
    files = ["--schedule", str(ground.home.path / "beat"), "--pidfile", ""]
    _start(ground, "beat", ["marketplace.celery:clock", "beat", *files], "is starting")


def _start(ground: Ground, name: str, words: list[str], says: str) -> None:
    argv = [sys.executable, "-m", "celery", "-A", *words, "-l", "INFO"]
    child = ground.supervisor.start(Service(name, argv, {**os.environ, **ground.environment}, ROOT))
    ground.supervisor.wait(child, ready.says(says))


def _fill(ground: Ground, backlog: int) -> None:
    """Ask for so many chain transactions: top-ups of a micro-USDC or more, each signed by its payer, none like another."""
    for number in range(backlog):
        tenant = ground.tenants[number % len(ground.tenants)]
        pools.top_up(pool=tenant.pool, amount_micros=1 + number, now=timezone.now())
        ground.asked.deposited[tenant.pool_key] += 1 + number


def _left() -> int:
    """Return how many actions have not ended; while the database is away, one that nobody knows of."""
    try:
        close_old_connections()
        return ChainAction.objects.filter(status__in=ChainAction.LIVE, kind=ChainAction.Kind.TOP_UP).count()
    except DatabaseError:
        connections.close_all()
        return 1


def _until(done: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> bool:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _flush(ground: Ground) -> None:
    with redis.Redis.from_url(ground.redis) as client:
        client.flushall()


def _kill_postgres(ground: Ground) -> None:
    """Kill it and all its children at once, and start it again."""
    service = ground.supervisor.kill("postgres")
    connections.close_all()
    end = time.monotonic() + PATIENCE_SECONDS
    child = ground.supervisor.start(service)
    while time.monotonic() < end:
        try:
            connections["default"].ensure_connection()
        except DatabaseError:
            connections.close_all()
            if child.process.poll() is not None:  # the last of its dead self had not gone yet
                child = ground.supervisor.start(service)
            time.sleep(0.05)
        else:
            return


_OUTAGES: Final[dict[str, Callable[[Ground], None]]] = {
    "redis flush": _flush,
    "postgres killed": _kill_postgres,
    "rpc out": lambda _: None,
}
