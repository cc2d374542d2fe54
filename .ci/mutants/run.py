"""`make mutate`: changes the money code in one place at a time, and demands that a test notices each change.

mutmut makes the changes, in a copy of the project below run/mutants/, where it also remembers what it has tried: a second
run tries again what changed and what was not noticed. It leaves decorated functions alone, so in the copy a decorator
`@transaction.atomic` becomes a block of the same meaning. What no test notices must be listed, with the reason, in
survivors.toml. `--write` writes docs/MUTANTS.md; `--fresh` forgets what was tried; `--children N` tries N at once.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import fnmatch
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

import own_database  # noqa: E402
import report  # noqa: E402

from marketplace.management.stack import anvil, postgres  # noqa: E402
from marketplace.management.stack.home import Home  # noqa: E402
from marketplace.management.stack.supervisor import Supervisor  # noqa: E402

WORK = ROOT / "run/mutants"
COPIED = ("escrow", "marketplace", "sdk", "tests", "benchmarks", "examples", "contracts", "docs", "manage.py")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", "out", "cache", "node_modules")
BIN = ROOT / ".venv/bin"
PLUGINS = ("pytest_django.plugin", "pytest_timeout", "own_database", "no:cacheprovider", "no:unraisableexception")
"""No others: each mutant is a run of pytest of its own, and what is not loaded need not be waited for."""
TIMEOUT_MULTIPLIER, TIMEOUT_SECONDS = 4, 45
"""A mutant that runs four times as long as the tests did, and three minutes more, hangs; it is tried again in the next run."""
FAILED, STOPPED = {1, 3}, {24, -24, 36, 152, 255}
"""Exit codes of a mutant whose tests failed, and of one whose tests were stopped for lasting too long. Both were noticed."""


@dataclass
class Piece:
    name: str
    files: list[str]
    tests: list[str]
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder = WORK / self.name

    @property
    def measured(self) -> Path:
        return self.folder / "measured.json"

    # --- the copy ----------------------------------------------------------------------------------------------------
    def lay_out(self) -> None:
        for name in COPIED:
            _copy(ROOT / name, self.folder / name)
        for file in self.files:
            _write(self.folder / file, spread(Path(ROOT, file).read_text(encoding="utf-8")))
        settings = {
            "source_paths": self.files,
            "also_copy": [name for name in COPIED if name != "tests"],
            "pytest_add_cli_args": [part for plugin in PLUGINS for part in ("-p", plugin)],
            "pytest_add_cli_args_test_selection": self.tests,
            "timeout_multiplier": float(TIMEOUT_MULTIPLIER),
            "timeout_constant": float(TIMEOUT_SECONDS),
            "use_git_change_detection": False,
        }
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        project = Path(ROOT, "pyproject.toml").read_text(encoding="utf-8")
        _write(self.folder / "pyproject.toml", "\n".join([project, "[tool.mutmut]", *lines, ""]))

    def forget(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- the run -----------------------------------------------------------------------------------------------------
    def run(self, server: str, children: int) -> None:
        self.lay_out()
        again = [name for name, code in self.codes().items() if code is not None and code not in FAILED]
        shutil.rmtree(self.folder / "mutants/tests", ignore_errors=True)  # a test that was removed must not linger
        Path(self.folder, "mutants/mutmut-stats.json").unlink(missing_ok=True)
        environment = os.environ | {
            "MUTANTS_SERVER": server,
            "DATABASE_URL": server,
            "PYTHONPATH": str(HERE),
            "ANVIL_BIN": str(anvil._binary()),  # noqa: SLF001 - the copy has no node_modules
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        command = [BIN / "mutmut", "run", "--max-children", str(children)]
        versions = {file: _version(ROOT / file) for file in self.files}
        for names in ([], again) if again else ([],):
            self._mutmut([*command, *names], environment)
        _write(self.measured, json.dumps({"on": f"{datetime.now(UTC):%Y-%m-%d}", "of": versions}))

    def _mutmut(self, command: list[Any], environment: Mapping[str, str]) -> None:
        with Path(self.folder, "mutmut.log").open("w", encoding="utf-8") as log:
            done = subprocess.run(
                command,
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            told = Path(log.name).read_text(encoding="utf-8").splitlines()
            raise SystemExit("\n".join([f"{self.name}: mutmut failed", *told[-30:]]))

    # --- the outcome -------------------------------------------------------------------------------------------------
    def codes(self) -> dict[str, int | None]:
        """Return with which code the tests of each mutant ended; None for those that were not tried."""
        found: dict[str, int | None] = {}
        for file in self.files:
            meta = self.folder / "mutants" / f"{file}.meta"
            if meta.exists():
                found |= json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"]
        return found

    def score(self) -> report.Score:
        codes = self.codes()
        unnoticed = [name for name, code in codes.items() if code not in FAILED | STOPPED and code is not None]
        return report.Score(
            piece=self.name,
            files=self.files,
            tests=self.tests,
            measured=json.loads(self.measured.read_text(encoding="utf-8")) if self.measured.exists() else {},
            mutants=len(codes),
            stopped=sum(code in STOPPED for code in codes.values()),
            untried=sum(code is None for code in codes.values()),
            survivors=[self._survivor(name) for name in unnoticed],
        )

    def _survivor(self, name: str) -> report.Survivor:
        module, _, mangled = name.rpartition(".")
        function = mangled.rpartition("__mutmut_")[0]
        file = self.folder / "mutants" / f"{module.replace('.', '/')}.py"
        lines = file.read_text(encoding="utf-8").splitlines()
        spans = json.loads(Path(f"{file}.spans").read_text(encoding="utf-8"))["spans"]
        before, after = (
            [line.strip().replace(one, function) for line in lines[spans[one][0] - 1 : spans[one][1]]]
            for one in (f"{function}__mutmut_orig", mangled)
        )
        changed = list(difflib.ndiff(before, after))
        return report.Survivor(
            function=f"{module.removeprefix('escrow.')}.{function.removeprefix('x_').removeprefix('xǁ').replace('ǁ', '.')}",
            before=" ".join(line[2:] for line in changed if line.startswith("- ")),
            after=" ".join(line[2:] for line in changed if line.startswith("+ ")),
        )


def spread(source: str) -> str:
    """Return the same code with each `@transaction.atomic` as a block inside its function: mutmut skips decorated ones."""
    lines = source.splitlines()
    for node in reversed([node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]):
        if [ast.unparse(decorator) for decorator in node.decorator_list] != ["transaction.atomic"]:
            continue
        body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
        first, last = body[0].lineno - 1, body[-1].end_lineno or 0
        indent = " " * body[0].col_offset
        inside = [f"    {line}" if line else "" for line in lines[first:last]]
        lines[first:last] = [f"{indent}with transaction.atomic():", *inside]
        del lines[node.decorator_list[0].lineno - 1]
    return "\n".join(lines) + "\n"


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        for child in source.iterdir():
            if child.name not in LEFT_OUT(str(source), [child.name]):
                _copy(child, target / child.name)
        for child in target.iterdir() if target.exists() else ():
            if not (source / child.name).exists() and child.name != "__pycache__":
                shutil.rmtree(child) if child.is_dir() else child.unlink()
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_bytes() != source.read_bytes():
            shutil.copy(source, target)


def _write(file: Path, text: str) -> None:
    """Write a file only when that changes it: mutmut goes by the time of the last change."""
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        file.write_text(text, encoding="utf-8")


def _version(file: Path) -> str:
    """Return git's name for the content of a file: `git rev-parse --short HEAD:<file>` says whether it is still that."""
    command = ["git", "hash-object", str(file)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout[:10]


def _migrate(server: str) -> str:
    """Make the database that every mutant gets a copy of."""
    own_database._statement("CREATE DATABASE {name}", name=own_database.MIGRATED)  # noqa: SLF001
    migrated = server.rpartition("/")[0] + f"/{own_database.MIGRATED}"
    subprocess.run(
        [sys.executable, ROOT / "manage.py", "migrate", "--verbosity", "0"],
        env=os.environ | {"DATABASE_URL": migrated},
        cwd=ROOT,
        check=True,
    )
    return server


def pieces(wanted: Iterable[str]) -> Iterator[Piece]:
    table = tomllib.loads(Path(HERE, "pieces.toml").read_text(encoding="utf-8"))
    names = list(wanted) or list(table)
    for pattern in names:
        matching = [name for name in table if fnmatch.fnmatch(name, pattern)]
        if not matching:
            raise SystemExit(f"No piece is called {pattern}; there are {', '.join(table)}.")
        yield from (Piece(name, **table[name]) for name in matching)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutate", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pieces", nargs="*", help="ledger, policy, ... (default: all)")
    parser.add_argument("--children", type=int, default=1, help="mutants tried at once (default: 1)")
    parser.add_argument("--fresh", action="store_true", help="forget what was tried before")
    parser.add_argument("--show", action="store_true", help="try nothing, tell what is known")
    parser.add_argument("--write", action="store_true", help="write docs/MUTANTS.md")
    options = parser.parse_args()
    chosen = list(pieces(options.pieces))
    if not options.show:
        with Home() as home:
            supervisor = Supervisor(home)
            try:
                os.environ["MUTANTS_SERVER"] = postgres.start(supervisor, durable=False)
                server = _migrate(os.environ["MUTANTS_SERVER"])
                for piece in chosen:
                    if options.fresh:
                        piece.forget()
                    started = time.monotonic()
                    piece.run(server, options.children)
                    report.say(f"{piece.score().line()} ({time.monotonic() - started:.0f} s)")
            finally:
                supervisor.close()
    return report.tell([piece.score() for piece in chosen], write=options.write)


if __name__ == "__main__":
    sys.exit(main())
