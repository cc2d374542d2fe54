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
from typing import Any, Final

from marketplace.management.stack.home import Home

PR_SET_PDEATHSIG: Final = 1
POLL_SECONDS: Final = 0.01
STOP_SECONDS: Final = 8.0
"""How long a child may take to stop before it is killed: a worker finishes its task, PostgreSQL its checkpoint."""

_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


class StackError(Exception):
    """A service cannot be started or did not stay up; the text says what to do next."""


@dataclass(frozen=True)
class Service:
    """How to start a child. `user` is the user to become, for root only."""

    name: str
    argv: Sequence[str | Path]
    env: Mapping[str, str]
    cwd: Path
    stop_signal: signal.Signals = signal.SIGTERM
    user: str | None = None
    niceness: int = 0
    """Above 0 for work that must not slow a payment down while cores are scarce."""


@dataclass(frozen=True)
class Child:
    """A running service, the leader of its own session and process group."""

    service: Service
    process: subprocess.Popen[bytes]
    log: Path
    log_start: int

    def output(self) -> str:
        """Return everything this child has written so far."""
        return self.log.read_bytes()[self.log_start :].decode("utf-8", errors="replace")


Ready = Callable[[Child], bool]


class Supervisor:
    """Owns the children of one stack. Not safe for threads: PDEATHSIG follows the thread that starts a child."""

    def __init__(self, home: Home) -> None:
        """Keep the children's logs in the home, and tell its guardian about each."""
        self.home = home
        self.children: dict[str, Child] = {}

    def start(self, service: Service) -> Child:
        """Start a child, in a session of its own so that Ctrl-C reaches only us; it need not be ready yet."""
        log = self.home.logs / f"{service.name}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [os.fspath(part) for part in service.argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(service.env),
                cwd=service.cwd,
                start_new_session=True,
                preexec_fn=partial(_prepare, service),  # noqa: PLW1509 - two C calls, no locks
                **become(service.user),
            )
            child = self.children[service.name] = Child(service, process, log, out.tell())
        self.home.guard(process.pid, service.stop_signal)
        return child

    @staticmethod
    def wait(child: Child, ready: Ready, timeout: float = 30.0) -> Child:
        """Return the child when `ready` says so; raise StackError when it ends before, or after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not ready(child):
            if child.process.poll() is not None:
                raise StackError(_obituary(child, f"ended with code {child.process.returncode} before it was ready"))
            if time.monotonic() > deadline:
                raise StackError(_obituary(child, f"was not ready after {timeout:.0f} s"))
            time.sleep(POLL_SECONDS)
        return child

    def stop(self, name: str) -> Service:
        """Ask a child to stop, wait for it, and kill what is left of its group."""
        child = self.children[name]
        child.process.send_signal(child.service.stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(STOP_SECONDS)
        return self.kill(name)

    def kill(self, name: str) -> Service:
        """Kill a child and its group at once, as a crash would. Return how to start it again."""
        child = self.children.pop(name)
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
            os.killpg(child.process.pid, signal.SIGKILL)
        child.process.wait()
        self.home.unguard(child.process.pid)
        return child.service

    def check(self) -> None:
        """Raise StackError when a child has ended although nobody stopped it."""
        for child in self.children.values():
            if child.process.poll() is not None:
                raise StackError(_obituary(child, f"ended by itself with code {child.process.returncode}"))

    def close(self) -> None:
        """Stop every child, the last one first."""
        for name in reversed(list(self.children)):
            self.stop(name)


def become(user: str | None) -> dict[str, Any]:
    """Return the arguments with which `subprocess` starts a process as that user and with none of our groups."""
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}


def _prepare(service: Service) -> None:
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, service.stop_signal)
    if service.niceness:
        os.nice(service.niceness)


def _obituary(child: Child, what: str) -> str:
    last = "\n".join("  " + line for line in child.output().splitlines()[-15:])
    return f"{child.service.name} {what}. It said last:\n{last or '  (nothing)'}"
