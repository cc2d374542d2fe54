"""The `check_` functions of contracts/test/halmos, for every value of their arguments at once."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from root import CONTRACTS, PROOFS, environment

LONGEST_LOOP = "256"  # more than any loop in the checks takes


def checks() -> set[str]:
    found: set[str] = set()
    for file in (CONTRACTS / "test/halmos").glob("*.t.sol"):
        found |= set(re.findall(r"function (check_\w+)\(", file.read_text(encoding="utf-8")))
    return found


def run(root: Path, only: str = "check_") -> dict[str, str]:
    """What became of each check: `proven`, `refuted`, or why it is neither."""
    answer = root / "halmos.json"
    answer.unlink(missing_ok=True)
    ran = subprocess.run(
        [
            PROOFS / "halmos/bin/halmos",
            *("--function", only, "--loop", LONGEST_LOOP, "--json-output", answer, "--no-status"),
        ],
        cwd=root,
        env=environment(FOUNDRY_PROFILE="quick"),
        capture_output=True,
        text=True,
        timeout=1_800,
        check=False,
    )
    if not answer.exists():
        raise SystemExit(f"halmos ran no check:\n{(ran.stdout + ran.stderr)[-3000:]}")
    results = json.loads(answer.read_text(encoding="utf-8"))["test_results"]
    return {
        one["name"].split("(")[0]: verdict(one["exitcode"], one["num_models"], one["num_bounded_loops"])
        for suite in results.values()
        for one in suite
    }


def verdict(exitcode: int, counterexamples: int, cut_loops: int) -> str:
    if counterexamples:
        return "refuted"
    if exitcode:
        return f"undecided (exit {exitcode})"
    return f"not all of it seen ({cut_loops} loops cut)" if cut_loops else "proven"
