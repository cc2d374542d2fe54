"""Kills workers and web servers, and lies to them, on servers of its own; says what was lost, doubled or is not explained."""

import json
import sys
import time
from argparse import ArgumentParser
from typing import Any, Final

from escrow.management.usage import StrictCommand, refusal, seconds, whole
from marketplace.celery import app
from marketplace.management.crashtest import recovery, web
from marketplace.management.crashtest.histories import told
from marketplace.management.crashtest.kills import PLAYS
from marketplace.management.crashtest.lanes import CELERY_KILL, HISTORY, KILL, RECOVERY, Lanes, Run
from marketplace.management.crashtest.steps import draw

POINTS: Final = (*PLAYS, web.POINT)
QUICK_POINTS: Final = (
    "settle.signed", "dispatch.committed", "relay.signing", "relay.signed", "relay.sent", "relay.mined",
    "index.committed", "send.committed",
)  # fmt: skip
QUICK: Final = {"kills": 5, "celery": 0, "histories": 4, "steps": 50}
SIZES: Final = ("quick", "full", "points", "kills", "celery_kills", "histories", "steps", "seed")
FULL: Final = {"kills": 500, "celery": 5, "histories": 1_000, "steps": 50}
NOT_OF_A_SEED: Final = ("quick", "full", "points", "kills", "celery_kills", "histories", "first_seed")
OF_RECOVERY: Final = {"backlog": recovery.BACKLOG, "out": recovery.OUT_SECONDS}


class Command(StrictCommand):
    """`manage.py crashtest`: the fault harness. Exit 0: nothing is wrong with the money. 1: something is. 64: wrong usage."""

    help = (
        "Kill real workers and web servers at named points, play seeded histories of faults, and check every payment."
    )
    requires_system_checks = ()  # there is no database yet

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take how much is played, and how it is told."""
        size = parser.add_mutually_exclusive_group()
        size.add_argument("--quick", action="store_true", help="8 points, 5 kills each, 4 histories (the default)")
        size.add_argument(
            "--full", action="store_true", help="every point, 500 kills each, 1,000 histories: an hour or more"
        )
        parser.add_argument("--points", help=f"only these, separated by commas, of: {', '.join(POINTS)}")
        parser.add_argument("--kills", type=whole(0), metavar="N", help="kills at each point")
        parser.add_argument(
            "--celery-kills", type=whole(0), metavar="N", help="of these, so many by a Celery worker on a real broker"
        )
        parser.add_argument("--histories", type=whole(0), metavar="N", help="how many histories")
        parser.add_argument(
            "--steps", type=whole(1), metavar="N", help="steps of each history; others are another history"
        )
        parser.add_argument(
            "--seed", type=whole(0), metavar="S", help="replay exactly the history of this seed, and show its steps"
        )
        parser.add_argument("--first-seed", type=whole(0), metavar="S", help="of the histories (default: 1)")
        parser.add_argument("--recovery", action="store_true", help="measure three outages with chain actions waiting")
        parser.add_argument("--backlog", type=whole(1), metavar="N", help=f"how many (default: {recovery.BACKLOG})")
        parser.add_argument(
            "--out", type=seconds, metavar="SECONDS", help=f"without a node (default: {recovery.OUT_SECONDS:g})"
        )
        parser.add_argument(
            "--workers", type=whole(1), metavar="N", default=2, help="grounds that are played on at once (default: 2)"
        )
        parser.add_argument("--json", action="store_true", help="print the sums as one JSON object")

    def handle(self, *_: object, **options: Any) -> None:
        """Play, report, and exit with the verdict."""
        _agree(options)
        plan, apart = _plan(options), _recoveries(options)
        if not plan and not apart:
            raise refusal("--kills, --histories", "both are 0, and nothing would be played", "--kills 1, or --recovery")
        if options["seed"] is not None:
            self._say("\n".join(told(draw(plan[0].seed, plan[0].size))))
        app.loader.import_default_modules()  # before anything is forked: the tasks are there at once
        begun, workers = time.monotonic(), options["workers"]
        self._say(f"{len(plan) + len(apart)} runs on {workers} grounds ...")
        played = Lanes(workers, self._say)
        played.play(plan)
        played.most = 1  # what is measured has the machine for itself
        played.play(apart)
        seconds = time.monotonic() - begun
        if options["json"]:
            self.stdout.write(json.dumps(played.table.document(seconds)))
        else:
            played.table.show(self.stdout.write)
            self.stdout.write(f"{seconds:.0f} s")
        if played.table.failed:
            sys.exit(1)

    def _say(self, line: str) -> None:
        self.stderr.write(line)


def _agree(options: dict[str, Any]) -> None:
    """Refuse an option that another one would leave without a meaning."""
    given = {name for name, value in options.items() if value is not None and value is not False}
    if "seed" in given:
        for name in NOT_OF_A_SEED:
            if name in given:
                raise refusal(_option(name), "says what is played, and --seed plays one history", "one of the two")
    if not options["recovery"]:
        for name in OF_RECOVERY:
            if name in given:
                raise refusal(_option(name), "is of the outages alone", f"--recovery {_option(name)} {options[name]:g}")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _recoveries(options: dict[str, Any]) -> list[Run]:
    faults = recovery.FAULTS if options["recovery"] else ()
    backlog, out = (default if options[name] is None else options[name] for name, default in OF_RECOVERY.items())
    return [Run(RECOVERY, fault, 0, int(backlog), out) for fault in faults]


def _plan(options: dict[str, Any]) -> list[Run]:
    size = FULL if options["full"] else QUICK
    if options["recovery"] and all(options[name] is None or options[name] is False for name in SIZES):
        return []  # asked for alone

    def number(name: str) -> int:
        given = options[name]
        return int(size[name.partition("_")[0]] if given is None else given)

    steps = number("steps")
    if options["seed"] is not None:
        return [Run(HISTORY, "", options["seed"], steps)]
    points, kills = _points(options), number("kills")
    celery = _celery(options, points, kills, number("celery_kills"))
    by_fork = [Run(KILL, point, n) for point in points for n in range(kills if point == web.POINT else kills - celery)]
    by_broker = [Run(CELERY_KILL, point, n) for point in points if point != web.POINT for n in range(celery)]
    first = 1 if options["first_seed"] is None else options["first_seed"]
    histories = [Run(HISTORY, "", first + n, steps) for n in range(number("histories"))]
    return [*by_fork, *by_broker, *histories]


def _points(options: dict[str, Any]) -> list[str]:
    if options["points"] is None:
        return list(POINTS if options["full"] else QUICK_POINTS)
    points = [name.strip() for name in options["points"].split(",")]
    for name in points:
        if name not in POINTS:
            raise refusal("--points", f"{name!r} is no crash point", f"some of {','.join(POINTS)}")
        if points.count(name) > 1:
            raise refusal("--points", f"{name} is named twice", "each point once; --kills says how often")
    return points


def _celery(options: dict[str, Any], points: list[str], kills: int, celery: int) -> int:
    """Return how many kills of a point are a Celery worker's: of a size at most all, and just as many as were asked for."""
    if not options["celery_kills"]:
        return min(celery, kills)
    if celery > kills:
        raise refusal("--celery-kills", f"is {celery}, and is a part of the {kills} --kills", f"--celery-kills {kills}")
    if points == [web.POINT]:
        raise refusal("--celery-kills", f"no worker dies at {web.POINT}", "--celery-kills 0, or another point")
    return celery
