"""The ledger alone, without HTTP or policy: ours in batches of 64 transfers, and django-hordak on the same PostgreSQL.

    ledger.measure(stack)    # [{"name": "ours, one payer, batches of 64", "rate": ...}, ...]

TigerBeetle would be the harder rival. Its packages (PyPI `tigerbeetle`, npm `tigerbeetle-node`) hold the client's library
only, and its server is in no package registry, so it cannot be started from a lock file.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import psycopg

from benchmarks.peers import ROOT, program

if TYPE_CHECKING:
    from marketplace.management.stack.stack import Stack

BATCH: Final = 64
ACCOUNTS: Final = 1_000
TIMES_HORDAK: Final = 20
"""How many times its best figure for one transfer each counts as fast."""
PATIENCE_SECONDS: Final = 180.0


def measure(stack: "Stack", seconds: float = 3.0) -> list[dict[str, Any]]:
    """Return transfers a second of each way, each with one connection and durable commits."""
    ours = _rates(stack, "benchmark_ledger", [sys.executable, "-m", "benchmarks.peers.ours"], ACCOUNTS, seconds)
    # Its accounts are a tree, in which each new one moves others: a hundred are enough to share the load.
    hordak = _rates(stack, "benchmark_hordak", program("hordak_ledger"), ACCOUNTS // 10, seconds)
    best = max(rate for name, rate in hordak.items() if name.endswith("one each"))
    return [
        *({"name": f"ours, {name}", "rate": rate} for name, rate in ours.items()),
        *({"name": f"django-hordak, {name}", "rate": rate} for name, rate in hordak.items()),
        {"name": f"django-hordak, one each, times {TIMES_HORDAK}", "rate": TIMES_HORDAK * best},
    ]


def _rates(stack: "Stack", name: str, argv: Sequence[str | Path], accounts: int, seconds: float) -> dict[str, float]:
    """Run a program in a database of its own; return what it prints."""
    with _database(stack.urls.database, name) as url:
        done = subprocess.run(
            [*argv, "--accounts", str(accounts), "--seconds", str(seconds), "--batch", str(BATCH)],
            env=os.environ | stack.environment | {"DATABASE_URL": url},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=3 * seconds + PATIENCE_SECONDS,
        )
    rates: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return rates


@contextmanager
def _database(server_url: str, name: str) -> Iterator[str]:
    """Make a database of this name in the server, and drop it in the end."""
    drop = f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode()
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(drop)
        server.execute(f"CREATE DATABASE {name}".encode())
        try:
            yield urlsplit(server_url)._replace(path=f"/{name}").geturl()
        finally:
            server.execute(drop)
