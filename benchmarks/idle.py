"""The stack when nobody pays: what it takes in memory, how soon the web answers, and the least that a durable row costs."""

import os
import time
from typing import Final

import psutil

from benchmarks import floor
from benchmarks.bench import Bench, Row
from marketplace.management.stack.stack import Stack

RSS_BAR_MB: Final = 900.0
START_BAR_S: Final = 4.0
SECONDS: Final = 2.0


def idle(bench: Bench) -> Row:
    """Measure all three; a value over its bar is told, and breaks nothing."""
    rss, pss = memory(bench.stack)
    started = web_start(bench.stack)
    inserts = floor.durable_insert(bench.stack, 1, SECONDS)
    figures = {"rss_mb": round(rss, 1), "rss_bar_mb": RSS_BAR_MB, "pss_mb": round(pss, 1)}
    times = {"web_start_s": round(started, 2), "web_start_bar_s": START_BAR_S, "durable_inserts": inserts}
    return Row("idle", extras={**figures, **times})


def memory(stack: Stack) -> tuple[float, float]:
    """Return the resident memory of every process of the stack, in MB: the sum of RSS, and of PSS (shared pages once)."""
    own = {child.process.pid for child in stack.supervisor.children.values()}
    rss = pss = 0
    for process in psutil.Process().children(recursive=True):
        if process.pid in own or os.getsid(process.pid) in own:
            found = process.memory_full_info()
            rss += found.rss
            pss += getattr(found, "pss", found.rss)
    return rss / 2**20, pss / 2**20


def resident(stack: Stack, name: str) -> float:
    """Return the resident memory of one child and all that it started, in MB."""
    child = psutil.Process(stack.supervisor.children[name].process.pid)
    return round(sum(process.memory_info().rss for process in (child, *child.children(recursive=True))) / 2**20, 1)


def web_start(stack: Stack) -> float:
    """Return how long the web takes from its start to its first answer, in seconds."""
    stack.stop("web")
    begun = time.perf_counter()
    stack.restart("web")
    return time.perf_counter() - begun
