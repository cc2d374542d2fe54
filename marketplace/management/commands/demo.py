"""Shows the whole market at work: agents hire and pay each other, and the books equal the chain."""

import json
import logging
import sys
import time
from argparse import ArgumentParser
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console

from agentmarket import AgentMarketError
from marketplace.management.demo import display, facts
from marketplace.management.demo.gas import ETH_DOLLARS, GAS_GWEI, Prices
from marketplace.management.demo.play import SETTINGS, Play
from marketplace.management.stack.stack import Stack
from marketplace.management.stack.supervisor import StackError


class Command(BaseCommand):
    """`manage.py demo`: a code review by hired agents, paid, disputed, settled, refunded and reconciled."""

    help = "Agents review real code and pay each other on a local chain; then look around, or --once."
    requires_system_checks = ()  # there is no database yet

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take what is reviewed, how it ends and how it is told."""
        parser.add_argument("--files", type=_count, default=70, help="how many files are reviewed (default: 70)")
        parser.add_argument("--path", type=Path, help="of the code that is reviewed (default: Django's own)")
        parser.add_argument("--out", type=Path, help="where the brief is written (default: review-brief-<time>.md)")
        parser.add_argument("--once", action="store_true", help="end after the report")
        parser.add_argument("--json", action="store_true", help="print the report as one JSON object, and end")
        parser.add_argument("--port", type=int, help="of the web (default: any free one)")
        parser.add_argument("--kill-worker", action="store_true", help="kill the worker twice on the way")
        parser.add_argument("--eth-price", type=Decimal, default=ETH_DOLLARS, help="dollars an ether, for the costs")
        parser.add_argument("--gas-price", type=Decimal, default=GAS_GWEI, help="gwei a gas, for the costs")

    def handle(self, *_: object, **options: Any) -> None:
        """Play, report, and stay; the exit code is not 0 when anything is wrong with the money."""
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line for each of a thousand requests
        console = Console(stderr=True, highlight=False)
        path = options["path"]
        if path is not None and not path.exists():
            raise CommandError(f"--path {path} does not exist.")
        try:
            console.print("Starting a market of your own ...")
            with Stack(
                port=options["port"] or 0, settings=SETTINGS, report=lambda line: console.print(f"  {line}")
            ) as stack:
                self._run(stack, console, options)
        except (StackError, AgentMarketError, ValueError) as error:
            raise CommandError(f"{error}") from error

    @staticmethod
    def _run(stack: Stack, console: Console, options: dict[str, Any]) -> None:
        with display.Bars(console) as bars:
            play = Play(stack, bars, kill_worker=options["kill_worker"])
            played = play.run(files=options["files"], path=options["path"])
        brief = (options["out"] or Path(time.strftime("review-brief-%Y%m%d-%H%M%S.md"))).absolute()
        brief.write_text(played.review.brief + "\n", encoding="utf-8")
        document = facts.collect(played, Prices(options["eth_price"], options["gas_price"]), brief)
        if options["json"]:
            sys.stdout.write(json.dumps(document) + "\n")
            sys.stdout.flush()
        else:
            display.show(document, _page())
        if document["problems"]:
            raise StackError("The demo found something wrong:\n" + "\n".join(document["problems"]))
        if not (options["once"] or options["json"]):
            display.invite(document, played, stack.urls, stack.home.logs, _page())
            stack.watch()


def _page() -> Console:
    """Return what the report is written on; where nobody looks at a screen, wide enough for a hash."""
    return Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else display.WIDTH)


def _count(text: str) -> int:
    """Return a number of files."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number
