"""`make bench` as a short smoke: exact scenarios on the real stack, one JSON object on standard output, the books checked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OWN_SERVERS = {
    name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL", "RPC_URL")
}


@pytest.mark.timeout(120)
def test_a_quick_run_is_exact_and_says_so_in_one_object() -> None:
    names = ["budget_100", "parallel_40", "three", "hot_pool"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--json", *(f"--only={name}" for name in names)],
        cwd=ROOT,
        env=OWN_SERVERS,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    assert done.stdout.count("\n") == 1
    found = json.loads(done.stdout)
    assert found["reconciled"] is True
    assert {"cores", "fsync_us", "foreign_cpu"} <= set(found["machine"])
    rows = {row["name"]: row for row in found["scenarios"]}
    assert set(rows) == set(names)
    shape = {"rate", "p50_ms", "p95_ms", "p99_ms", "refused", "errors", "ratio_floor", "ratio_naive", "ratio_x402"}
    for row in rows.values():
        assert shape <= set(row)
        assert (row["errors"], row["broken"]) == (0, [])
    assert (rows["budget_100"]["paid"], rows["budget_100"]["refused"]) == (100, 100)
    assert (rows["parallel_40"]["paid"], rows["parallel_40"]["refused"]) == (40, 0)
    assert rows["hot_pool"]["ratio_floor"] > 0
    assert rows["hot_pool"]["fixed_p99_ms"] > 0


def test_an_unknown_scenario_is_refused_before_anything_starts() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only", "faster"],
        cwd=ROOT,
        env=OWN_SERVERS,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "many_pools" in done.stderr
