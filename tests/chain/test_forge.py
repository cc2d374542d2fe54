"""The contract's own tests. `forge test` exits 0 when it finds none, so what ran is counted."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from typing import Any

import pytest

from .world import ROOT, foundry_binary

INVARIANTS = (
    "invariant_every_unit_is_accounted_for",
    "invariant_money_goes_only_where_it_may",
    "invariant_no_call_does_what_the_books_forbid",
    "invariant_pools_and_lines_are_as_the_books_say",
)
ACTIONS = 23  # the external functions of contracts/test/walk/Handler.sol


@pytest.mark.timeout(300)
def test_every_forge_test_passes_and_there_are_some() -> None:
    """On the committed bytecode, which test_artifacts.py holds to the sources."""
    forge = foundry_binary("forge")
    if not forge.exists():
        pytest.fail(f"{forge} is missing: run `npm ci --ignore-scripts`")
    ran = subprocess.run(
        [forge, "test", "--json"],
        cwd=ROOT / "contracts",
        env=os.environ | {"FOUNDRY_PROFILE": "quick"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ran.stdout.startswith("{"), ran.stdout + ran.stderr
    suites = json.loads(ran.stdout)
    results = {
        f"{suite}:{name}": result
        for suite, outcome in suites.items()
        for name, result in outcome["test_results"].items()
    }
    failed = {name: result["reason"] for name, result in results.items() if result["status"] != "Success"}
    assert failed == {}
    assert ran.returncode == 0, ran.stderr
    assert len(results) >= 175
    assert {suite.split("/")[-1].split(".")[0] for suite in suites} == {
        file.name.split(".")[0] for file in (ROOT / "contracts/test").glob("*.t.sol")
    }
    check_invariants(results)


def check_invariants(results: dict[str, Any]) -> None:
    """Each walked far enough, and every action of the walk was accepted by the contract at least three times in ten."""
    kinds = {key.split(":")[-1].split("(")[0]: one["kind"]["Invariant"] for key, one in results.items() if is_walk(one)}
    assert set(kinds) == set(INVARIANTS)
    calls: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for kind in kinds.values():
        assert kind["calls"] >= 1_000
        for action, count in kind["metrics"].items():
            calls[action.split(".")[-1]] += count["calls"]
            refused[action.split(".")[-1]] += count["reverts"]
    assert len(calls) == ACTIONS
    assert {action: refused[action] for action in calls if refused[action] > 0.7 * calls[action]} == {}


def is_walk(result: dict[str, Any]) -> bool:
    return "Invariant" in result["kind"]


def test_every_test_that_the_page_of_invariants_names_is_there() -> None:
    page = (ROOT / "docs/INVARIANTS.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b((?:test|check|invariant)_\w+)\b(?!\.py)", page)) - {"check_", "invariant_"}
    sources = [*(ROOT / "contracts/test").rglob("*.sol"), *(ROOT / "tests").rglob("*.py")]
    written = "\n".join(file.read_text(encoding="utf-8") for file in sources)
    assert named - set(re.findall(r"(?:function|def) (\w+)\(", written)) == set()
    assert len(named) >= 60
