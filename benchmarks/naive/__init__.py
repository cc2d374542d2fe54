"""The same payment as POST /v1/payments, written as a competent Django developer writes it without thinking of speed.

    with Naive(stack) as naive:
        one = naive.callers(1)[0]     # {"token", "to", "amount"}: POST naive.url + naive.path

Lives here: starting it beside a stack, in a database of its own. Not here: the application, which is an ordinary Django
project with its own settings (`settings`, `models`, `auth`, `payments`, `views`).
"""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

import psycopg

from benchmarks.naive.books import in_order
from marketplace.management.stack import ready

if TYPE_CHECKING:
    from marketplace.management.stack.stack import Stack

ROOT: Final = Path(__file__).resolve().parents[2]
DATABASE: Final = "benchmark_naive"
SERVER: Final = "-m granian --interface wsgi --workers 2 --blocking-threads 4 --no-access-log --workers-kill-timeout 3"
"""The fastest way to serve Django on two cores; threads keep their database connections."""
SEED_SECONDS: Final = 60.0
PLENTY_MICROS: Final = 10**12


class Naive:
    """A context manager: inside it the naive market answers at `url`, after it its database is gone."""

    path: Final = "/v1/payments"
    url: str

    def __init__(self, stack: "Stack") -> None:
        """Live beside a running stack, in the same PostgreSQL server."""
        self._stack = stack
        self._exits = ExitStack()
        self.database = urlsplit(stack.urls.database)._replace(path=f"/{DATABASE}").geturl()
        self._environment = {"DJANGO_SETTINGS_MODULE": "benchmarks.naive.settings", "NAIVE_DATABASE_URL": self.database}

    def __enter__(self) -> Self:
        """Make the database and its tables, then serve."""
        with ExitStack() as exits:
            self._server_does(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)", f"CREATE DATABASE {DATABASE}")
            exits.callback(self._server_does, f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
            self._run("tables")
            port = ready.port_of(exits.enter_context(ready.reserve()))
            self.url = f"http://127.0.0.1:{port}"
            place = f"--host 127.0.0.1 --port {port} benchmarks.naive.wsgi:application"
            self._stack.spawn(
                "naive",
                [sys.executable, *SERVER.split(), *place.split()],
                env=self._environment,
                ready=ready.answers(f"{self.url}/healthz"),
            )
            exits.callback(self._stack.stop, "naive")
            self._exits = exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving and drop the database."""
        self._exits.close()

    def callers(self, pools: int, *, budget_micros: int = PLENTY_MICROS, amount: str = "0.001") -> list[dict[str, str]]:
        """Return one caller for each of so many new pools: its key, whom it pays and how much a payment is."""
        answer: list[dict[str, str]] = json.loads(self._run("pools", str(pools), str(budget_micros)))
        return [{**caller, "amount": amount} for caller in answer]

    def in_order(self) -> bool:
        """Return whether no pool is overspent and every micro that left one arrived at an agent."""
        with psycopg.connect(self.database) as connection:
            return in_order(connection)

    def _run(self, *arguments: str) -> str:
        """Run the seeding of the naive project and return what it wrote."""
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.naive.seed", *arguments],
            env=os.environ | self._stack.environment | self._environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=SEED_SECONDS,
        )
        return done.stdout

    def _server_does(self, *statements: str) -> None:
        with psycopg.connect(self._stack.urls.database, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())
