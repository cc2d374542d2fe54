"""Starting the load generator beside us, and reading what it saw."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.load.driver import GRACE_SECONDS
from benchmarks.load.plan import MAX_SECONDS, Caller

ROOT: Final = Path(__file__).resolve().parents[2]
START_SECONDS: Final = 30.0
Result = dict[str, Any]


class Running:
    """A run that is under way."""

    def __init__(self, plan: dict[str, Any]) -> None:
        """Start it; the plan's members are those of `plan.Plan`."""
        callers = [asdict(caller) if is_dataclass(caller) else caller for caller in plan["callers"]]  # type: ignore[arg-type]
        self._longest = float(plan.get("seconds") or MAX_SECONDS) + GRACE_SECONDS + START_SECONDS
        argv = [sys.executable, "-m", "benchmarks.load"]
        self._process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({**plan, "callers": callers}))
        self._process.stdin.close()
        self._process.stdin = None

    def result(self) -> Result:
        """Wait for the end and return what was seen. Raises RuntimeError when the run could not be made."""
        try:
            out, _ = self._process.communicate(timeout=self._longest)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        if self._process.returncode:
            raise RuntimeError(f"the load generator ended with code {self._process.returncode}")
        return dict(json.loads(out))


def drive(*, url: str, callers: Sequence[Caller | dict[str, Any]], key: str, **plan: Any) -> Result:
    """Run a plan to its end and return what was seen."""
    return Running({"url": url, "callers": callers, "key": key, **plan}).result()
