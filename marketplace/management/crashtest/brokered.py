"""Kills of a real Celery worker on a real Valkey. Lives here: the same plays as in `kills`, delivered by the broker itself.

The pool's child dies and the worker hands the message back (`reject_on_worker_lost`), or the whole worker dies and the message
comes back when its visibility ends (`acks_late`). The duplicates are two more messages.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from random import Random
from typing import Final
from uuid import uuid4

from celery import states

from marketplace.celery import app
from marketplace.management.crashtest.ground import SWEEPS, Ground, Tenant
from marketplace.management.crashtest.judge import Judge
from marketplace.management.crashtest.kills import ATTEMPTS, Kills, NotReached, Play
from marketplace.management.stack import ready
from marketplace.management.stack.stack import ROOT
from marketplace.management.stack.supervisor import Child, Service

PATIENCE_SECONDS: Final = 40.0
DEATH: Final = "signal 9 (SIGKILL)"
LOST: Final = "exited prematurely"
"""What Celery says of a child that is gone."""
WHOLE: Final = 5
"""Each so many-th run kills the whole worker."""


class Brokered(Kills):
    """The brokered kills of one lane. It starts its workers when they are needed first."""

    def __init__(self, ground: Ground, judge: Judge) -> None:
        """Take where it plays, and who judges."""
        super().__init__(ground, judge)
        self._orders = ground.home.path / "orders"
        self._orders.mkdir(exist_ok=True)
        self._child: Child | None = None
        self._is_whole = False

    def close(self) -> None:
        """Stop the worker."""
        if self._child is not None:
            self.ground.supervisor.kill("celery")
            self._child = None

    def _prepare(self, point: str, play: Play, at: Random) -> None:
        """Start a worker of the right kind, and leave the order before anything nudges it."""
        is_whole = at.randrange(WHOLE) == 0
        if self._child is not None and is_whole != self._is_whole:
            self.close()
        self._is_whole = is_whole
        if self._child is None:
            self._child = self._start()
        order = {"point": point, "passes": 0, "settings": dict(play.born)}
        for task in SWEEPS[play.sweep]:
            draft = self._orders / f"{task}.draft"
            draft.write_text(json.dumps(order), encoding="utf-8")
            draft.rename(self._orders / task)

    def _start(self) -> Child:
        pool = ["--pool", "solo"] if self._is_whole else ["--pool", "prefork", "--concurrency", "1"]
        argv = [sys.executable, "-m", "celery", "-A", "marketplace.management.crashtest.broker", "worker", "-l", "INFO"]
        argv += [*pool, "--without-gossip", "--without-mingle", "--without-heartbeat"]
        environment = {**os.environ, **self.ground.environment, "CRASH_ORDERS": str(self._orders)}
        child = self.ground.supervisor.start(Service("celery", argv, environment, ROOT))
        return self.ground.supervisor.wait(child, ready.says(" ready."), PATIENCE_SECONDS)

    def _kill(self, point: str, play: Play, at: Random) -> list[Tenant]:
        more = list[Tenant]()
        for attempt in range(ATTEMPTS):
            if attempt > 1:
                more += self._pay(at, f"{point}/{at.getrandbits(64):x}")
                self._before(play)
            for task in SWEEPS[play.sweep]:
                if self._dies(task):
                    self._forget()
                    return more
            self._onward(play)
        self._forget()
        self.close()  # a worker that is armed must not die in another run
        raise NotReached(f"{point} was not reached by a Celery worker in {ATTEMPTS} deliveries")

    def _dies(self, task: str) -> bool:
        """Send a message, and wait until it is done, by whom it may be; return whether somebody died of it."""
        message = self._sent(task)
        self._until(lambda: self._is_done(message) or self._is_dead(), f"{task} is done")
        died = self._died(message, task)
        self._require_success(message, task)
        return died

    def _died(self, message: str, task: str) -> bool:
        if self._is_whole and self._is_dead():
            self.ground.supervisor.kill("celery")
            self._child = self._start()
            self._until(lambda: self._is_done(message), f"Valkey gives {task} out again")
            return True
        if LOST in self._said() and DEATH not in self._said():
            self.ground.asked.wrong.append(f"a child died of something else at {task}: {self._said()[-500:]}")
        return DEATH in self._said()

    def _again(self, play: Play) -> None:
        for task in SWEEPS[play.sweep]:
            twice = [self._sent(task), self._sent(task, again=True)]
            self._until(lambda sent=twice: all(map(self._is_done, sent)), f"{task} is done again")  # type: ignore[misc]
            for message in twice:
                self._require_success(message, task)
            if LOST in self._said():
                self.ground.asked.wrong.append(f"a child died when {task} came again: {self._said()[-500:]}")

    def _require_success(self, message: str, task: str) -> None:
        """Whichever worker ends a message, it ends well: no other fault is there."""
        state = (self._orders / f"{message}.done").read_text(encoding="utf-8")
        if state != states.SUCCESS:
            self.ground.asked.wrong.append(f"{task} was delivered by Valkey and ended with {state}")

    def _sent(self, task: str, *, again: bool = False) -> str:
        if not again:  # else what the worker says of the first one counts too
            self._read = 0 if self._child is None else len(self._output())
        message = str(uuid4())
        app.send_task(task, task_id=message)
        return message

    def _forget(self) -> None:
        for order in self._orders.iterdir():
            order.unlink(missing_ok=True)

    def _is_done(self, message: str) -> bool:
        return (self._orders / f"{message}.done").exists()

    def _is_dead(self) -> bool:
        """Whether SIGKILL ended the whole worker. Raises NotReached when anything else did."""
        ended = None if self._child is None else self._child.process.poll()
        if ended not in (None, -signal.SIGKILL):
            raise NotReached(f"the Celery worker ended with {ended}")
        return ended is not None

    def _said(self) -> str:
        """Return what the worker has said since the last message was sent."""
        return self._output()[self._read :]

    def _output(self) -> str:
        return "" if self._child is None else self._child.output()

    @staticmethod
    def _until(done: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not done():
            if time.monotonic() > end:
                raise NotReached(f"not within {PATIENCE_SECONDS:.0f} s: {what}")
            time.sleep(0.02)
