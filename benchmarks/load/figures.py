"""Percentiles and histograms of latencies. Everything here takes and gives milliseconds, or says otherwise."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

PERCENTS: Final = {"p50_ms": 50.0, "p95_ms": 95.0, "p99_ms": 99.0, "p999_ms": 99.9}
BUCKETS_A_DECADE: Final = 20
"""Each bucket is 12 % wider than the one before it."""

SLICE_SECONDS: Final = 0.1
"""Of a run's timeline: short enough to see what a burden does while it lasts."""


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile of sorted values, which must not be empty."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def summary(latencies: Iterable[float]) -> dict[str, float | None]:
    """Return the percentiles and the largest of latencies in seconds, in milliseconds; None where there are none."""
    ordered = sorted(latencies)
    if not ordered:
        return dict.fromkeys((*PERCENTS, "max_ms"))
    found = {name: round(percentile(ordered, percent) * 1_000, 3) for name, percent in PERCENTS.items()}
    return {**found, "max_ms": round(ordered[-1] * 1_000, 3)}


def histogram(latencies: Iterable[float]) -> list[tuple[float, int]]:
    """Return (upper end in ms, count) of each bucket that is not empty; the buckets grow by the same factor."""
    counted = Counter(math.ceil(math.log10(max(taken * 1_000, 1e-3)) * BUCKETS_A_DECADE) for taken in latencies)
    return [(round(10 ** (at / BUCKETS_A_DECADE), 5), counted[at]) for at in sorted(counted)]


def timeline(moments: Iterable[float]) -> list[int]:
    """Return how many moments (seconds from the beginning) fall into each slice of `SLICE_SECONDS`, up to the last one."""
    counted = Counter(int(moment / SLICE_SECONDS) for moment in moments)
    return [counted[at] for at in range(max(counted, default=-1) + 1)]


def within(buckets: Sequence[tuple[float, int]], percent: float) -> float:
    """Return the upper end of the bucket in which a percentile lies."""
    wanted = sum(count for _, count in buckets) * percent / 100
    seen = 0
    for upper, count in buckets:
        seen += count
        if seen >= wanted:
            return upper
    raise ValueError("there is nothing in the buckets")
