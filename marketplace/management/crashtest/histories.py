"""Histories: fifty steps that a seed draws, of work and of faults; then every fault ends, and the judge reads what is there.

Lives here: playing one history and healing after it. What a step is, is `steps`'.
"""

import time
from collections import Counter
from collections.abc import Sequence

from marketplace.management.crashtest.doors import Numbers
from marketplace.management.crashtest.ground import SWEEPS, Ground
from marketplace.management.crashtest.judge import Judge, Verdict
from marketplace.management.crashtest.steps import Actor, draw
from marketplace.management.crashtest.web import Web


class Histories:
    """The histories of one lane."""

    def __init__(self, ground: Ground, judge: Judge) -> None:
        """Take where they are played, and who judges."""
        self.ground, self.judge = ground, judge
        self.web = Web(ground, judge)
        self.recovery = 0.0

    def close(self) -> None:
        """End the web."""
        self.web.close()

    def run(self, seed: int, steps: int) -> tuple[Verdict, Counter[str], list[str]]:
        """Play a history; return the verdict, how often each fault happened, and the steps in words."""
        drawn = draw(seed, steps)
        actor = Actor(self.ground, self.web, f"{seed}.{self.ground.played}")
        self.ground.played += 1
        for number, (name, numbers) in enumerate(drawn):
            actor.act(number, name, numbers)
        verdict = self._heal(actor)
        found = self.judge.judge()
        found.unexplained += verdict.unexplained
        return found, actor.happened + actor.doors.met(), told(drawn)

    def _heal(self, actor: Actor) -> Verdict:
        """End every fault, repeat what was not answered, let the crew sweep once on its own, and come to rest."""
        began, verdict = time.monotonic(), Verdict()
        self.ground.end_faults()
        repeat(actor)
        for name, tasks in SWEEPS.items():
            for task in tasks:
                if failure := self.ground.crew.deliver(task).told:
                    verdict.unexplained.append(f"{name} still fails when every fault has ended: {failure}")
        rested = self.ground.heal()
        if actor.open:  # only the sweeps have let a pool go on whose deposit was away
            repeat(actor)
            rested = self.ground.heal()
        verdict.unexplained += [f"key {key} is not answered" for key in actor.open]
        if not rested:
            verdict.unexplained.append("it did not come to rest")
        self.recovery = time.monotonic() - began
        return verdict


def repeat(actor: Actor) -> None:
    """Ask once more for every payment that was not answered, as its client does."""
    for key in list(actor.open):
        actor.ask(key)


def told(drawn: Sequence[tuple[str, Numbers]]) -> list[str]:
    """Return steps in words."""
    return [f"{number:>3}  {name} {' '.join(map(str, numbers))}" for number, (name, numbers) in enumerate(drawn)]
