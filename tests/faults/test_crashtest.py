"""`manage.py crashtest`: what it finds in the market, and that it finds a bug where one was sown."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from escrow.crashpoints import POINTS
from marketplace.management.commands import crashtest
from marketplace.management.crashtest.steps import WEIGHTS, draw
from marketplace.management.crashtest.table import Result, Table

ROOT = Path(__file__).resolve().parents[2]


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the project without the servers of this test run: it has its own."""
    hidden = {"DATABASE_URL", "REDIS_URL", "RPC_URL"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"DJANGO_SETTINGS_MODULE": "marketplace.settings"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "sdk" / "src")])
    return subprocess.run(
        [sys.executable, *argv], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.timeout(900)  # tens of servers and a hundred workers, also where a machine has other work
def test_workers_and_web_servers_die_at_eight_points_and_nothing_is_lost_doubled_or_unexplained() -> None:
    told = run("manage.py", "crashtest", "--quick", "--json")
    said = json.loads(told.stdout or "{}")
    assert (told.returncode, said.get("failed")) == (0, []), told.stderr
    kills = {fault: row["runs"] for fault, row in said["by_fault"].items() if fault.startswith("kill ")}
    assert kills == {f"kill {point}": 5 for point in crashtest.QUICK_POINTS}
    assert said["by_fault"]["history"]["runs"] == crashtest.QUICK["histories"]
    assert said["runs"] == 8 * 5 + crashtest.QUICK["histories"]
    assert (said["lost"], said["doubled"], said["unexplained"]) == (0, 0, 0)
    assert all(row["landed_micros"] > 0 for row in said["by_fault"].values()), "a judgement over nothing"
    assert said["orders"] >= 8 * 5  # each of these runs asked for one at least


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("bug", "point", "kind"),
    [
        ("void too soon", "relay.sent", "doubled"),
        ("settle by our word", "settle.committed", "lost"),
        ("sign anew", "relay.sent", "unexplained"),
    ],
)
def test_a_bug_that_was_sown_is_found(bug: str, point: str, kind: str) -> None:
    told = run("-m", "tests.faults.seeded", bug, point)
    found: dict[str, list[str]] = json.loads(told.stdout.rpartition("FOUND ")[2] or "{}")
    assert found.get(kind), (found, told.stderr[-2000:])


def test_every_crash_point_has_a_play_or_is_the_web_s() -> None:
    assert set(crashtest.POINTS) == set(POINTS)
    assert len(set(crashtest.POINTS)) >= 12


def test_a_seed_is_always_the_same_history() -> None:
    first, again, other = draw(7, 50), draw(7, 50), draw(8, 50)
    assert first == again
    assert first != other
    names = {name for seed in range(40) for name, _ in draw(seed, 50)}
    assert names == set(WEIGHTS)


def test_a_history_counts_once_and_each_fault_in_it_as_often_as_it_happened() -> None:
    table = Table()
    table.add(Result("kill relay.sent", 1, 0, 0, 0, 0.5))
    table.add(Result("history", 7, 1, 0, 2, 4.0, ("LOST  one",), (("reorg", 3), ("rpc lies", 1))))
    said: dict[str, Any] = table.document(10.0)
    assert {name: said[name] for name in ("runs", "lost", "doubled", "unexplained", "recovery_s")} == {
        "runs": 2, "lost": 1, "doubled": 0, "unexplained": 2, "recovery_s": 4.0,
    }  # fmt: skip
    assert said["by_fault"]["reorg"]["runs"] == 3
    assert said["by_fault"]["reorg"]["lost"] == 1
    assert said["failed"] == [{"fault": "history", "seed": 7, "lines": ["LOST  one"]}]


def test_a_point_that_there_is_not_is_refused() -> None:
    told = run("manage.py", "crashtest", "--points", "relay.nowhere")
    assert told.returncode == 1
    assert "relay.nowhere: no crash point; there are settle.signed" in told.stderr
