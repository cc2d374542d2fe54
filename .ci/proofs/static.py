"""Slither over the sources: a finding is fixed or explained in contracts/proofs/slither.toml."""

from __future__ import annotations

import json
import subprocess
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from root import CONTRACTS, PROOFS, copy_to, environment

# Of the libraries and of the compiler's version, which are pinned: not ours to change.
LIBRARY = "lib/"
WHOLE_PROJECT = {"pragma", "solc-version"}


def findings() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        root = copy_to(Path(folder).resolve(), tests=False)
        ran = subprocess.run(
            [PROOFS / "slither/bin/slither", ".", "--json", "-"],
            cwd=root,
            env=environment(FOUNDRY_PROFILE="quick"),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    # A source that it cannot resolve is skipped with an error line and no finding: that is no pass.
    if "ERROR" in ran.stderr or not ran.stdout.startswith("{"):
        raise SystemExit(f"slither did not read all of the contract:\n{ran.stderr[-3000:]}")
    answer = json.loads(ran.stdout)
    if not answer["success"]:
        raise SystemExit(f"slither failed: {answer['error']}")
    found: list[dict[str, Any]] = answer["results"].get("detectors", [])
    return [one for one in found if one["check"] not in WHOLE_PROJECT and not place(one).startswith(LIBRARY)]


def place(finding: dict[str, Any]) -> str:
    return str(finding["elements"][0]["source_mapping"]["filename_relative"])


def unexplained() -> tuple[int, list[str]]:
    """How many findings there are, and what is wrong with their explanations."""
    table = tomllib.loads((CONTRACTS / "proofs/slither.toml").read_text(encoding="utf-8"))["explained"]
    explained = {(entry["check"], name) for entry in table if entry["reason"] for name in entry["in"]}
    found = findings()
    seen = {(one["check"], one["elements"][0]["name"]) for one in found}
    wrong = [
        f"unexplained: {one['impact']} {one['check']}: {one['description'].strip()}"
        for one in found
        if (one["check"], one["elements"][0]["name"]) not in explained
    ]
    wrong += [f"explains nothing any more: {check} in {name}" for check, name in sorted(explained - seen)]
    return len(found), wrong
