"""The crew: this side of the workers and web servers that the zygote forks. Lives here: deliveries, and who died of what."""

import contextlib
import json
import os
import select
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from marketplace.management.crashtest import zygote

PATIENCE_SECONDS: Final = 60.0
"""A delivery that takes longer hangs: it is killed, and the run fails."""

SAY_SECONDS: Final = 1.0


class Hung(Exception):
    """A worker neither answered nor died."""


@dataclass
class Worker:
    """A forked worker, idle or at work."""

    pid: int
    line: socket.socket
    born: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a delivery ended: with the worker's death, by a signal or by itself, with an error, or well."""

    signal: int = 0
    error: str = ""
    died: bool = False
    """Whether the worker is gone, whatever ended it."""

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended the worker."""
        return self.signal == signal.SIGKILL

    @property
    def told(self) -> str:
        """How it ended in words, nothing when it ended well."""
        return f"its worker ended with signal {self.signal}" if self.signal else self.error


@dataclass
class Crew:
    """The workers of one lane. Those that are told nothing special are kept and used again, as a pool's children are."""

    log: Path
    born: dict[str, Any] = field(default_factory=dict)
    """What every worker is born with: `settings`, `database`."""

    def __post_init__(self) -> None:
        """Start the zygote."""
        self._pid, self._control = zygote.start(self.log)
        self._idle: list[Worker] = []

    def deliver(self, task: str, **job: Any) -> Outcome:
        """Deliver a task to one worker, and wait for its end. `point` and `passes` arm a crash point for it."""
        worker = self._one()
        self._send(worker, task, job)
        return self._ends([worker], point=job.get("point"))[0]

    def deliver_at_once(self, tasks: Sequence[str], **job: Any) -> list[Outcome]:
        """Deliver tasks to as many workers at the same moment."""
        chosen = [self._one() for _ in tasks]
        for worker, task in zip(chosen, tasks, strict=True):
            self._send(worker, task, job)
        return self._ends(chosen, point=job.get("point"))

    def deliver_odd(self, task: str, born: Mapping[str, Any], **job: Any) -> Outcome:
        """Deliver a task to a worker of another birth, and dismiss it afterwards."""
        worker = self._fork("work", {**self.born, **born})
        self._send(worker, task, job)
        return self._ends([worker], point=job.get("point"), keep=False)[0]

    def serve(self, listening: socket.socket, point: str = "") -> int:
        """Fork a web server that accepts from a listening socket; return its process id."""
        return self._order({"do": "web", "point": point, **self.born}, listening)

    def reap(self, pid: int) -> int:
        """Wait for a child's end and return the signal that ended it, 0 for none."""
        status = int(self._ask({"do": "reap", "pid": pid}))
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0

    def kill(self, pid: int) -> int:
        """Kill a child that we forked, and reap it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return self.reap(pid)

    def close(self) -> None:
        """End the workers and the zygote."""
        for worker in self._idle:
            self._retire(worker)
        self._control.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    # ------------------------------------------------------------------ inside

    def _one(self) -> Worker:
        return self._idle.pop() if self._idle else self._fork("work", self.born)

    def _fork(self, do: str, born: Mapping[str, Any]) -> Worker:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = self._order({"do": do, **born}, theirs)
        theirs.close()
        return Worker(pid, ours, dict(born))

    def _order(self, order: Mapping[str, Any], passed: socket.socket) -> int:
        socket.send_fds(self._control, [json.dumps(order).encode()], [passed.fileno()])
        return int(self._control.recv(zygote.MESSAGE))

    def _ask(self, order: Mapping[str, Any]) -> bytes:
        self._control.send(json.dumps(order).encode())
        return self._control.recv(zygote.MESSAGE)

    @staticmethod
    def _send(worker: Worker, task: str, job: Mapping[str, Any]) -> None:
        worker.line.send(json.dumps({"task": task, **job}).encode())

    def _ends(self, chosen: Sequence[Worker], *, point: str | None, keep: bool = True) -> list[Outcome]:
        return [self._end(worker, keep=keep and point is None) for worker in chosen]

    def _end(self, worker: Worker, *, keep: bool) -> Outcome:
        ready, _, _ = select.select([worker.line], [], [], PATIENCE_SECONDS)
        if not ready:
            os.kill(worker.pid, signal.SIGUSR1)
            select.select([worker.line], [], [], SAY_SECONDS)
            self.kill(worker.pid)
            raise Hung(f"worker {worker.pid} did not end its task within {PATIENCE_SECONDS:.0f} s")
        try:
            message = worker.line.recv(zygote.MESSAGE)
        except ConnectionResetError:
            message = b""
        if not message:
            worker.line.close()
            ended = self.reap(worker.pid)
            return Outcome(signal=ended, error="" if ended else "its worker ended without an answer", died=True)
        if keep:
            self._idle.append(worker)
        else:
            self._retire(worker)  # an armed point that was not reached must not go off in the next delivery
        return Outcome(error=json.loads(message)["error"])

    def _retire(self, worker: Worker) -> None:
        worker.line.close()
        self.kill(worker.pid)
