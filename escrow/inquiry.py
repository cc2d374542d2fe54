"""An inquiry: the books against the chain, for a person who asks. Lives here: what is known when somebody cannot be asked.

Comparing is `reconcile`'s. An answer that nobody can give is not one that is explained: it has a form of its own.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import Error as DatabaseError

from escrow import books, clock, reconcile
from escrow.chain.client import ChainClient
from escrow.chain.errors import ChainError
from escrow.errors import NotFound
from escrow.findings import Difference, Report, stale
from escrow.models import Pool
from escrow.reconcile import At

UNKNOWN: Final = 3
"""The exit code of a comparison that could not be made. It follows those of `findings.Verdict`."""


@dataclass(frozen=True)
class Unknown:
    """Nobody knows whether the books equal the chain: one of the two sides could not be read."""

    tier: str
    asked: str
    """Who was asked, and for what."""
    reason: str
    remedy: str
    differences: list[Difference] = field(default_factory=list)
    """What the books contradict by themselves, where they could be read."""
    alarms: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """Always 3: ask again."""
        return UNKNOWN

    def __str__(self) -> str:
        return f"books equal chain: nobody knows. Asked: {self.asked}. Wrong: {self.reason}. To do: {self.remedy}"

    def document(self) -> dict[str, object]:
        """Return it as JSON."""
        return {
            "verdict": "unknown",
            "equal": None,
            "at": self.tier,
            "asked": self.asked,
            "reason": self.reason,
            "remedy": self.remedy,
            "differences": [difference.document() for difference in self.differences],
            "alarms": self.alarms,
        }


def ask(*, client: Callable[[], ChainClient], pool_id: UUID | None = None, at: At = "final") -> Report | Unknown:
    """Compare every pool (or one) with the contract. Raises NotFound for a pool that there is not."""
    begun = time.monotonic()
    try:
        _require(pool_id)
        now, found = clock.now(), books.read(pool_id)
    except DatabaseError as error:
        return Unknown(
            at,
            "the database at DATABASE_URL for the books",
            _first_line(error),
            "see that it runs, that DATABASE_URL is its address and that `manage.py migrate` was run; then ask again",
        )
    if found is None:
        return Unknown(
            at,
            f"the database for how far the contract {settings.ESCROW_ADDRESS or 'of ESCROW_ADDRESS'} has been read",
            "the indexer has not read the chain yet",
            "see that the worker runs and that ESCROW_ADDRESS and CHAIN_ID are this market's; then ask again",
        )
    try:
        return reconcile.compare(found, client=client(), now=now, at=at, pool_id=pool_id, begun=begun)
    except ChainError as error:
        return Unknown(
            at,
            f"the node at RPC_URL for what the contract {settings.ESCROW_ADDRESS} holds at the {at} block",
            _first_line(error),
            "see that the node runs, has caught up and keeps that block's state, or name another in RPC_URL; then ask again",
            differences=found.differences,
            alarms=[*found.alarms, *stale(found.cursor.read_at, now)],
        )


def _require(pool_id: UUID | None) -> None:
    """Refuse a pool that would be compared as nothing with nothing."""
    if pool_id is None:
        return
    contract = Pool.objects.filter(pk=pool_id).values_list("contract_address", flat=True).first()
    if contract is None:
        raise NotFound("no pool has this id")
    if contract != settings.ESCROW_ADDRESS:
        raise NotFound(f"this pool is at the contract {contract}, and ESCROW_ADDRESS is {settings.ESCROW_ADDRESS}")


def _first_line(error: Exception) -> str:
    said = str(error).strip() or type(error).__name__
    return said.splitlines()[0].rstrip(".")
