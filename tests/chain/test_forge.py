"""The contract's own tests. `forge test` exits 0 when it finds none, so what ran is counted."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from .world import ROOT, foundry_binary

FILES = (
    "allowProviders",
    "dispute",
    "invariants",
    "openPool",
    "reclaim",
    "requestClose",
    "resolve",
    "scan",
    "settle",
    "topUp",
    "withdraw",
)


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
    assert len(results) >= 80
    assert {suite.split("/")[-1].split(".")[0] for suite in suites} == set(FILES)
    invariant = results_of(results, "invariant_every_unit_is_accounted_for")
    assert invariant["kind"]["Invariant"]["calls"] >= 1_000


def results_of(
    results: dict[str, dict[str, dict[str, dict[str, int]]]], name: str
) -> dict[str, dict[str, dict[str, int]]]:
    (found,) = [result for key, result in results.items() if f":{name}(" in key]
    return found
