"""The scenarios by name, in the order in which they run, and those that are plain load. Others: `exact`, `burdens`, `idle`."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from benchmarks import burdens, exact, idle, settling
from benchmarks.bench import Bench, Row, ratio, wrong
from benchmarks.market import Purse
from benchmarks.peers import ledger as peer_ledgers

OURS: Final = "ours"
REFUND_SHARE: Final = 0.3
FIGURES: Final = ("rate", "p50_ms", "p95_ms", "p99_ms", "max_ms", "errors", "driver_late_ms")


def hot_pool(bench: Bench) -> Row:
    """Everybody pays from one session: 64 connections as fast as they can, then a fixed rate."""
    bench.load([bench.hot], warm_up=True)
    before = idle.resident(bench.stack, "web")
    row = Row.of("hot_pool", bench.quiet)
    row.extras["web_rss_mb"] = [before, idle.resident(bench.stack, "web")]
    bench.compare(row)
    return _at_fixed_rate(bench, row, [bench.hot])


def many_pools(bench: Bench) -> Row:
    """Payments from as many pools as there are: the same two loads."""
    row = Row.of("many_pools", bench.median(lambda: bench.load(bench.many)))
    row.extras["pools"] = len(bench.many)
    return _at_fixed_rate(bench, bench.compare(row, many=True), bench.many)


def refunds_30(bench: Bench) -> Row:
    """Three of ten payments are given back by the provider at once; the rate is of payments alone."""
    seen = bench.median(lambda: bench.load([bench.hot], refund_share=REFUND_SHARE))
    row = Row.of("refunds_30", seen)
    row.extras["refunds"] = seen["refunds"]
    if set(seen["refunds"]["codes"]) != {"200"}:
        row.broken.append(f"refunds: {seen['refunds']['codes']}")
    return bench.compare(row)


def x402(bench: Bench) -> Row:
    """The reference x402 stack: what agents' payments are today."""
    seen = bench.x402
    row = Row("x402", rate=seen.get("rate"), p50_ms=seen.get("p50_ms"), p99_ms=seen.get("p99_ms"))
    row.extras = {key: value for key, value in seen.items() if not hasattr(row, key)}
    return row


def ledger(bench: Bench) -> Row:
    """Transfers alone, in batches of 64: ours, and other ledgers in the same run."""
    rows: list[dict[str, Any]] = bench.attempt(lambda: peer_ledgers.measure(bench.stack)) or []
    best = max((float(row["rate"]) for row in rows if row["name"].startswith(OURS)), default=None)
    row = Row("ledger", rate=best, extras={"rows": rows})
    if rows and not rows[-1]["name"].startswith(OURS):
        row.extras |= {"held_against": rows[-1]["name"], "ratio": ratio(best, rows[-1]["rate"])}
    return row


SCENARIOS: Final[dict[str, Callable[[Bench], Row]]] = {
    "idle": idle.idle,
    "hot_pool": hot_pool,
    "many_pools": many_pools,
    "budget_100": exact.budget_100,
    "parallel_40": exact.parallel_40,
    "three": exact.three,
    "run_200": exact.run_200,
    "refunds_30": refunds_30,
    "while_settling": burdens.while_settling,
    "settle_50": settling.settle_50,
    "slow_disk": burdens.slow_disk,
    "x402": x402,
    "ledger": ledger,
    "rows_10m": burdens.rows_10m,
}
"""The last one makes the tables large, so nothing else is measured after it."""


def _at_fixed_rate(bench: Bench, row: Row, purses: Sequence[Purse]) -> Row:
    """Add what callers see who come at a fixed rate, whatever the service does."""
    seen = burdens.at_fixed_rate(bench, purses)
    row.extras |= {"fixed_rate": bench.options.fixed_rate, **{f"fixed_{name}": seen[name] for name in FIGURES[1:]}}
    row.errors += int(seen["errors"])
    row.broken += [f"at the fixed rate: {fault}" for fault in wrong(seen)]
    return row
