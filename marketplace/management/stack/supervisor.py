"""Child processes: started in order, known to be ready, stopped in reverse, gone when we are gone.

What each server needs to start lives in its own module; what the children are for lives in `stack`.
"""

import contextlib
import ctypes
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from marketplace.management.stack.home import Home

PR_SET_PDEATHSIG: Final = 1
POLL_SECONDS: Final = 0.01
STOP_SECONDS: Final = 8.0
"""How long a child may take to stop before it is killed: a worker finishes its task, PostgreSQL its checkpoint."""

_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


class StackError(Exception):
    """A service cannot be started or did not stay up; the text says what to do next."""


@dataclass(frozen=True)
class Child:
    """A running service, the leader of its own session and process group."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    stop_signal: signal.Signals

    def output(self) -> str:
        """Return everything the child has written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")



class Supervisor:
    """Owns the children of one stack. Not safe for threads: PDEATHSIG follows the thread that spawns."""

    def __init__(self, home: Home) -> None:
        """Keep the children's logs in the home, and tell its guardian about each."""
        self.home = home
        self.children: dict[str, Child] = {}

    def spawn(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        ready: Callable[[Child], bool] | None = None,
        timeout: float = 30.0,
        stop_signal: signal.Signals = signal.SIGTERM,
        user: str | None = None,
        cwd: Path | None = None,
    ) -> Child:
        """Start a child and return it once `ready` says so; a child that dies first raises StackError."""
        log = self.home.logs / f"{name}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(  # noqa: S603 - argv is ours
                [os.fspath(part) for part in argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd or self.home.path,
                start_new_session=True,
                preexec_fn=partial(_die_with_parent, stop_signal),  # noqa: PLW1509 - one C call, no locks
                user=user,
                group=pwd.getpwnam(user).pw_gid if user else None,
                extra_groups=[] if user else None,
            )
        child = self.children[name] = Child(name, process, log, stop_signal)
        self.home.guard(process.pid, stop_signal)
        self._wait_ready(child, ready, timeout)
        return child

    def stop(self, name: str) -> None:
        """Ask a child to stop, wait for it, and kill what is left of its group."""
        child = self.children.pop(name)
        child.process.send_signal(child.stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(STOP_SECONDS)
        self._reap(child)

    def kill(self, name: str) -> None:
        """Kill a child and its group at once, as a crash would."""
        self._reap(self.children.pop(name))

    def dead(self) -> Child | None:
        """Return a child that has ended although nobody stopped it."""
        return next((child for child in self.children.values() if child.process.poll() is not None), None)

    def close(self) -> None:
        """Stop every child, the last one first."""
        for name in reversed(list(self.children)):
            self.stop(name)

    def _reap(self, child: Child) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
            os.killpg(child.process.pid, signal.SIGKILL)
        child.process.wait()
        self.home.unguard(child.process.pid)

    @staticmethod
    def _wait_ready(child: Child, ready: Callable[[Child], bool] | None, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while ready and not ready(child):
            if child.process.poll() is not None:
                raise StackError(_obituary(child, f"ended with code {child.process.returncode} before it was ready"))
            if time.monotonic() > deadline:
                raise StackError(_obituary(child, f"was not ready after {timeout:.0f} s"))
            time.sleep(POLL_SECONDS)


def _die_with_parent(number: signal.Signals) -> None:
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, number)


def _obituary(child: Child, what: str) -> str:
    last = "\n".join("  " + line for line in child.output().splitlines()[-15:])
    return f"{child.name} {what}. It said last:\n{last or '  (nothing)'}"
