"""Scenarios whose outcome is exact: so many are paid, so many refused, and the money is where it must be."""

import statistics
from typing import Final

from benchmarks.bench import PLENTY_EACH, Bench, Row, spread
from benchmarks.load.launch import Result
from benchmarks.market import AGENT, PRICE, PRICE_MICROS
from benchmarks.sdk import run
from escrow import ledger, money

RUN_OF: Final = 200


def budget_100(bench: Bench) -> Row:
    """200 at once on a budget for 100: exactly 100 are paid, 100 are told that the money is gone."""
    return _contest(bench, "budget_100", budget=100, callers=200)


def parallel_40(bench: Bench) -> Row:
    """40 at once on a budget for exactly those 40: none is turned away."""
    return _contest(bench, "parallel_40", budget=40, callers=40)


def three(bench: Bench) -> Row:
    """Three payments one after another through the SDK: percentiles are of the three together."""
    return _through_sdk(bench, "three", payments=3, rounds=bench.options.rounds)


def run_200(bench: Bench) -> Row:
    """Two hundred payments one after another through the SDK, as in one task: percentiles are of all of them together."""
    row = _through_sdk(bench, "run_200", payments=RUN_OF, rounds=bench.options.runs)
    row.extras["total_ms"] = row.p50_ms
    return row


def _contest(bench: Bench, name: str, *, budget: int, callers: int) -> Row:
    """Let so many callers pay at once, each over its own connection, again and again on a fresh budget."""
    pool = bench.hot_pool
    seen: list[Result] = []
    broken: list[str] = []
    for at in range(bench.options.repeats):
        purse = bench.market.purses([pool], money.render(budget * PRICE_MICROS))[0]
        result = bench.load([purse], connections=callers, count=callers, seconds=30.0)
        expected = {"201": budget}
        if callers > budget:
            expected["insufficient_funds"] = callers - budget
        left = ledger.balance(purse.session.account)
        if result["codes"] != expected or result["errors"] or left:
            broken.append(f"round {at}: {result['codes']}, {result['errors_by_kind']}, {left} micro-USDC left")
        seen.append(result)
    middle = sorted(seen, key=lambda result: float(result["p99_ms"] or 0))[(len(seen) - 1) // 2]
    row = Row.of(name, middle)
    row.broken = broken
    row.rate = round(statistics.median(sum(r["codes"].values()) / r["duration_s"] for r in seen), 1)
    row.errors = sum(int(result["errors"]) for result in seen)
    row.extras |= {"paid": middle["paid"], "repeats": len(seen), "exact": not broken}
    return row


def _through_sdk(bench: Bench, name: str, *, payments: int, rounds: int) -> Row:
    purse = bench.market.purses([bench.hot_pool], PLENTY_EACH)[0]
    taken = run(
        bench.stack.environment,
        url=bench.stack.urls.web,
        key=purse.caller.token,
        to=AGENT,
        amount=PRICE,
        payments=payments,
        rounds=rounds,
    )
    row = spread(name, taken, payments)
    row.extras = {"payments": payments, "rounds": rounds}
    return row
