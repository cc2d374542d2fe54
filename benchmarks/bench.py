"""What every scenario shares: the running stack, the market in it, and what its figures are held against."""

import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, TypeVar

from benchmarks import floor
from benchmarks.load.launch import Result, drive
from benchmarks.market import Market, Purse
from benchmarks.naive import Naive
from benchmarks.peers import x402
from escrow.models import Pool
from marketplace.management.stack.stack import Stack
from marketplace.management.stack.supervisor import StackError

T = TypeVar("T")

CONNECTIONS: Final = 64
PLENTY: Final = "100000"
"""USDC in a pool that must never run dry: a thousand million payments."""
PLENTY_HOT: Final = "50000"
PLENTY_EACH: Final = "100"
OVERLOADED: Final = ("never sent", "run cut short", "no answer in time", "status 503")
"""What a service says, or shows, that more is asked of than it can do."""
SETTINGS: Final = {
    "SETTLE_MIN_MICROS": "1000000000",  # $1,000, which no load reaches by itself: settlement runs when a scenario asks
    "SETTLE_MAX_AGE": "864000",
    "RELAY_BATCH": "100",  # a thousand pools are opened before some scenarios; nothing that is measured waits for it
    "LOG_LEVEL": "WARNING",
}
"""What the measured stack is started with, beside what everybody has."""


@dataclass(frozen=True)
class Options:
    """How long and how large."""

    runs: int = 3
    seconds: float = 5.0
    pools: int = 1_000
    rows: int = 10_000_000
    fixed_rate: float = 3_000.0
    repeats: int = 20
    rounds: int = 100
    settled: int = 10_000
    draw: bool = True
    rivals: bool = True
    """Whether to measure the naive implementation and x402 too."""


@dataclass
class Row:
    """One scenario's figures. Rates are payments a second."""

    name: str
    rate: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    refused: int = 0
    errors: int = 0
    ratio_floor: float | None = None
    ratio_naive: float | None = None
    ratio_x402: float | None = None
    extras: dict[str, Any] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    """What should be exact and was not."""
    histogram: list[tuple[float, int]] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, seen: Result) -> "Row":
        """Return the row of one run of the load generator."""
        same = {key: seen[key] for key in ("rate", "p50_ms", "p95_ms", "p99_ms", "refused", "errors")}
        row = cls(name, **same, histogram=[(upper, count) for upper, count in seen["histogram"]])
        row.extras["driver_cpu"] = round(seen["driver_cpu_s"] / seen["duration_s"], 3)
        row.broken = wrong(seen)
        return row

    def document(self) -> dict[str, Any]:
        """Return the row as JSON."""
        fixed = {key: value for key, value in vars(self).items() if key not in ("extras", "histogram", "broken")}
        return {**fixed, **self.extras, "broken": self.broken}


