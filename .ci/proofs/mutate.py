"""`make mutate-contract`: plants each bug of contracts/proofs/mutants.toml and demands that the proofs find it.

A proof that nothing can fail proves nothing. So every check of halmos must be named by a bug, and find it.
"""

from __future__ import annotations

import sys
import tempfile
import time
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import symbolic
import walks
from root import CONTRACTS, copy_to, say

AT_ONCE = 2
WALKED = {"invariants", "longWalk"}
FUZZED = {"scan", "twins"}


@dataclass(frozen=True)
class Mutant:
    name: str
    breaks: str
    file: str
    find: str
    put: str
    halmos: str = ""

    def plant(self, root: Path) -> None:
        file = root / "src" / self.file
        source = file.read_text(encoding="utf-8")
        if source.count(self.find) != 1:
            raise SystemExit(
                f"{self.name}: what it replaces is {source.count(self.find)} times in {self.file}, not once"
            )
        file.write_text(source.replace(self.find, self.put), encoding="utf-8")


@dataclass(frozen=True)
class Found:
    mutant: Mutant
    tests: list[str]
    checks: dict[str, str]

    @property
    def kinds(self) -> list[str]:
        files = {name.split(":")[0] for name in self.tests}
        refuted = "refuted" in self.checks.values()
        return [
            kind
            for kind, found in (
                ("unit", files - WALKED - FUZZED),
                ("fuzz", files & FUZZED),
                ("walk", files & WALKED),
                ("halmos", refuted),
            )
            if found
        ]

    @property
    def survived(self) -> bool:
        return not self.tests or (bool(self.mutant.halmos) and "halmos" not in self.kinds)

    def line(self) -> str:
        walked = [name.split(":")[1] for name in self.tests if name.split(":")[0] in WALKED]
        names = [*walked, *(f"{name}: {verdict}" for name, verdict in self.checks.items())]
        told = f"{'SURVIVED' if self.survived else 'killed'} {self.mutant.name} by {', '.join(self.kinds) or 'nothing'}"
        return f"{told} ({len(self.tests)} tests; {'; '.join(names) or 'no walk'})"


def try_out(mutant: Mutant) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        root = copy_to(Path(folder).resolve(), tests=True)
        mutant.plant(root)
        # A sequence that fails need not be made short: only that it fails is asked.
        results = walks.test(root, FROM_SOURCE="true", FOUNDRY_INVARIANT_SHRINK_RUN_LIMIT="0")
        checks = symbolic.run(root, mutant.halmos) if mutant.halmos else {}
    found = Found(mutant, walks.failed(results), checks)
    say(found.line())
    return found


def read() -> list[Mutant]:
    table = tomllib.loads((CONTRACTS / "proofs/mutants.toml").read_text(encoding="utf-8"))
    mutants = [Mutant(**entry) for entry in table["mutant"]]
    with tempfile.TemporaryDirectory() as folder:
        for mutant in mutants:
            root = Path(folder, mutant.name) / "src"
            root.mkdir(parents=True)
            (root / mutant.file).write_bytes((CONTRACTS / "src" / mutant.file).read_bytes())
            mutant.plant(root.parent)
    say(f"{len(mutants)} bugs, and {len(table['equivalent'])} changes that are none")
    return mutants


def main(names: list[str]) -> int:
    started = time.monotonic()
    mutants = [mutant for mutant in read() if not names or mutant.name in names]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(try_out, mutants))
    survived = [found.mutant.name for found in outcomes if found.survived]
    kinds = Counter(kind for found in outcomes for kind in found.kinds)
    refuted = {name for found in outcomes for name, verdict in found.checks.items() if verdict == "refuted"}
    blind = sorted(symbolic.checks() - refuted) if not names else []
    say(f"{len(outcomes) - len(survived)} of {len(outcomes)} killed in {time.monotonic() - started:.0f} s")
    say(", ".join(f"{kind}: {count}" for kind, count in kinds.most_common()))
    for name in survived:
        say(f"survived: {name}")
    for name in blind:
        say(f"found no bug: {name}")
    return 1 if survived or blind or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
