"""The hot pool under a burden: a settlement beside it, a slow disk under it, ten million payments behind it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg

from benchmarks import floor, seed
from benchmarks.bench import SETTINGS, Bench, Row, ratio
from benchmarks.load.figures import SLICE_SECONDS
from benchmarks.load.launch import Result, Running
from benchmarks.load.plan import Caller
from benchmarks.market import AGENT
from escrow import money
from escrow.models import Batch, Payment, Pool
from marketplace.management.stack.stack import Stack

SETTLE_SECONDS: Final = 45.0
"""How long the settlement may take; the load beside it goes on for as long at most."""
FSYNC_MS: Final = 1
LIVE_SHARE: Final = 0.02
"""The part of the seeded payments that no batch has taken yet: two days' worth of three months."""


def while_settling(bench: Bench) -> Row:
    """The hot pool while the worker settles 10,000 payments of another pool; the rate is of the time of the settlement."""
    quiet, count = float(bench.quiet["rate"]), bench.options.settled
    dear = money.render(int(SETTINGS["SETTLE_MIN_MICROS"]) // count)  # the last one makes the pool's debts due
    pool = bench.market.open_pools(1, money.render(int(SETTINGS["SETTLE_MIN_MICROS"])))[0]
    caller = bench.market.purses([pool], money.render(int(SETTINGS["SETTLE_MIN_MICROS"])))[0].caller
    plan = {"url": bench.stack.urls.web, "callers": [Caller(caller.token, AGENT, dear)], "key": bench.key()}
    owed = Running({**plan, "connections": 64, "count": count - 1, "seconds": 300.0}).result()
    hot = {"url": bench.stack.urls.web, "callers": [bench.hot.caller], "key": bench.key(), "connections": 64}
    running = Running({**hot, "seconds": max(bench.options.seconds, 4.0) * 2})
    time.sleep(1.0)  # the load is under way
    Running({**plan, "connections": 1, "first": count - 1, "count": 1, "seconds": 30.0}).result()
    settling = _settled(pool)
    seen = running.result()
    during = _rate_between(seen, *settling) if settling else None
    row = Row.of("while_settling", seen)
    row.rate = during
    row.extras |= {
        "settled": Payment.objects.filter(pool=pool, status=Payment.Status.SETTLED).count(),
        "settle_seconds": round(settling[1] - settling[0], 2) if settling else None,
        "ratio_quiet": ratio(during, quiet),
    }
    if owed["paid"] != count - 1 or row.extras["settled"] != count:
        row.broken.append(f"{owed['paid'] + 1} were owed, {row.extras['settled']} are settled")
    return bench.compare(row)


def slow_disk(bench: Bench) -> Row:
    """PostgreSQL waits 1 ms more before each fsync of a commit: what a slower disk does to each way of paying."""
    with _slow_commits(bench.stack):
        row = Row.of("slow_disk", bench.median(lambda: bench.load([bench.hot])))
        fixed = at_fixed_rate(bench)
        alone = floor.best(bench.stack, [bench.hot], floor.HOT_CLIENTS, bench.brief, bench.say)
    row.extras |= {
        "how": f"commit_delay = {FSYNC_MS * 1000}, commit_siblings = 0",
        "one_statement_a_commit": alone,
        "ratio_one_statement_a_commit": ratio(row.rate, alone),
        "ratio_quiet": ratio(row.rate, float(bench.quiet["rate"])),
        "fixed_rate": bench.options.fixed_rate,
        "fixed_p50_ms": fixed["p50_ms"],
        "fixed_p99_ms": fixed["p99_ms"],
    }
    bench.compare(row)
    row.ratio_floor = ratio(row.rate, alone)
    return row


def rows_10m(bench: Bench) -> Row:
    """The hot pool with many millions of payments in the tables."""
    empty = float(bench.quiet["rate"])
    purses = [bench.hot, *bench.__dict__.get("many", [])]
    begun = time.monotonic()
    seed.fill(
        bench.stack.urls.database,
        seed.Wanted(payments=bench.options.rows, live_share=LIVE_SHARE),
        [purse.session.pk for purse in purses],
        bench.say,
    )
    seeded = time.monotonic() - begun
    bench.load([bench.hot], warm_up=True)
    row = Row.of("rows_10m", bench.median(lambda: bench.load([bench.hot])))
    fixed = at_fixed_rate(bench)
    row.extras |= {
        "rows": Payment.objects.count(),
        "seed_seconds": round(seeded, 1),
        "ratio_empty": ratio(row.rate, empty),
        "fixed_rate": bench.options.fixed_rate,
        "fixed_p50_ms": fixed["p50_ms"],
        "fixed_p99_ms": fixed["p99_ms"],
    }
    row.broken += seed.faults(bench.stack.urls.database)
    return bench.compare(row)


def at_fixed_rate(bench: Bench, purses: Any = None) -> Result:
    """Return what callers see who come at a fixed rate: the run whose p99 is the median one."""
    chosen = purses or [bench.hot]
    seen = [bench.load(chosen, rate=bench.options.fixed_rate) for _ in range(bench.options.runs)]
    return sorted(seen, key=lambda result: float(result["p99_ms"] or 1e9))[(len(seen) - 1) // 2]


def _rate_between(seen: Result, begun: float, ended: float) -> float | None:
    """Return the rate of a load between two times of the clock, as far as it was running."""
    timeline = seen["timeline"]
    first = max(0, int((begun - seen["began_at"]) / SLICE_SECONDS))
    last = min(len(timeline) - 1, int((ended - seen["began_at"]) / SLICE_SECONDS) + 1)
    slices = timeline[first:last]
    return round(sum(slices) / (len(slices) * SLICE_SECONDS), 1) if slices else None


def _settled(pool: Pool) -> tuple[float, float] | None:
    """Wait until the pool's batch has landed; return when it was begun and when it was seen on chain, by the clock."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        batch = Batch.objects.filter(pool=pool, status=Batch.Status.SETTLED).first()
        if batch is not None:
            return batch.created_at.timestamp(), time.time()
        time.sleep(0.05)
    return None


@contextmanager
def _slow_commits(stack: Stack) -> Iterator[None]:
    """Have the server wait before each flush of a commit, however many others are active, while the block runs."""
    with psycopg.connect(stack.urls.database, autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET commit_delay = {FSYNC_MS * 1000}".encode())
        connection.execute("ALTER SYSTEM SET commit_siblings = 0")
        connection.execute("SELECT pg_reload_conf()")
        try:
            time.sleep(0.5)  # every session reads its settings again before its next statement
            yield
        finally:
            connection.execute("ALTER SYSTEM RESET commit_delay")
            connection.execute("ALTER SYSTEM RESET commit_siblings")
            connection.execute("SELECT pg_reload_conf()")
