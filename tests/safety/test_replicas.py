"""Ten replicas with one budget, and a bad day: what is killed costs answers, and never money.

Web, worker, Valkey and PostgreSQL (with all its safety on) are killed in turn while they pay. FULL=1: ten replicas, $150,
each victim several times.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from tests.lane.servers import ROOT

FULL = bool(os.environ.get("FULL"))
MINUTE, HOUR = 60.0, 3_600.0

pytestmark = pytest.mark.timeout(1_200)


def run(**plan: Any) -> dict[str, Any]:
    """Run a plan, and return what was said of it."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL", "RPC_URL")
    }
    environment |= {"PYTHONPATH": f"{ROOT}:{ROOT / 'sdk' / 'src'}", "DJANGO_SETTINGS_MODULE": "marketplace.settings"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.safety.outage", json.dumps(plan)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1_000, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3_000:]
    said: dict[str, Any] = json.loads(done.stdout.rpartition("SAID ")[2])
    if os.environ.get("SHOW"):
        kinds = [{kind: len(keys) for kind, keys in (told or {}).items()} for told in said["told"]]
        print("\n", said["killed"], said["seconds"], "s;", len(said["paid"]), "payments;", kinds)
    return said


def check(said: dict[str, Any], budget_micros: int) -> list[tuple[float, int]]:
    """Check that the books are what the replicas believe; return when how much was paid."""
    assert all(said["alive"].values()), said["alive"]
    assert all(said["killed"].values()), said["killed"]
    given = spent = 0
    paid: list[tuple[float, int]] = []
    for micros, reason, is_out, at, _, is_in in said["moved"]:
        given += micros if is_in else 0
        if is_out:
            assert reason == "payment"
            spent += micros
            paid.append((float(at), micros))
        assert spent <= given <= budget_micros, "at no moment is more spent than was given"
    assert given == budget_micros
    assert sum(micros for _, micros in paid) == sum(micros for _, micros, _ in said["paid"])
    in_books = {key: micros for key, micros, _ in said["paid"]}
    assert len(in_books) == len(said["paid"]) == len({ref for _, _, is_out, _, ref, _ in said["moved"] if is_out})
    believed: dict[str, Counter[str]] = {kind: Counter() for kind in ("charged", "not_charged", "unknown", "resumed")}
    for told in said["told"]:
        assert told is not None, "a replica died"
        for kind, keys in told.items():
            believed[kind].update(keys)
    sure = believed["charged"] + believed["resumed"]
    assert {key: in_books.get(key) for key in sure} == dict(sure)
    assert not in_books.keys() & believed["not_charged"].keys()
    assert in_books.keys() <= sure.keys() | believed["unknown"].keys()
    return sorted(paid)


def most_within(paid: list[tuple[float, int]], seconds: float) -> tuple[int, int]:
    """Return the greatest number of payments, and the greatest sum, that any such span ends with. A span has no begin."""
    spans = [[micros for then, micros in paid if at - seconds < then <= at] for at, _ in paid]
    return max(map(len, spans)), max(map(sum, spans))


def test_replicas_spend_a_budget_to_the_last_cent_and_no_further_whatever_is_killed() -> None:
    plan = (
        {"replicas": 10, "budget": "150.00", "steps": 2, "rounds": 4, "between": 1.0, "seconds": 600.0}
        if FULL
        else {"replicas": 4, "budget": "1.50", "steps": 1, "rounds": 1, "between": 0.0, "seconds": 60.0}
    )
    budget = 150_000_000 if FULL else 1_500_000
    paid = check(run(policy={}, **plan), budget)
    assert sum(micros for _, micros in paid) == budget


def test_replicas_stay_within_the_minute_and_the_hour_whatever_is_killed() -> None:
    limits = {"max_per_hour": "2.00" if FULL else "0.75", "max_tx_per_minute": 90 if FULL else 50}
    plan = {"replicas": 10 if FULL else 4, "steps": 1, "rounds": 1, "between": 0.0, "seconds": 180.0 if FULL else 20.0}
    paid = check(run(policy=limits, budget="150.00" if FULL else "1.50", **plan), 150_000_000 if FULL else 1_500_000)
    number, _ = most_within(paid, MINUTE)
    _, most = most_within(paid, HOUR)
    assert number == limits["max_tx_per_minute"]
    assert most <= int(float(str(limits["max_per_hour"])) * 1_000_000)
    if FULL:
        assert most == 2_000_000
