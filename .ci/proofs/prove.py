"""`make prove`: the contract's proofs at full depth. Without arguments all three: walks, halmos, slither.

RUNS=n in the environment walks n times 100 calls for each invariant, in place of 10,000 times.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import static
import symbolic
import walks
from root import copy_to, say

RUNS = int(os.environ.get("RUNS", "10000"))
DEPTH = 100
TESTS = 175  # there are at least this many


def prove_walks(root: Path) -> list[str]:
    results = walks.test(
        root,
        FOUNDRY_OPTIMIZER="true",
        FOUNDRY_FUZZ_RUNS="10000",
        FOUNDRY_INVARIANT_RUNS=str(RUNS),
        FOUNDRY_INVARIANT_DEPTH=str(DEPTH),
    )
    wrong = [f"failed: {name}: {results[name]['reason']}" for name in walks.failed(results)]
    if len(results) < TESTS:
        wrong.append(f"{len(results)} tests ran, {TESTS} or more should")
    for name, kind in sorted(walks.invariants(results).items()):
        say(f"  {name.split(':')[1]}: {kind['calls']:,} calls, {kind['reverts']:,} of them refused")
        if kind["calls"] < RUNS * DEPTH:
            wrong.append(f"{name}: {kind['calls']} calls, {RUNS * DEPTH} should be")
    rates = walks.rates(results)
    say(f"  {len(results)} tests; each of {len(rates)} actions passes in {min(rates.values(), default=0):.0%} or more")
    wrong += [f"{action} passes in {rate:.0%}" for action, rate in rates.items() if rate < walks.SELDOM]
    return wrong if rates else [*wrong, "no walk was walked"]


def prove_halmos(root: Path) -> list[str]:
    wanted = symbolic.checks()
    verdicts = symbolic.run(root)
    say(f"  {sum(verdict == 'proven' for verdict in verdicts.values())} of {len(wanted)} checks proven")
    wrong = [f"{name}: {verdict}" for name, verdict in sorted(verdicts.items()) if verdict != "proven"]
    wrong += [f"{name}: did not run" for name in sorted(wanted - set(verdicts))]
    return wrong if wanted else ["there are no checks"]


def prove_slither(_root: Path) -> list[str]:
    count, wrong = static.unexplained()
    say(f"  {count} findings, {len(wrong)} of them not as explained")
    return wrong


PROOFS: dict[str, Callable[[Path], list[str]]] = {
    "slither": prove_slither,
    "halmos": prove_halmos,
    "walks": prove_walks,
}


def main(names: list[str]) -> int:
    wrong: list[str] = []
    for name in names or list(PROOFS):
        say(f"{name} ...")
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            wrong += PROOFS[name](copy_to(Path(folder).resolve(), tests=True))
        say(f"  {time.monotonic() - started:.0f} s")
    for line in wrong:
        say(line)
    say("Not proven." if wrong else "Proven.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
