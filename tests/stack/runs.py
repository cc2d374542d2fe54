"""Runs `servers.py` and knows when it, its children and its directory are gone. Waits on events only."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("servers.py")
PATIENCE = 30.0


@dataclass
class Run:
    process: subprocess.Popen[str]
    home: Path
    guardian: int
    children: dict[str, int]
    urls: list[str]

    def signal(self, number: int) -> int:
        """Signal the program and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def leftovers(self) -> list[str]:
        """Wait for the end of all it started; return what is left then."""
        return leftovers([*self.children.values(), self.guardian], self.home)


@contextmanager
def servers(cwd: Path = ROOT, env: Mapping[str, str] | None = None, **options: Any) -> Iterator[Run]:
    """Start the program and wait for its line."""
    process = subprocess.Popen(
        [sys.executable, "-B", str(PROGRAM)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(cwd), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    try:
        assert process.stdout
        assert process.stderr
        line = process.stdout.readline()
        assert line, process.stderr.read()
        said = json.loads(line)
        yield Run(process, Path(said["home"]), said["guardian"], said["children"], said["urls"])
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


def leftovers(pids: Iterable[int], home: Path) -> list[str]:
    """Wait for the end of processes; return what is left of them, what else knows the home, and the home itself."""
    deadline = time.monotonic() + PATIENCE
    left = [f"process {pid}" for pid in pids if not _gone(pid, deadline)]
    left += [f"process {pid}: {words}" for pid, words in _processes() if str(home) in words]
    return left + [str(home)] * home.exists()


def _gone(pid: int, deadline: float) -> bool:
    """Wait for the end of a process that is not our child."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with os.fdopen(handle):
        return bool(select.select([handle], [], [], max(0.0, deadline - time.monotonic()))[0])


def _processes() -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ") + (folder / "environ").read_bytes()
            yield int(folder.name), words.decode(errors="replace")
        except OSError:
            continue
