"""Proof of reserves: what the contract holds against all that is owed, kept, and provable to each whom it is owed to.

Lives here: the reports that were kept, and the proofs of single debts in them, for whoever asks. Making a report is
`attesting`'s, and the construction of the tree `sumtree`'s. No node is asked here: the web reads this.
"""

import hmac
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db.models import Q, QuerySet

from escrow.errors import NotFound
from escrow.models import ReserveLeaf, ReserveReport
from escrow.sumtree import Leaf, Sibling, SumTree

PROVEN_AT_ONCE: Final = 500
"""Debts of one caller in one answer, the largest first; a pool narrows them."""


@dataclass(frozen=True, slots=True)
class Inclusion:
    """One debt and the way from it to the root."""

    leaf: Leaf
    proof: Sequence[Sibling]


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
    mine = [leaf_of(secret, row) for row in rows.order_by("-micros", "pk")[:PROVEN_AT_ONCE]]
    return [Inclusion(leaf, tree.proof(leaf)) for leaf in mine]


@lru_cache(maxsize=2)
def _tree(report_id: UUID) -> SumTree:
    """Return the tree of a report. Its leaves never change; whoever asks for one proof soon asks for the next."""
    report = ReserveReport.objects.get(pk=report_id)
    secret = bytes(report.secret)
    return SumTree([leaf_of(secret, row) for row in ReserveLeaf.objects.filter(report=report)])


def leaf_of(secret: bytes, row: ReserveLeaf) -> Leaf:
    """Return the leaf of a debt, salted so that strangers learn nothing from it."""
    pool, party = str(row.pool_id or ""), str(row.party_id or "")
    salt = hmac.new(secret, f"{row.owed_as}|{pool}|{party}".encode(), sha256).hexdigest()
    return Leaf(salt=salt, owed_as=row.owed_as, pool=pool, party=party, micros=row.micros)
