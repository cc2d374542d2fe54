"""Chains of one's own, for tests that need another chain id or that spoil what others share."""

from __future__ import annotations

import ctypes
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .world import foundry_binary


def _die_with_parent() -> None:
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


@contextmanager
def anvil(folder: Path, chain_id: int = 31337) -> Iterator[str]:
    """A running anvil's URL; its log is in `folder`."""
    binary = foundry_binary("anvil")
    if not binary.exists():
        pytest.fail(f"{binary} is missing: run `npm ci --ignore-scripts`")
    # To a file, not a pipe: anvil logs every request, and stands still when a pipe nobody reads is full.
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [binary, "--port", "0", "--hardfork", "prague", "--chain-id", str(chain_id), "--code-size-limit", "24576"],
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent,  # noqa: PLW1509  (no threads yet; one prctl call)
        )
    try:
        yield f"http://127.0.0.1:{port_of(process, log)}"
    finally:
        process.kill()
        process.wait()


def port_of(process: subprocess.Popen[bytes], log: Path) -> int:
    """The port anvil says it listens on, within 20 seconds."""
    give_up_at = time.monotonic() + 20
    while time.monotonic() < give_up_at and process.poll() is None:
        found = re.search(r"Listening on [\d.]+:(\d+)", log.read_text())
        if found:
            return int(found.group(1))
        time.sleep(0.02)
    raise RuntimeError("anvil did not say on which port it listens")
