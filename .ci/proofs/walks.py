"""forge's fuzzing and walks, and what its JSON says of them."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from root import environment, forge

SELDOM = 0.3  # an action that passes more rarely than this does not count as walked


def test(root: Path, *args: str, **settings: str) -> dict[str, dict[str, Any]]:
    """Every test's result, by `file:name`."""
    ran = subprocess.run(
        [forge(), "test", "--json", *args],
        cwd=root,
        env=environment(FOUNDRY_PROFILE="quick", **settings),
        capture_output=True,
        text=True,
        check=False,
    )
    if not ran.stdout.startswith("{"):
        raise SystemExit(f"forge did not run:\n{(ran.stdout + ran.stderr)[-3000:]}")
    return {
        f"{suite.split('/')[-1].split('.')[0]}:{name.split('(')[0]}": result
        for suite, outcome in json.loads(ran.stdout).items()
        for name, result in outcome["test_results"].items()
    }


def failed(results: dict[str, dict[str, Any]]) -> list[str]:
    return sorted(name for name, result in results.items() if result["status"] != "Success")


def invariants(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: one["kind"]["Invariant"] for name, one in results.items() if "Invariant" in one["kind"]}


def rates(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    """The share of each action's calls that the contract accepted."""
    calls: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for kind in invariants(results).values():
        for action, count in kind["metrics"].items():
            calls[action.split(".")[-1]] += count["calls"]
            refused[action.split(".")[-1]] += count["reverts"]
    return {action: 1 - refused[action] / calls[action] for action in calls}
