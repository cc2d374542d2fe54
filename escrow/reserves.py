"""Proof of reserves: what the contract holds against all that is owed, kept, and provable to each whom it is owed to.

Lives here: reconciling on a clock with its outcome as a row, the tree over what is owed, and the proofs of single debts.
Comparing is `reconcile`'s, and the construction of the tree `sumtree`'s.
"""

import hmac
import logging
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet

from escrow import books, clock, intents, reconcile
from escrow.books import Books
from escrow.chain.client import ChainClient
from escrow.chain.errors import ChainError
from escrow.errors import NotFound
from escrow.findings import Report
from escrow.models import ReserveLeaf, ReserveReport
from escrow.sumtree import Leaf, Sibling, SumTree

log = logging.getLogger(__name__)
AT_ONCE: Final = 5_000
"""Leaves written by one statement."""
SHORTEST: Final = timedelta(seconds=30)
"""A message that comes twice makes one report."""
PROVEN_AT_ONCE: Final = 500
"""Debts of one caller in one answer, the largest first; a pool narrows them."""


@dataclass(frozen=True, slots=True)
class Inclusion:
    """One debt and the way from it to the root."""

    leaf: Leaf
    proof: Sequence[Sibling]


def prove_due(*, client: ChainClient) -> ReserveReport | None:
    """Reconcile all books at the final block and keep the outcome, unless that was done just now or somebody is at it.

    Whatever nothing explains is logged as critical. None as well when the chain cannot be asked: the next beat asks again.
    """
    with intents.exclusively("escrow.reserves") as free:
        last = newest()
        if not free or (last is not None and clock.now() - last.created_at < SHORTEST):
            return None
        try:
            return prove(client=client, now=clock.now())
        except ChainError as error:
            log.warning("The chain cannot be asked; the books are compared with it later: %s", error)
            return None


def prove(*, client: ChainClient, now: datetime) -> ReserveReport | None:
    """Reconcile all books at the final block and keep the outcome with its tree; None before the indexer has begun."""
    found = books.read()
    if found is None:
        return None
    report = reconcile.compare(found, client=client, now=now, at="final")
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
    root, total = SumTree([_leaf(secret, row) for row in owed]).root
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


def newest() -> ReserveReport | None:
    """Return the newest report on the contract in use; None before the first."""
    return reports().order_by("-created_at", "-pk").first()


def require_newest() -> ReserveReport:
    """Return the newest report. Raises NotFound before the first."""
    found = newest()
    if found is None:
        raise NotFound("Nothing has been compared with the chain yet; the worker does so every five minutes.")
    return found


def reports() -> "QuerySet[ReserveReport]":
    """Return the reports on the contract in use."""
    return ReserveReport.objects.filter(chain_id=settings.CHAIN_ID, contract_address=settings.ESCROW_ADDRESS)


def inclusions(
    *,
    report: ReserveReport,
    pool_ids: Collection[UUID] | None = None,
    party_id: UUID | None = None,
    pool_id: UUID | None = None,
) -> list[Inclusion]:
    """Return the debts to a payer, by its pools, or to a party, each with its proof, the largest first.

    What is in a dispute is shown to both sides. With `pool_id`, only those in that pool.
    """
    whose = Q(party_id=party_id) if party_id else Q(pool_id__in=pool_ids or (), party_id=None)
    if pool_ids:
        whose |= Q(pool_id__in=pool_ids, owed_as="disputed")
    rows = ReserveLeaf.objects.filter(whose, report=report)
    if pool_id is not None:
        rows = rows.filter(pool_id=pool_id)
    secret = bytes(report.secret)
    tree = _tree(report.pk)
    mine = [_leaf(secret, row) for row in rows.order_by("-micros", "pk")[:PROVEN_AT_ONCE]]
    return [Inclusion(leaf, tree.proof(leaf)) for leaf in mine]


@lru_cache(maxsize=2)
def _tree(report_id: UUID) -> SumTree:
    """Return the tree of a report. Its leaves never change; whoever asks for one proof soon asks for the next."""
    report = ReserveReport.objects.get(pk=report_id)
    secret = bytes(report.secret)
    return SumTree([_leaf(secret, row) for row in ReserveLeaf.objects.filter(report=report)])


def _leaf(secret: bytes, row: ReserveLeaf) -> Leaf:
    pool, party = str(row.pool_id or ""), str(row.party_id or "")
    salt = hmac.new(secret, f"{row.owed_as}|{pool}|{party}".encode(), sha256).hexdigest()
    return Leaf(salt=salt, owed_as=row.owed_as, pool=pool, party=party, micros=row.micros)