class Bench:
    """The context of a whole run. What is slow to make or to measure is made once, when it is first asked for."""

    def __init__(self, stack: Stack, options: Options, say: Callable[[str], None]) -> None:
        """Register who pays and who is paid."""
        self.stack = stack
        self.options = options
        self.say = say
        self.market = Market(say)
        self._loads = 0

    @cached_property
    def hot_pool(self) -> Pool:
        """The pool of the sessions that are measured one at a time."""
        return self.market.open_pools(1, PLENTY)[0]

    @cached_property
    def hot(self) -> Purse:
        """One session that everybody pays from."""
        purse = self.market.purses([self.hot_pool], PLENTY_HOT)[0]
        self.load([purse], warm_up=True)
        return purse

    @cached_property
    def many(self) -> list[Purse]:
        """As many sessions, each in a pool of its own."""
        self.say(f"opening {self.options.pools} pools on chain ...")
        found = self.market.purses(self.market.open_pools(self.options.pools, PLENTY_EACH), PLENTY_EACH)
        self.load(found, warm_up=True)
        return found

    @cached_property
    def quiet(self) -> Result:
        """The hot pool with nothing else going on: what burdens are held against."""
        return self.median(lambda: self.load([self.hot]))

    @cached_property
    def floor_hot(self) -> float | None:
        """The same SQL function on one session, one call a commit, without HTTP: payments a second."""
        return floor.best(self.stack, [self.hot], floor.HOT_CLIENTS, self.brief, self.say)

    @cached_property
    def floor_many(self) -> float | None:
        """The same over many sessions."""
        return floor.best(self.stack, self.many, floor.MANY_CLIENTS, self.brief, self.say)

    @cached_property
    def naive(self) -> dict[str, float]:
        """The naive implementation, on one pool and on many: payments a second."""
        if not self.options.rivals:
            return {}
        self.say("the naive implementation ...")
        rates = {}
        with Naive(self.stack) as naive:
            for name, pools in (("hot", 1), ("many", self.options.pools)):
                plan: dict[str, Any] = {"url": naive.url, "path": naive.path, "callers": naive.callers(pools)}
                drive(**plan, key="warm:", connections=CONNECTIONS, count=200)
                seen = drive(**plan, key=f"{name}:", connections=CONNECTIONS, seconds=self.brief)
                if seen["errors"] or seen["refused"]:
                    raise RuntimeError(f"the naive implementation failed: {seen['codes']} {seen['errors_by_kind']}")
                rates[name] = float(seen["rate"])
        return rates

    @cached_property
    def x402(self) -> dict[str, Any]:
        """The reference x402 stack."""
        if not self.options.rivals:
            return {}
        self.say("the x402 reference stack ...")
        return self.attempt(lambda: x402.measure(self.stack, seconds=self.brief)) or {}

    def attempt(self, rival: Callable[[], T]) -> T | None:
        """Measure what others have built; None, and said why, where it cannot run: ours does not depend on it."""
        try:
            return rival()
        except (StackError, subprocess.SubprocessError) as error:
            self.say(str(error))
            return None

    @property
    def brief(self) -> float:
        """Seconds for what is only held against."""
        return min(self.options.seconds, 4.0)

    def load(self, purses: Sequence[Purse], *, warm_up: bool = False, **plan: Any) -> Result:
        """Let the load generator pay from these sessions; without a rate, 64 connections as fast as they get answers."""
        wanted: dict[str, Any] = {"connections": CONNECTIONS, "seconds": self.options.seconds, **plan}
        if warm_up:
            wanted |= {"count": min(400, max(2 * len(purses), 100)), "seconds": 60.0}
        callers = [purse.caller for purse in purses]
        return drive(url=self.stack.urls.web, callers=callers, key=self.key(), **wanted)

    def key(self) -> str:
        """Return how the idempotency keys of one load begin."""
        self._loads += 1
        return f"load-{self._loads}:"

    def median(self, once: Callable[[], Result]) -> Result:
        """Run as often as is asked, and return the run whose rate is the median one, whole."""
        seen = sorted((once() for _ in range(self.options.runs)), key=lambda result: float(result["rate"]))
        return seen[(len(seen) - 1) // 2]

    def compare(self, row: Row, *, many: bool = False) -> Row:
        """Fill in the ratios to the floor, to the naive implementation and to x402."""
        row.ratio_floor = ratio(row.rate, self.floor_many if many else self.floor_hot)
        row.ratio_naive = ratio(row.rate, self.naive.get("many" if many else "hot"))
        row.ratio_x402 = ratio(row.rate, self.x402.get("rate"))
        return row


def wrong(seen: Result) -> list[str]:
    """Return what a load had of answers that nobody should get; being too slow for it is told by its figures."""
    errors = {kind: count for kind, count in seen["errors_by_kind"].items() if kind not in OVERLOADED}
    refused = {code: count for code, count in seen["codes"].items() if code not in ("201", "unavailable")}
    return [f"{kind}: {count}" for kind, count in (errors | refused).items()]


def ratio(rate: float | None, to: float | None) -> float | None:
    """Return how many times one rate is another; None when either is not known."""
    return round(rate / to, 3) if rate and to else None


def spread(name: str, rounds: Sequence[float], payments: int) -> Row:
    """Return the row of rounds that took so many milliseconds for so many payments each."""
    ordered = sorted(rounds)
    at = {percent: ordered[max(0, -(-len(ordered) * percent // 100) - 1)] for percent in (50, 95, 99)}
    return Row(
        name,
        rate=round(payments * 1_000 / statistics.fmean(ordered), 1),
        p50_ms=round(at[50], 3),
        p95_ms=round(at[95], 3),
        p99_ms=round(at[99], 3),
    )
