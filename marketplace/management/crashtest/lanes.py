"""Lanes: several grounds at once, each in a child of this command. Lives here: sharing the plan out, and collecting.

A child plays on one ground and ends with it: what one run left behind must not count against the next, so after something
wrong the rest goes to a fresh one, and so it does after a while, because a chain that grows for hours gets slow.
"""

import json
import logging
import os
import selectors
import signal
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

from marketplace.management.crashtest import recovery, web
from marketplace.management.crashtest.brokered import Brokered
from marketplace.management.crashtest.ground import FINALITY, Ground
from marketplace.management.crashtest.histories import Histories
from marketplace.management.crashtest.judge import Judge, Verdict
from marketplace.management.crashtest.kills import Kills
from marketplace.management.crashtest.table import Result, Table
from marketplace.management.crashtest.zygote import die_with_parent
from marketplace.management.stack import signals

KILL: Final = "kill"
CELERY_KILL: Final = "celery kill"
HISTORY: Final = "history"
RECOVERY: Final = "recovery"
FRESH_AFTER: Final = {KILL: 400, CELERY_KILL: 50, HISTORY: 100, RECOVERY: 1}
"""Runs on one ground."""
PROGRESS_SECONDS: Final = 15.0
LAST_WORDS: Final = 12
"""Lines of the crew's log that are shown with what is wrong."""
WHOLE: Final = "whole ground"


@dataclass(frozen=True)
class Run:
    """One run of the plan. Of a history `size` is its steps; of a recovery its chain actions, and `seconds` the outage."""

    kind: str
    point: str
    seed: int
    size: int = 0
    seconds: float = 0.0

    @property
    def fault(self) -> str:
        """Return the name of its row."""
        return f"{self.kind} {self.point}".strip()


@dataclass
class Lane:
    """A child at work: its runs, how many it has reported, and the beginning of a line."""

    pid: int
    runs: Sequence[Run]
    reported: int = 0
    partial: bytes = b""


@dataclass
class Lanes:
    """The children, what waits for one, and what they have reported."""

    most: int
    report: Callable[[str], None]
    table: Table = field(default_factory=Table)
    waiting: deque[Sequence[Run]] = field(default_factory=deque)

    def play(self, plan: Sequence[Run]) -> None:
        """Play everything; tell now and then how fast it goes, and how much is left."""
        planned, begun, before = len(plan), time.monotonic(), self.table.total.runs
        told = begun
        self.waiting.extend(_shares(plan, self.most))
        with selectors.DefaultSelector() as ready:
            while self.waiting or ready.get_map():
                while self.waiting and len(ready.get_map()) < self.most:
                    pipe, lane = _fork(self.waiting.popleft())
                    ready.register(pipe, selectors.EVENT_READ, lane)
                for key, _ in ready.select(1.0):
                    if not self._read(key.fd, key.data):
                        ready.unregister(key.fd)
                        self._end(key.fd, key.data)
                if time.monotonic() - told > PROGRESS_SECONDS:
                    told = time.monotonic()
                    self.report(_progress(self.table, self.table.total.runs - before, planned, told - begun))

    def _read(self, pipe: int, lane: Lane) -> bool:
        piece = os.read(pipe, 65_536)
        *lines, lane.partial = (lane.partial + piece).split(b"\n")
        for line in lines:
            result = Result.of(json.loads(line))
            lane.reported += not result.fault.startswith(WHOLE)
            self._take(result)
        return bool(piece)

    def _take(self, result: Result) -> None:
        self.table.add(result)
        if not result.clean:
            self.report(f"{result.fault}, seed {result.seed}: " + "; ".join(result.lines[:4]))

    def _end(self, pipe: int, lane: Lane) -> None:
        """Let another child go on where this one ended; a run that it did not survive is not tried twice."""
        os.close(pipe)
        status = os.waitstatus_to_exitcode(os.waitpid(lane.pid, 0)[1])
        left = lane.runs[lane.reported :]
        if status:
            lost = left[0] if left else Run(WHOLE, "", 0)
            self._take(Result(lost.fault, lost.seed, 0, 0, 1, 0.0, (f"the harness's own child ended with {status}",)))
            left = left[1:]
        if left:
            self.waiting.appendleft(left)


