"""Kills workers and web servers, and lies to them, on servers of its own; says what was lost, doubled or is not explained."""

import json
import sys
import time
from argparse import ArgumentParser
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

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


class Command(BaseCommand):
    """`manage.py crashtest`: the fault harness. The exit code is not 0 when anything is wrong with the money."""

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
        parser.add_argument("--kills", type=int, help="kills at each point")
        parser.add_argument("--celery-kills", type=int, help="of these, so many by a Celery worker on a real broker")
        parser.add_argument("--histories", type=int, help="how many histories")
        parser.add_argument("--steps", type=int, help="steps of each history")
        parser.add_argument("--seed", type=int, help="replay exactly the history of this seed, and show its steps")
        parser.add_argument("--first-seed", type=int, default=1, help="of the histories (default: 1)")
        parser.add_argument("--recovery", action="store_true", help="measure three outages with chain actions waiting")
        parser.add_argument("--backlog", type=int, default=recovery.BACKLOG, help="how many (default: 1000)")
        parser.add_argument(
            "--out", type=float, default=recovery.OUT_SECONDS, help="seconds without a node (default: 60)"
        )
        parser.add_argument("--workers", type=int, default=2, help="grounds that are played on at once (default: 2)")
        parser.add_argument("--json", action="store_true", help="print the sums as one JSON object")

    def handle(self, *_: object, **options: Any) -> None:
        """Play, report, and exit with the verdict."""
        plan, apart = _plan(options), _recoveries(options)
        if not plan and not apart:
            raise CommandError("There is nothing to play: name --points with --kills, or --histories, or --recovery.")
        app.loader.import_default_modules()  # before anything is forked: the tasks are there at once
        begun, workers = time.monotonic(), max(1, options["workers"])
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


def _recoveries(options: dict[str, Any]) -> list[Run]:
    faults = recovery.FAULTS if options["recovery"] else ()
    return [Run(RECOVERY, fault, 0, options["backlog"], options["out"]) for fault in faults]


def _plan(options: dict[str, Any]) -> list[Run]:
    size = FULL if options["full"] else QUICK
    if options["recovery"] and all(options[name] is None or options[name] is False for name in SIZES):
        return []  # asked for alone
    if options["seed"] is not None:
        steps = options["steps"] or size["steps"]
        sys.stderr.write("\n".join(told(draw(options["seed"], steps))) + "\n")
        return [Run(HISTORY, "", options["seed"], steps)]

    def number(name: str, of: str) -> int:
        given = options[name]
        return int(size[of] if given is None else given)

    points = options["points"].split(",") if options["points"] else list(POINTS if options["full"] else QUICK_POINTS)
    if unknown := set(points) - set(POINTS):
        raise CommandError(f"{', '.join(sorted(unknown))}: no crash point; there are {', '.join(POINTS)}.")
    kills, celery = number("kills", "kills"), number("celery_kills", "celery")
    celery = min(celery, kills)
    by_fork = [Run(KILL, point, n) for point in points for n in range(kills if point == web.POINT else kills - celery)]
    by_broker = [Run(CELERY_KILL, point, n) for point in points if point != web.POINT for n in range(celery)]
    first, steps = options["first_seed"], number("steps", "steps")
    histories = [Run(HISTORY, "", first + n, steps) for n in range(number("histories", "histories"))]
    return [*by_fork, *by_broker, *histories]
