"""Attesting: the books against the chain, on a clock, with the outcome kept for everybody to see. Lives here: making reports.

Comparing is `reconcile`'s; what is read of the reports, and proven by them, is `reserves`'.
"""

import logging
import secrets
import time
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import transaction

from escrow import books, clock, intents, reconcile, reserves
from escrow.books import Books
from escrow.chain.client import ChainClient
from escrow.chain.errors import ChainError
from escrow.findings import Report
from escrow.models import ReserveLeaf, ReserveReport
from escrow.sumtree import SumTree

log = logging.getLogger(__name__)
AT_ONCE: Final = 5_000
"""Leaves written by one statement."""
SHORTEST: Final = timedelta(seconds=30)
"""A message that comes twice makes one report."""


def prove_due(*, client: ChainClient) -> ReserveReport | None:
    """Reconcile all books at the final block and keep the outcome, unless that was done just now or somebody is at it.

    Whatever nothing explains is logged as critical. None as well when the chain cannot be asked: the next beat asks again.
    """
    with intents.exclusively("escrow.reserves") as free:
        last = reserves.newest()
        if not free or (last is not None and clock.now() - last.created_at < SHORTEST):
            return None
        try:
            return prove(client=client, now=clock.now())
        except ChainError as error:
            log.warning("The chain cannot be asked; the books are compared with it later: %s", error)
            return None


def prove(*, client: ChainClient, now: datetime) -> ReserveReport | None:
    """Reconcile all books at the final block and keep the outcome with its tree; None before the indexer has begun."""
    begun = time.monotonic()
    found = books.read()
    if found is None:
        return None
    report = reconcile.compare(found, client=client, now=now, at="final", begun=begun)
    for fault in (*report.unexplained, *report.alarms):
        log.critical("Books and chain differ: %s", fault)
    return _keep(report, found)


@transaction.atomic
def _keep(report: Report, found: Books) -> ReserveReport:
    secret = secrets.token_bytes(32)
    owed = [
        ReserveLeaf(
            owed_as=name, pool_id=UUID(pool) if pool else None, party_id=UUID(party) if party else None, micros=m
        )
        for (name, pool, party), m in found.owed.items()
        if m > 0
    ]
    root, total = SumTree([reserves.leaf_of(secret, row) for row in owed]).root
    kept = ReserveReport.objects.create(
        chain_id=settings.CHAIN_ID,
        contract_address=settings.ESCROW_ADDRESS,
        tier=report.tier,
        block_number=report.block,
        block_hash=report.block_hash,
        verdict=report.verdict.value,
        held_micros=report.held_micros,
        owed_micros=total,
        flying_micros=report.flying_micros,
        others_micros=report.others_micros,
        surplus_micros=report.surplus_micros,
        liabilities=report.liabilities,
        differences=[difference.document() for difference in report.differences],
        alarms=report.alarms,
        root=root,
        secret=secret,
        duration_ms=round(report.seconds * 1_000),
    )
    for row in owed:
        row.report = kept
    ReserveLeaf.objects.bulk_create(owed, batch_size=AT_ONCE)
    _prune()
    return kept


def _prune() -> None:
    """Keep so many reports, and the leaves of the newest few: a proof is of what is owed now."""
    newest_first = ReserveReport.objects.order_by("-created_at", "-pk").values("pk")
    old = list(newest_first[settings.RESERVES_PROVABLE : settings.RESERVES_PROVABLE + 100])
    ReserveLeaf.objects.filter(report__in=[row["pk"] for row in old]).delete()
    gone = list(newest_first[settings.RESERVES_KEPT : settings.RESERVES_KEPT + 100])
    ReserveReport.objects.filter(pk__in=[row["pk"] for row in gone]).delete()
