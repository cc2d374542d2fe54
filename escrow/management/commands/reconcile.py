"""`manage.py reconcile`: compare the books with the chain. Exit 0: equal. 1: all that differs is explained. 2: it is not."""

import json
import sys
from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand

from escrow import clock, money, reconcile
from escrow.findings import Report
from escrow.workers import chain_client


class Command(BaseCommand):
    """Compare the ledger with the contract, account class by account class."""

    help = (
        "Compare the books with the contract, pool by pool. Exit 0: equal; 1: what differs is explained; 2: it is not."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take which block, which pool, and the form of the answer."""
        parser.add_argument("--at", choices=reconcile.TIERS, default="final", help="which block of the chain")
        parser.add_argument("--pool", type=UUID, default=None, help="only this pool")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        """Compare, print, and exit with the verdict."""
        report = reconcile.reconcile(client=chain_client(), now=clock.now(), pool_id=options["pool"], at=options["at"])
        if options["json"]:
            self.stdout.write(json.dumps(report.document()))
        else:
            self._print(report)
        sys.exit(report.exit_code)

    def _print(self, report: Report) -> None:
        verdict = {0: "yes", 1: "yes, but for what is explained below", 2: "NO"}[report.exit_code]
        self.stdout.write(
            f"books equal chain: {verdict} ({report.tier} block {report.block}, {report.pools} pools, "
            f"{report.compared} comparisons, {report.seconds:.1f} s)"
        )
        self.stdout.write(f"the contract holds {money.render(report.held_micros)} USDC for them")
        for line in (*report.unexplained, *report.alarms):
            self.stdout.write(f"  DIFFERENT  {line}")
        for difference in report.differences:
            if difference.is_explained:
                self.stdout.write(f"  explained  {difference}")
        for step in report.in_flight:
            self.stdout.write(f"  on its way  {step}")
