"""`manage.py reconcile`: compare the books with the chain. Exit 0: equal. 1: explained. 2: it is not. 3: nobody knows."""

import json
import logging
import sys
import traceback
from argparse import ArgumentParser
from collections.abc import Iterable
from typing import Any, Final

from escrow import inquiry, money, reconcile
from escrow.errors import NotFound
from escrow.findings import Difference, Report
from escrow.inquiry import Unknown
from escrow.management.usage import StrictCommand, one_of, refusal, uuid
from escrow.workers import chain_client

A_POOL: Final = "an id from the admin's page Pools"


class Command(StrictCommand):
    """Compare the ledger with the contract, account class by account class."""

    help = (
        "Compare the books with the contract, pool by pool. Exit 0: equal; 1: what differs is explained; 2: it is not, or "
        "there is an alarm; 3: nobody knows, ask again; 64: wrong usage."
    )
    requires_system_checks = ()  # it is run when something is wrong, and exits 1 for one thing only

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take which block, which pool, and the form of the answer."""
        tiers = "|".join(reconcile.TIERS)
        parser.add_argument(
            "--at", type=one_of(reconcile.TIERS), default="final", metavar=tiers, help="which block of the chain"
        )
        parser.add_argument("--pool", type=uuid, metavar="ID", help=f"only this pool: {A_POOL}")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def run_from_argv(self, argv: list[str]) -> None:
        """Run at a terminal. A failure of our own is no verdict either: Python's exit code for it would read as *explained*."""
        logging.disable(logging.WARNING)  # what a node did not answer is in what is printed
        try:
            super().run_from_argv(argv)
        except Exception:  # noqa: BLE001 - whatever it is, it is shown
            traceback.print_exc()
            sys.exit(inquiry.UNKNOWN)
        finally:
            logging.disable(logging.NOTSET)

    def handle(self, *args: Any, **options: Any) -> None:
        """Compare, print, and exit with the verdict."""
        try:
            found = inquiry.ask(client=chain_client, pool_id=options["pool"], at=options["at"])
        except NotFound as refused:
            raise refusal("--pool", refused.detail, A_POOL) from None
        if options["json"]:
            self.stdout.write(json.dumps(found.document()))
        elif isinstance(found, Unknown):
            self.stderr.write(str(found))
            self._list(found.differences, found.alarms)
        else:
            self._print(found)
        sys.exit(found.exit_code)

    def _print(self, report: Report) -> None:
        self.stdout.write(
            f"books equal chain: {_verdict(report)} ({report.tier} block {report.block}, {report.pools} pools, "
            f"{report.compared} comparisons, {report.seconds:.1f} s)"
        )
        self.stdout.write(f"the contract holds {money.render(report.held_micros)} USDC for them")
        self._list(report.differences, report.alarms)
        for step in report.in_flight:
            self.stdout.write(f"  on its way  {step}")

    def _list(self, differences: Iterable[Difference], alarms: Iterable[str]) -> None:
        """Print what differs and what is wrong otherwise, what a person must look at first."""
        for difference in sorted(differences, key=lambda one: one.is_explained):
            self.stdout.write(f"  {'explained' if difference.is_explained else 'DIFFERENT'}  {difference}")
        for alarm in alarms:
            self.stdout.write(f"  ALARM      {alarm}")


def _verdict(report: Report) -> str:
    alarm = " there is an alarm" if len(report.alarms) == 1 else f" there are {len(report.alarms)} alarms"
    if not report.equal:
        return f"NO, and{alarm}" if report.alarms else "NO"
    if report.alarms:
        return f"yes, but{alarm}"
    return "yes, but for what is explained below" if report.exit_code else "yes"