def _shares(plan: Sequence[Run], lanes: int) -> list[Sequence[Run]]:
    """Cut the plan into what one ground takes: of one kind, mixed over its points, and no lane left without."""
    shares: list[Sequence[Run]] = []
    for kind, of_kind in groupby(plan, key=lambda run: run.kind):
        runs = list(of_kind)
        parts = max(min(lanes, len(runs)), -(-len(runs) // FRESH_AFTER[kind]))
        shares += [runs[n::parts] for n in range(parts)]
    return shares


def _progress(table: Table, done: int, planned: int, seconds: float) -> str:
    rate, total = done / seconds, table.total
    left = (planned - done) / rate if rate else 0.0
    wrong = total.lost + total.doubled + total.unexplained
    return f"{done} of {planned} runs, {rate:.1f}/s, {left / 60:.0f} min left, {wrong} wrong"


def _fork(runs: Sequence[Run]) -> tuple[int, Lane]:
    sys.stdout.flush()
    sys.stderr.flush()
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid:
        os.close(theirs)
        return ours, Lane(pid, runs)
    code = 1
    try:
        os.close(ours)
        die_with_parent(signal.SIGTERM)
        with signals.orderly_end():
            _live(runs, theirs)
        code = 0
    except BaseException:  # noqa: BLE001 - nothing of the command's may run in a child
        traceback.print_exc()
    finally:
        os._exit(code)


def _live(runs: Sequence[Run], out: int) -> None:
    logging.disable(
        logging.CRITICAL
    )  # what the rooms say of faults is in the crew's log; here it would drown the table
    kind = runs[0].kind
    if kind == RECOVERY:
        for run in runs:
            _tell(out, recovery.measure(run.point, backlog=run.size, out_seconds=run.seconds))
        return
    with Ground(proxied=kind == HISTORY) as ground, closing(_on_one_ground(ground, runs)) as results:
        for result in results:
            _tell(out, result)
            if not result.clean:
                break


def _tell(out: int, result: Result) -> None:
    os.write(out, json.dumps(result.document()).encode() + b"\n")


def _on_one_ground(ground: Ground, runs: Sequence[Run]) -> Generator[Result]:
    """Play runs; at the end everything is judged once more as a whole."""
    judge, players = Judge(ground), dict[str, Any]()
    with ExitStack() as exits:
        for run in runs:
            name = "web" if run.point == web.POINT else run.kind
            if name not in players:
                players[name] = _PLAYERS[name](ground, judge)
                exits.callback(players[name].close)
            yield _play(players[name], run, ground)
        ground.mine(FINALITY)  # what the last run left above the final block is judged too
        ground.heal()
        whole = judge.judge()
        if not whole.clean:
            yield _result(Run(f"{WHOLE} after {len(runs)} of", runs[0].kind, 0), whole, 0.0, _last_words(ground))


def _play(player: Any, run: Run, ground: Ground) -> Result:
    inside, steps = Counter[str](), list[str]()
    try:
        if run.kind == HISTORY:
            verdict, inside, steps = player.run(run.seed, run.size)
        else:
            verdict = player.run(run.point, run.seed)
    except Exception as error:  # noqa: BLE001 - a run that cannot be played to its end is not explained
        steps = traceback.format_exc(limit=-6).splitlines()
        verdict = Verdict(unexplained=[f"{type(error).__name__}: {error}"])
    return _result(run, verdict, player.recovery, [*steps, *_last_words(ground)], inside)


def _result(
    run: Run, verdict: Verdict, recovery: float, more: Sequence[str], inside: Mapping[str, int] | None = None
) -> Result:
    lines = () if verdict.clean else (*verdict.lines(), *more)
    sums = len(verdict.lost), len(verdict.doubled), len(verdict.unexplained)
    return Result(run.fault, run.seed, *sums, recovery, lines, tuple((inside or {}).items()), **verdict.judged)


def _last_words(ground: Ground) -> list[str]:
    """Return what the crew said last."""
    return ground.crew.log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_WORDS:]


_PLAYERS: Final[dict[str, Any]] = {KILL: Kills, CELERY_KILL: Brokered, HISTORY: Histories, "web": web.Web}
