"""Funding: deposits, as the chain tells them. Lives here: taking them into the ledger, the halt when one leaves the chain.

Asking for a deposit is pools'; reading the chain is the indexer's, and which deposit stands where is the logbook's.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Coalesce

from escrow import events, ledger, lifecycle, money, pools
from escrow.ledger import Move
from escrow.models import Account, Pool, PoolProvider, Reason

Status = Pool.Status
WAITS: Final = "More was deposited lately than is taken before it is final; this deposit is taken when it is."


@transaction.atomic
def opened(pool: Pool, *, deposit_micros: int, ref: str, at: datetime) -> None:
    """Mirror PoolOpened: the money is in the contract."""
    ledger.lock([ledger.world(pool), ledger.free(pool)])  # before the pool's row, as whoever closes it does
    frozen_at = pools.frozen_since(pool.payer_id)  # one that had failed was not there to be frozen
    lifecycle.move(pool, Status.OPEN, opened_at=at, frozen_at=frozen_at)
    PoolProvider.objects.filter(pool=pool, initial=True).update(allowed_at=at)
    _take(pool, deposit_micros, ref)
    _tell(pool, "pool.opened", deposit=money.render(deposit_micros))


def topped_up(pool: Pool, *, amount_micros: int, ref: str) -> None:
    """Mirror PoolToppedUp."""
    _take(pool, amount_micros, ref)
    _tell(pool, "pool.topped_up", amount=money.render(amount_micros))


def waits(pool: Pool, *, amount_micros: int, ref: str) -> None:
    """Tell that a deposit is mined, and why its pool does not have it yet."""
    _tell(pool, "pool.deposit_waiting", amount=money.render(amount_micros), tx=_tx(ref), reason=WAITS)


def lock(pool_ids: Collection[UUID]) -> None:
    """Lock what pools spend from, before anything else of a database transaction that may halt them."""
    pools.lock_spending(Account.objects.filter(pool__in=pool_ids))


def unbacked(pool: Pool, *, amount_micros: int, ref: str, now: datetime) -> None:
    """Halt a pool whose deposit was taken and is not on the chain any more: what it has is spent no further.

    The caller holds `lock`. When this is committed, nothing is under way any more.
    """
    halted = Pool.objects.filter(pk=pool.pk, unbacked_at=None)
    halted.update(unbacked_at=now, frozen_at=Coalesce("frozen_at", Value(now)))
    _tell(pool, "pool.unbacked", amount=money.render(amount_micros), tx=_tx(ref))


def backed(pool: Pool, *, amount_micros: int, ref: str) -> None:
    """Let a pool go on whose deposits are all on the chain again; one that its payer has frozen stays so."""
    own = Case(When(~Q(frozen_at=F("unbacked_at")), then=F("frozen_at")), default=None)
    if Pool.objects.filter(pk=pool.pk, unbacked_at__isnull=False).update(unbacked_at=None, frozen_at=own):
        _tell(pool, "pool.backed", amount=money.render(amount_micros), tx=_tx(ref))


@transaction.atomic
def authorizer_leaves(pool: Pool, *, next: str, at: datetime) -> None:
    """Mirror AuthorizerChangeRequested: the payer has named another key than ours, past us.

    Batches that we sign land until the change is applied and not after, so the pool takes no more spending from now on,
    and what it owes settles at once. A request that the payer takes back does not open it again.
    """
    if pool.status == Status.OPEN and next != (pool.terms or {}).get("authorizer"):
        pools.close(pool=pool, now=at)
        _tell(pool, "pool.authorizer_changing", next=next)


def _take(pool: Pool, micros: int, ref: str) -> None:
    ledger.post([Move(ledger.world(pool), ledger.free(pool), micros, Reason.DEPOSIT, ref)])


def _tx(ref: str) -> str:
    return ref.partition(":")[0]


def _tell(pool: Pool, type: str, **payload: object) -> None:
    events.record(type=type, subject_type="pool", subject_id=pool.pk, payload=payload, pool=pool)
