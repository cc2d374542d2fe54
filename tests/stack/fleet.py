"""Real workers on the tests' own database, with a Valkey of their own, and a lock that holds a sweep where one wants it."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import psycopg
from celery import Celery
from django.db import connection
from django.utils import timezone

from escrow.models import Hold, Session
from marketplace.management.stack import ready, valkey
from marketplace.management.stack.home import Home
from marketplace.management.stack.supervisor import Child, Service, Supervisor
from tests.escrow import books

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 90.0


def database_url() -> str:
    """The tests' own database, for another process."""
    at = connection.settings_dict
    host, port = quote(str(at["HOST"]), safe=""), f":{at['PORT']}" if at["PORT"] else ""
    secret = f":{quote(at['PASSWORD'])}" if at["PASSWORD"] else ""
    return f"postgres://{at['USER']}{secret}@{host}{port}/{at['NAME']}"


def until(done: Callable[[], Any], what: str) -> Any:
    """Wait for something, and return it."""
    end = time.monotonic() + PATIENCE
    while not (found := done()):
        assert time.monotonic() < end, f"still not so: {what}"
        time.sleep(0.02)
    return found


class Fleet:
    """Workers, beat and Valkey of one test."""

    def __init__(self, home: Home, **settings: str) -> None:
        self.supervisor = Supervisor(home)
        self.home = home
        self.redis = valkey.start(self.supervisor)
        self.environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "marketplace.settings",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "sdk" / "src")]),
            "CELERY_SKIP_CHECKS": "1",
            "DATABASE_URL": database_url(),
            "DATABASE_LOCK_TIMEOUT_MS": "60000",
            "DATABASE_STATEMENT_TIMEOUT_MS": "60000",
            "REDIS_URL": self.redis,
            "RPC_URL": "http://127.0.0.1:9",
            "LOG_FORMAT": "json",
            **settings,
        }
        socket = self.redis.removeprefix("unix://").partition("?")[0]
        self.app = Celery("tests", broker=f"redis+socket://{socket}?virtual_host=0", set_as_current=False)

    def worker(self, name: str, *, app: str = "marketplace", processes: int = 1) -> Child:
        """Start a worker whose children can be killed one by one."""
        options = (
            f"-l INFO --pool prefork --concurrency {processes} --hostname {name}@test --without-gossip --without-mingle"
        )
        argv = [sys.executable, "-m", "celery", "-A", app, "worker", *options.split()]
        child = self.supervisor.start(Service(name, argv, self.environment, ROOT))
        return self.supervisor.wait(child, ready.says(" ready."), PATIENCE)

    def beat(self) -> Child:
        """Start the clock."""
        files = ["--schedule", str(self.home.path / "beat"), "--pidfile", ""]
        argv = [sys.executable, "-m", "celery", "-A", "marketplace.celery:clock", "beat", "-l", "INFO", *files]
        return self.supervisor.start(Service("beat", argv, self.environment, ROOT))

    def ask(self, task: str) -> None:
        """Send a message to its task's queue."""
        self.app.send_task(task, queue=task)

    def discard(self, task: str) -> None:
        """Throw away what nobody has taken."""
        with self.app.connection_for_write() as broker:
            broker.default_channel.client.delete(task)

    def waiting(self, task: str) -> int:
        """Return how many messages nobody has taken."""
        with self.app.connection_for_read() as broker:
            return int(broker.default_channel.client.llen(task))


@contextmanager
def fleet(**settings: str) -> Iterator[Fleet]:
    """Have workers for the time of a test; nothing of them is left after it."""
    with Home() as home:
        made = Fleet(home, **settings)
        try:
            yield made
        finally:
            made.app.close()
            made.supervisor.close()


def children(of: Child) -> list[psutil.Process]:
    """The processes of a worker's pool."""
    return list(psutil.Process(of.process.pid).children(recursive=True))


def overdue(session: Session, count: int) -> list[Hold]:
    """Holds of one hundredth of a USDC each, whose time is over."""
    seller = books.party()
    made = [books.hold(session, seller, 10_000, expires_in=900) for _ in range(count)]
    past = timezone.now() - timedelta(minutes=1)
    for number, hold in enumerate(made):
        Hold.objects.filter(pk=hold.pk).update(expires_at=past + timedelta(milliseconds=number))
    return made


@contextmanager
def stopped_at(hold: Hold) -> Iterator[Callable[[int], None]]:
    """Keep a sweep at one hold; yields a function that waits until so many backends wait for it."""
    with psycopg.connect(database_url(), autocommit=False) as other:
        other.execute("SELECT 1 FROM escrow_account WHERE id = %s FOR UPDATE", [hold.account_id])
        mine = other.info.backend_pid

        def wait_for(backends: int) -> None:
            asked = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid)) OR wait_event_type = 'Lock'"

            def count() -> bool:
                with connection.cursor() as cursor:
                    cursor.execute(asked, [mine])
                    return bool(cursor.fetchone()[0] >= backends)

            until(count, f"{backends} backends wait")

        yield wait_for
        with suppress(psycopg.Error):
            other.rollback()
