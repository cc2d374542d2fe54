"""`manage.py reconcile`: compare the books with the chain. Exit 0: equal. 1: equal, with steps on their way. 2: different."""

import json
import sys
from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand
from django.utils import timezone

from escrow import money, reconcile
from escrow.workers import chain_client


class Command(BaseCommand):
    """Compare the ledger with the contract, account class by account class."""

    help = (
        "Compare the ledger with the contract, pool by pool. Exit 0: equal; 1: equal, steps on their way; 2: different."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take which pool, and the form of the answer."""
        parser.add_argument("--pool", type=UUID, default=None, help="only this pool")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        """Compare, print, and exit with the verdict."""
        report = reconcile.reconcile(client=chain_client(), now=timezone.now(), pool_id=options["pool"])
        if options["json"]:
            self.stdout.write(json.dumps(report.document()))
        else:
            self._print(report)
        sys.exit(report.exit_code)

    def _print(self, report: reconcile.Report) -> None:
        verdict = "yes" if report.equal else "NO"
        self.stdout.write(
            f"books equal chain: {verdict} (block {report.block}, {report.pools} pools, {report.compared} sums)"
        )
        self.stdout.write(f"the contract holds {money.render(report.held_micros)} USDC for them")
        for line in (*report.differences, *report.alarms):
            self.stdout.write(f"  DIFFERENT  {line}")
        for step in report.in_flight:
            self.stdout.write(f"  on its way  {step}")
