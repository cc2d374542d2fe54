"""The sandbox: an account without a pool gets one, with test money. Lives here: giving it, once for each payer.

Only where `settings.SANDBOX` is on, which it cannot be where money is real. The relay mints the grant on chain before it opens
the pool with it; the ledger learns of it as of any deposit, from the chain.
"""

from datetime import datetime
from functools import partial
from uuid import UUID

from django.conf import settings
from django.db import transaction

from escrow import intents, money, pools
from escrow.errors import PoolOpening
from escrow.models import ChainAction, Grant, Pool

Kind = ChainAction.Kind
Status = ChainAction.Status


def require_pool(*, payer_id: UUID, now: datetime) -> None:
    """Return when a payer needs no grant to open a session, or gets none.

    Raises PoolOpening while its pool is being opened. The first such refusal records the opening, once the database
    transaction that it ends is over (`EscrowError.afterwards`). Raises StateConflict when the payer has frozen its spending.
    """
    if not settings.SANDBOX:
        return
    granted = Pool.objects.filter(grant__payer_id=payer_id).first()
    others = Pool.objects.filter(payer_id=payer_id, grant=None).exclude(status=Pool.Status.FAILED)
    if others.exists() or (granted is not None and granted.status not in (Pool.Status.OPENING, Pool.Status.FAILED)):
        return
    pools.require_unfrozen(payer_id)
    again = f" The last opening failed: {granted.reason}" if granted and granted.status == Pool.Status.FAILED else ""
    grant = money.render(settings.SANDBOX_GRANT_MICROS)
    refusal = PoolOpening(
        "pool", "opening", f"A pool with a grant of {grant} test USDC is being opened; repeat the request.{again}"
    )
    if granted is None or granted.status == Pool.Status.FAILED:
        refusal.afterwards = partial(give, payer_id=payer_id, now=now)
    raise refusal


@transaction.atomic
def give(*, payer_id: UUID, now: datetime) -> Pool | None:
    """Record the opening of a payer's pool with its grant, unless that is recorded; None when it has other pools.

    Of any number at once, one records it. The money is minted once: an opening that failed is tried again with it.
    """
    Grant.objects.get_or_create(payer_id=payer_id, defaults={"amount_micros": settings.SANDBOX_GRANT_MICROS})
    grant = Grant.objects.select_for_update(no_key=True, of=("self",)).select_related("pool").get(pk=payer_id)
    if grant.pool is not None and grant.pool.status != Pool.Status.FAILED:
        return grant.pool
    if Pool.objects.filter(payer_id=payer_id).exclude(status=Pool.Status.FAILED).exists():
        return None
    # Recorded first, so that it is sent first: the opening takes what was minted.
    minted = ChainAction.objects.filter(kind=Kind.MINT, subject_id=payer_id)
    if not minted.exclude(status__in=[Status.REVERTED, Status.PARKED, Status.DROPPED]).exists():
        params = {"amount_micros": grant.amount_micros}
        key = f"grant:{payer_id}:{minted.count()}"
        intents.record(Kind.MINT, dedupe_key=key, pool=None, subject_id=payer_id, params=params)
    grant.pool = pools.open(payer_id=payer_id, deposit_micros=grant.amount_micros, now=now)
    grant.save(update_fields=["pool"])
    return grant.pool


def minting_failed(payer_id: UUID, *, reason: str) -> None:
    """Give up on the pool that was to be opened with a grant which the chain refused. The next request tries again."""
    pool = Pool.objects.filter(grant__payer_id=payer_id).first()
    if pool is not None:
        pools.opening_failed(pool, reason=reason)
