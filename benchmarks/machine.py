"""What the machine was like: cores, how long a durable write takes, and how much of the processor others used meanwhile."""

import contextlib
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

import psutil

WRITES: Final = 200
PAGE: Final = b"\0" * 8192


def fsync_us(folder: Path | None = None) -> float:
    """Return the median time of writing a page and making it durable, in microseconds."""
    taken = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(WRITES):
            begun = time.perf_counter()
            os.pwrite(file.fileno(), PAGE, 0)
            os.fdatasync(file.fileno()) if hasattr(os, "fdatasync") else os.fsync(file.fileno())
            taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1e6


class Watch:
    """Measures, from its making on, how much of all cores processes that are none of ours have used."""

    def __init__(self) -> None:
        """Start."""
        self._busy, self._first = _busy(), _own()
        self._begun = time.monotonic()

    def foreign(self) -> float:
        """Return the part of all cores that others used, from 0 to 1."""
        elapsed = (time.monotonic() - self._begun) * (os.cpu_count() or 1)
        others = (_busy() - self._busy) - (_own() - self._first)
        return round(min(1.0, max(0.0, others / elapsed)), 3)


def description() -> dict[str, object]:
    """Return what the figures were measured on."""
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "fsync_us_at_start": round(fsync_us(), 1),  # beside what starting the stack still writes
    }


def _busy() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def _own() -> float:
    """Return the processor seconds of this process and all it has started; of those that ended, their parents tell."""
    me, spent = psutil.Process(), 0.0
    for process in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            spent += sum(process.cpu_times()[:4])
    return spent
