"""One kill at one point, and what must follow: a redelivery, a duplicate delivery, healing, and a judgement.

A play brings the market so far that the point is ahead, lets a worker run into it, and checks that SIGKILL was what ended it.
Redelivery and duplicate are what a broker that delivers at least once does after a death.
"""

import time
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from marketplace.management.crashtest.crew import Outcome
from marketplace.management.crashtest.ground import FINALITY, SWEEPS, Ground, Tenant
from marketplace.management.crashtest.judge import Judge, Verdict

ATTEMPTS: Final = 8
AGE_SECONDS: Final = 5
"""So far the chain's time goes ahead where a deadline must pass: no play waits."""
MOST_MICROS: Final = 50_000
PAYMENTS: Final = 3


@dataclass(frozen=True)
class Play:
    """How a point is reached: what comes first, whose sweep dies, and with which settings a worker is born for it."""

    sweep: str
    first: tuple[str, ...] = ()
    born: tuple[tuple[str, Any], ...] = ()
    stalls: bool = False
    """Whether the chain takes nothing until the kill, so that there is something to replace."""


PLAYS: Final[dict[str, Play]] = {
    "settle.signed": Play("settle"),
    "settle.committed": Play("settle"),
    "dispatch.committed": Play("settle"),
    "relay.signing": Play("relay", ("settle",)),
    "relay.signed": Play("relay", ("settle",)),
    "relay.sent": Play("relay", ("settle",)),
    "relay.broadcast": Play("relay", ("settle",)),
    "relay.mined": Play("relay", ("settle",)),
    "relay.final": Play("relay", ("settle", "relay")),
    "relay.replacing": Play("relay", ("settle", "relay"), (("RELAY_REPLACE_SECONDS", 0),), stalls=True),
    "index.read": Play("index", ("settle", "relay")),
    "index.committed": Play("index", ("settle", "relay")),
    "void.committed": Play("settle", ("settle", "age", "index"), (("SETTLE_DEADLINE", 1),)),
    "payout.planned": Play("payout", ("settle", "relay", "mine", "relay", "index")),
}


class NotReached(Exception):
    """The point lay on nobody's way: the play is wrong, or the code does not have it."""


class Kills:
    """The kills of one lane."""

    def __init__(self, ground: Ground, judge: Judge) -> None:
        """Take where it plays, and who judges."""
        self.ground, self.judge = ground, judge
        self.recovery = 0.0
        """Seconds from the last kill until everything had healed."""

    def close(self) -> None:
        """End what it started."""

    def run(self, point: str, seed: int) -> Verdict:
        """Kill once at a point, heal, and judge. Raises NotReached."""
        at, play = Random(f"{point}/{seed}"), PLAYS[point]  # noqa: S311 - draws that can be drawn again
        tenants = self._pay(at, f"{point}/{seed}")
        self._prepare(point, play, at)
        self._before(play)
        try:
            tenants += self._kill(point, play, at)
        finally:
            began = time.monotonic()
            if play.stalls:
                self.ground.node.request("evm_setAutomine", [True])
                self.ground.mine()
        self._again(play)
        healed = self.ground.heal()
        self.recovery = time.monotonic() - began
        verdict = self.judge.judge({tenant.pool.pk for tenant in tenants})
        if not healed:
            verdict.unexplained.append("it did not come to rest")
        return verdict

    def _prepare(self, point: str, play: Play, at: Random) -> None:
        """Get ready before the market moves."""

    def _pay(self, at: Random, key: str) -> list[Tenant]:
        tenants = at.sample(self.ground.tenants, at.randint(1, 2))
        for number in range(PAYMENTS):
            tenant = tenants[number % len(tenants)]
            seller = at.randrange(len(self.ground.sellers))
            self.ground.pay(tenant, seller, at.randint(1, MOST_MICROS), f"{key}/{number}")
        return tenants

    def _before(self, play: Play) -> None:
        if play.stalls:
            self.ground.node.request("evm_setAutomine", [False])
        for step in play.first:
            self._step(step, play)

    def _step(self, step: str, play: Play) -> None:
        if step in ("mine", "age"):
            self.ground.mine(FINALITY, ahead=AGE_SECONDS if step == "age" else 0)
        else:
            for task in SWEEPS[step]:
                self._require_well(task, self._deliver(task, play))

    def _kill(self, point: str, play: Play, at: Random) -> list[Tenant]:
        """Let a worker run into the point; what it missed it needs new debts for. Return whose they are."""
        passes, more = at.randrange(2), list[Tenant]()
        for attempt in range(ATTEMPTS):
            if attempt > 1:
                more += self._pay(at, f"{point}/{at.getrandbits(64):x}")
                self._before(play)
            for task in SWEEPS[play.sweep]:
                ended = self._deliver(task, play, point=point, passes=passes)
                if ended.killed:
                    return more
                self._require_well(task, ended)
            passes = 0
            self._onward(play)
        raise NotReached(f"{point} was not reached in {ATTEMPTS} deliveries of {SWEEPS[play.sweep]}")

    def _onward(self, play: Play) -> None:
        """Take the others a step further, so that the point comes nearer."""
        if not play.stalls:
            self.ground.mine(FINALITY)
        for name in ("relay", "index"):
            if name != play.sweep and not play.stalls:
                self.ground.sweep(name)
        self.ground.bring_forward()

    def _require_well(self, task: str, ended: Outcome) -> None:
        """Nothing else fails here: whoever was not killed has ended well."""
        if ended.told:
            self.ground.asked.wrong.append(f"{task} was delivered and {ended.told}")

    def _deliver(self, task: str, play: Play, **job: Any) -> Outcome:
        if play.born:
            return self.ground.crew.deliver_odd(task, {"settings": dict(play.born)}, **job)
        return self.ground.crew.deliver(task, **job)

    def _again(self, play: Play) -> None:
        """What a broker does: the message comes again, and once more it comes to two workers at once."""
        for task in SWEEPS[play.sweep]:
            for ended in (self.ground.crew.deliver(task), *self.ground.crew.deliver_at_once([task, task])):
                self._require_well(f"{task}, come again,", ended)
