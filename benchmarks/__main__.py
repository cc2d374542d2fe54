"""`make bench`: how fast payments are over HTTP, how much memory the idle stack takes, how fast the web starts.

Lives here: starting the real stack, loading it from this process, and the table. Machines are noisy, so every time stands
beside a floor that was measured on the same machine in the same run: a durable insert of one row, and an HTTP request that
touches no money. A bar is what the project promises; a ratio over 1 misses it.
"""

import argparse
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import django
import httpx2
import psutil
import psycopg
from django.utils import timezone
from rich.console import Console
from rich.table import Table

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketplace.settings")
django.setup()
logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line for each request would be most of the output

from escrow import reconcile  # noqa: E402  (Django must be set up first)
from escrow.chain.client import ChainClient  # noqa: E402
from marketplace.management.stack import sample  # noqa: E402
from marketplace.management.stack.stack import Stack  # noqa: E402

P95_BAR_MS: Final = 30.0
RSS_BAR_MB: Final = 900.0
START_BAR_S: Final = 4.0
WARM_UP: Final = 20
"""Requests before the clock starts: the first of each web process opens its connections."""


@dataclass(frozen=True)
class Row:
    """One measurement: its value, its bar where the project promises one, and what the floor took."""

    name: str
    value: float
    unit: str
    bar: float | None = None
    floor: float | None = None

    @property
    def ratio_bar(self) -> float | None:
        """The part of the bar that it takes: at most 1 keeps the promise."""
        return None if self.bar is None else self.value / self.bar

    @property
    def ratio_floor(self) -> float | None:
        """How many times the floor it takes."""
        return None if not self.floor else self.value / self.floor


def timed(times: int, call: Callable[[int], None]) -> list[float]:
    """Return how long each call took, in milliseconds, sorted, after some that do not count."""
    for at in range(WARM_UP):
        call(-1 - at)
    taken = []
    for at in range(times):
        begun = time.perf_counter()
        call(at)
        taken.append((time.perf_counter() - begun) * 1_000)
    return sorted(taken)


def percentile(taken: Sequence[float], percent: int) -> float:
    """Return the nearest-rank percentile of sorted values."""
    return taken[max(0, -(-len(taken) * percent // 100) - 1)]


def durable_inserts(database_url: str, times: int) -> list[float]:
    """Measure the least that a durable payment could cost: one row, one commit."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS benchmark_floor (id bigserial PRIMARY KEY, amount bigint)")
        taken = timed(
            times, lambda at: _discard(connection.execute("INSERT INTO benchmark_floor (amount) VALUES (%s)", [at]))
        )
        connection.execute("DROP TABLE benchmark_floor")
    return taken


def payments(stack: Stack, buyer: sample.Buyer, times: int) -> tuple[list[float], list[float]]:
    """Measure payments one after another over one connection, and a request that touches no money beside them."""
    run = os.urandom(8).hex()
    headers = {"Authorization": f"Bearer {buyer.session_key}"}
    with httpx2.Client(base_url=stack.urls.web, headers=headers) as http:

        def pay(at: int) -> None:
            body = {"to": "agent://lint.acme.dev", "amount": "0.001", "metadata": {"at": at}}
            answer = http.post("/v1/payments", json=body, headers={"Idempotency-Key": f"{run}:{at}"})
            if answer.status_code != 201:
                raise SystemExit(f"a payment was refused: {answer.text}")

        def look(at: int) -> None:
            http.get("/healthz").raise_for_status()

        return timed(times, pay), timed(times, look)


def idle_memory(stack: Stack) -> tuple[float, float]:
    """Return the resident memory of every process of the stack, in MB: the sum of RSS, and of PSS (shared pages once)."""
    own = {child.process.pid for child in stack.supervisor.children.values()}
    rss = pss = 0
    for process in psutil.Process().children(recursive=True):
        if process.pid in own or os.getsid(process.pid) in own:
            memory = process.memory_full_info()
            rss += memory.rss
            pss += memory.pss
    return rss / 2**20, pss / 2**20


def web_start(stack: Stack) -> float:
    """Return how long the web takes from its start to its first answer, in seconds."""
    stack.stop("web")
    begun = time.perf_counter()
    stack.restart("web")
    return time.perf_counter() - begun


def measure(times: int, say: Callable[[str], None]) -> tuple[list[Row], bool]:
    """Run everything; return the rows, and whether the books still equal the chain."""
    with Stack(report=say) as stack:
        sellers = sample.start_specialists(stack)
        buyer = sample.open_buyer(
            name="Benchmark", deposit="25.00", budget="20.00", policy={}, sellers=list(sellers.values())
        )
        rss, pss = idle_memory(stack)
        say(f"{times} payments ...")
        paid, looked = payments(stack, buyer, times)
        inserted = durable_inserts(stack.urls.database, times)
        started = web_start(stack)
        report = reconcile.reconcile(client=ChainClient(stack.urls.rpc), now=timezone.now())
    floor = percentile(inserted, 50)
    rows = [
        Row("payment over HTTP, p50", percentile(paid, 50), "ms", floor=floor),
        Row("payment over HTTP, p95", percentile(paid, 95), "ms", P95_BAR_MS, percentile(inserted, 95)),
        Row("payment over HTTP, mean rate, one caller", 1_000 / statistics.fmean(paid), "per s"),
        Row("request without money, p50", percentile(looked, 50), "ms", floor=floor),
        Row("floor: durable insert, p50", floor, "ms"),
        Row("idle memory of the whole stack, RSS", rss, "MB", RSS_BAR_MB),
        Row("idle memory of the whole stack, PSS", pss, "MB"),
        Row("start of the web", started, "s", START_BAR_S),
    ]
    return rows, report.equal


def main() -> int:
    """Measure and print; exit 1 when the books are off."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument("--payments", type=int, default=300, help="how many payments to time (default: 300)")
    options = parser.parse_args()
    progress = Console(stderr=True, highlight=False)
    rows, equal = measure(options.payments, progress.print)
    if options.json:
        documents = [{**asdict(row), "ratio_bar": row.ratio_bar, "ratio_floor": row.ratio_floor} for row in rows]
        sys.stdout.write(json.dumps({"rows": documents, "reconciled": equal}) + "\n")
    else:
        _print(rows, equal)
    return 0 if equal else 1


def _print(rows: Sequence[Row], equal: bool) -> None:
    table = Table("measured", "value", "bar", "of the bar", "times the floor")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.value:.1f} {row.unit}",
            "" if row.bar is None else f"{row.bar:g} {row.unit}",
            "" if row.ratio_bar is None else f"{row.ratio_bar:.2f}",
            "" if row.ratio_floor is None else f"{row.ratio_floor:.1f}",
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(f"books equal chain: {'yes' if equal else 'NO'}")


def _discard(_: object) -> None:
    """Take a result that nobody needs."""


if __name__ == "__main__":
    sys.exit(main())
