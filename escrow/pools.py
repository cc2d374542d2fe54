"""Pools: budgets that the contract holds. Lives here: opening, topping up, freezing, closing, and mirroring their end.

A pool's money is never taken from a request: it appears in the ledger when the indexer has seen it on chain (funding).
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction
from django.db.models import DateTimeField, DurationField, ExpressionWrapper, F, Min, Q, QuerySet, Sum

from escrow import events, intents, ledger, lifecycle, money, payments, sessions, verdicts
from escrow.errors import InvalidInput
from escrow.ledger import Move
from escrow.models import Account, Batch, ChainAction, Party, Pool, PoolProvider, Reason, Session, Transfer

Kind = Account.Kind

MAX_PROVIDERS = 200
"""On an opening allow-list: each costs gas, and the call must fit into one chain transaction."""


@dataclass(frozen=True, slots=True)
class PoolBalances:
    """Where the money of a pool is, and where it went, in micro-USDC. The first is the sum of all the others."""

    deposited: int
    available: int
    in_sessions: int
    held: int
    payable: int
    settling: int
    credited: int
    disputed: int
    withdrawn: int
    fees: int
    reclaimed: int


@transaction.atomic
def open(
    *,
    payer_id: UUID,
    deposit_micros: int,
    now: datetime,
    expires_in: timedelta | None = None,
    providers: Sequence[Party] = (),
    dispute_window_seconds: int | None = None,
) -> Pool:
    """Ask for a pool with a deposit. It is OPENING until the chain has the money. Raises InvalidInput."""
    require_unfrozen(payer_id)
    lifetime = expires_in or timedelta(seconds=settings.POOL_EXPIRY)
    window = settings.DISPUTE_WINDOW if dispute_window_seconds is None else dispute_window_seconds
    distinct = {party.pk: party for party in providers}
    _check_terms(lifetime, window, len(distinct))
    payments.require_payable_amount(deposit_micros)
    pool = Pool.objects.create(
        payer_id=payer_id,
        chain_id=settings.CHAIN_ID,
        contract_address=settings.ESCROW_ADDRESS,
        requested_micros=deposit_micros,
        salt=f"0x{secrets.token_hex(32)}",
        fee_bps=settings.FEE_BPS,
        dispute_window_seconds=window,
        close_delay_seconds=settings.CLOSE_DELAY,
        expires_at=now + lifetime,
    )
    PoolProvider.objects.bulk_create(PoolProvider(pool=pool, party=party, initial=True) for party in distinct.values())
    intents.record(ChainAction.Kind.OPEN_POOL, dedupe_key=f"open_pool:{pool.pk}", pool=pool)
    _tell(pool, "pool.requested", deposit=money.render(deposit_micros))
    return pool


@transaction.atomic
def top_up(*, pool: Pool, amount_micros: int, now: datetime) -> ChainAction:
    """Ask for a further deposit into an open pool. Raises StateConflict or InvalidInput."""
    payments.require_payable_amount(amount_micros)
    sessions.require_open(_locked(pool), now)
    params = {"amount_micros": amount_micros, "salt": f"0x{secrets.token_hex(32)}"}
    return intents.record(ChainAction.Kind.TOP_UP, dedupe_key=f"top_up:{uuid4()}", pool=pool, params=params)


@transaction.atomic
def close(*, pool: Pool, now: datetime) -> Pool:
    """Take no more spending: sessions end now, what is owed lands on chain, and then the rest goes back to the payer."""
    # The pool's own account is older than its sessions', so this is still primary-key order; and while it is locked no
    # session can open that the list would miss.
    ledger.lock([ledger.free(pool)])
    open_sessions = list(
        Session.objects.filter(pool=pool).exclude(status=Session.Status.CLOSED).select_related("account", "pool")
    )
    ledger.lock(session.account for session in open_sessions)
    pool = _locked(pool)
    if pool.status in (Pool.Status.CLOSING, Pool.Status.CLOSED):
        return pool
    lifecycle.move(pool, Pool.Status.CLOSING)
    for session in open_sessions:
        sessions.close(session=session, now=now)
    _tell(pool, "pool.closing")
    return pool


def freeze(*, payer_id: UUID, reason: str, now: datetime) -> list[Pool]:
    """Let nothing new be spent from any pool of a payer; return the pools. When it returns, nothing is under way any more.

    What is owed still settles, and what was set aside before is still claimed by whoever earned it.
    """
    return _set_frozen(payer_id, now, "pool.frozen", reason)


def unfreeze(*, payer_id: UUID) -> list[Pool]:
    """Let all pools of a payer spend again; return the pools."""
    return _set_frozen(payer_id, None, "pool.unfrozen", "")


@transaction.atomic
def _set_frozen(payer_id: UUID, frozen_at: datetime | None, told: str, reason: str) -> list[Pool]:
    lock_spending(Account.objects.filter(pool__payer_id=payer_id))
    pools = list(Pool.objects.filter(payer_id=payer_id).exclude(status__in=[Pool.Status.CLOSED, Pool.Status.FAILED]))
    for pool in pools:
        if pool.frozen_by_payer != bool(frozen_at):
            pool.frozen_at = frozen_at or pool.unbacked_at  # what no deposit backs is not the payer's to let go
            pool.save(update_fields=["frozen_at"])
            _tell(pool, told, reason=reason)
    return pools


def lock_spending(accounts: "QuerySet[Account]") -> None:
    """Lock all of some accounts that money is spent from: whoever spends holds one, and looks at the pool only then.

    A session that opened while this waited is locked too. No other can open then: what its money would come from is locked.
    """
    mine = accounts.filter(kind__in=[Kind.POOL, Kind.SESSION])
    locked: dict[int, Account] = {}
    while late := [each for each in mine.exclude(session__status=Session.Status.CLOSED) if each.pk not in locked]:
        locked |= ledger.lock(late)


def frozen_since(payer_id: UUID) -> datetime | None:
    """Return since when a payer has frozen its spending; none when it has not."""
    pools = Pool.objects.filter(payer_id=payer_id).exclude(status=Pool.Status.CLOSED)
    since: datetime | None = pools.exclude(frozen_at=F("unbacked_at")).aggregate(at=Min("frozen_at"))["at"]
    return since


def require_unfrozen(payer_id: UUID) -> None:
    """Return when a payer has not frozen its spending. Raises StateConflict."""
    if frozen_since(payer_id) is not None:
        raise verdicts.not_open("pool", "frozen")


def balances(pool: Pool) -> PoolBalances:
    """Return where the money of a pool is, and where it went."""
    held = ledger.balances_by_kind(pool)
    world = Transfer.objects.filter(
        Q(sender__pool=pool, sender__kind=Kind.WORLD) | Q(receiver__pool=pool, receiver__kind=Kind.WORLD)
    )
    moved = dict(world.values_list("reason").annotate(total=Sum("amount_micros")))
    kept = Transfer.objects.filter(sender__pool=pool, sender__kind=Kind.CREDITED, reason=Reason.FEE)
    return PoolBalances(
        deposited=int(moved.get(Reason.DEPOSIT, 0)),
        available=held.get(Kind.POOL, 0),
        in_sessions=held.get(Kind.SESSION, 0),
        held=held.get(Kind.HOLD, 0),
        payable=held.get(Kind.PAYABLE, 0),
        settling=held.get(Kind.SETTLING, 0),
        credited=held.get(Kind.CREDITED, 0),
        disputed=held.get(Kind.DISPUTE, 0) + held.get(Kind.CONTESTED, 0),
        withdrawn=int(moved.get(Reason.PAYOUT, 0)),
        fees=int(kept.aggregate(total=Sum("amount_micros"))["total"] or 0),
        reclaimed=int(moved.get(Reason.RECLAIM, 0)),
    )


def close_due(*, now: datetime, limit: int) -> int:
    """Take the next step of every pool on its way out; return how many steps were taken.

    Pools near their expiry are closed so early that every timer of an invoice or a dispute can end before it.
    """
    ending = _near_expiry(now)
    steps = lifecycle.sweep(ending, lambda pool: close(pool=pool, now=now), name="expiring-pools", limit=limit)
    leaving = Pool.objects.filter(status__in=[Pool.Status.CLOSING, Pool.Status.CLOSED], pool_key__isnull=False)
    owed_back = Q(accounts__kind=Kind.POOL, accounts__received_micros__gt=F("accounts__sent_micros"))
    going = leaving.filter(Q(status=Pool.Status.CLOSING) | owed_back).distinct().order_by("expires_at")
    return steps + lifecycle.sweep(going, lambda pool: _step_out(pool, now), name="closing-pools", limit=limit)


def bind(pool: Pool, *, terms: Mapping[str, object], pool_key: str, payer_address: str) -> None:
    """Fix the terms that the payer's key is about to sign; a second call with other terms changes nothing."""
    Pool.objects.filter(pk=pool.pk, pool_key__isnull=True).update(
        terms=dict(terms), pool_key=pool_key, payer_address=payer_address
    )
    pool.refresh_from_db()


@transaction.atomic
def opening_failed(pool: Pool, *, reason: str) -> None:
    """Give up on a pool that the chain never opened: it holds no money."""
    pool = _locked(pool)
    if pool.status == Pool.Status.OPENING:
        lifecycle.move(pool, Pool.Status.FAILED, reason=reason)
        _tell(pool, "pool.failed", reason=reason)


def top_up_failed(pool: Pool, *, amount_micros: int, reason: str) -> None:
    """Tell the payer that the chain did not take a further deposit: the money is where it was."""
    _tell(pool, "pool.top_up_failed", amount=money.render(amount_micros), reason=reason)


def providers_allowed(pool: Pool, *, addresses: Sequence[str], at: datetime) -> None:
    """Mirror ProvidersAllowed."""
    PoolProvider.objects.filter(pool=pool, party__address__in=addresses).update(allowed_at=at)


def close_requested(pool: Pool, *, reclaimable_at: datetime, at: datetime) -> None:
    """Mirror CloseRequested. A payer may do it past us, so the pool stops taking spending here too."""
    if pool.status == Pool.Status.OPEN:
        close(pool=pool, now=at)  # accounts before the pool's row, as everywhere
    Pool.objects.filter(pk=pool.pk).update(close_requested_at=at, reclaimable_at=reclaimable_at)


def reclaimed(pool: Pool, *, amount_micros: int, ref: str, at: datetime) -> None:
    """Mirror Reclaimed: all that the contract had free went to the payer, wherever our ledger had it.

    After an orderly close everything is in the pool's own account. If it is not (the payer reclaimed past us, after the
    expiry), what was set aside or owed and never landed is swept with it, because the chain decides.
    """
    inside = list(Account.objects.filter(pool=pool, kind__in=Account.IN_FREE).exclude(kind=Kind.POOL))
    free = ledger.free(pool)
    locked = ledger.lock([free, *inside])
    left = [account for account in locked.values() if account.pk != free.pk and account.balance_micros]
    ledger.post([Move(account, free, account.balance_micros, Reason.RECLAIM_SWEEP, ref) for account in left])
    ledger.post([Move(free, ledger.world(pool), amount_micros, Reason.RECLAIM, ref)])
    if pool.status != Pool.Status.CLOSED:
        lifecycle.move(pool, Pool.Status.CLOSED, closed_at=at)
    ended = Session.objects.filter(pool=pool).exclude(status=Session.Status.CLOSED)
    ended.update(status=Session.Status.CLOSED, closed_at=at)
    _tell(pool, "pool.closed", reclaimed=money.render(amount_micros), swept=[account.code for account in left])


def _step_out(pool: Pool, now: datetime) -> int:
    held = ledger.balances_by_kind(pool)
    ended = (pool.reclaimable_at or pool.expires_at) <= now
    if not ended and any(
        held.get(kind) for kind in (Kind.SESSION, Kind.HOLD, Kind.PAYABLE, Kind.SETTLING, Kind.DISPUTE)
    ):
        return 0  # somebody is still owed an answer; the timers and the settlement see to it
    if pool.close_requested_at is None and pool.expires_at > now:
        intents.record(ChainAction.Kind.REQUEST_CLOSE, dedupe_key=f"request_close:{pool.pk}", pool=pool)
        return 1
    waits = (
        pool.status == Pool.Status.CLOSING
    )  # a batch that a reclaim has overtaken lands no more, and is nobody's to void
    if not ended or (waits and Batch.objects.filter(pool=pool, status=Batch.Status.SIGNED).exists()):
        return 0
    # Past its end the contract gives all that is free to the payer, whatever was still set aside or owed.
    if any(held.get(kind) for kind in Account.IN_FREE):
        done = Transfer.objects.filter(sender=ledger.free(pool), reason=Reason.RECLAIM).count()
        intents.record(ChainAction.Kind.RECLAIM, dedupe_key=f"reclaim:{pool.pk}:{done}", pool=pool)
    elif pool.status == Pool.Status.CLOSING:
        lifecycle.move(pool, Pool.Status.CLOSED, closed_at=now)
        _tell(pool, "pool.closed", reclaimed=money.render(0), swept=[])
    return 1


def _near_expiry(now: datetime) -> "QuerySet[Pool]":
    margin = timedelta(seconds=settings.POOL_CLOSE_MARGIN)
    life = ExpressionWrapper(F("expires_at") - F("created_at"), output_field=DurationField())
    most = ExpressionWrapper(life * 0.75, output_field=DurationField())
    quarter = ExpressionWrapper(F("created_at") + most, output_field=DateTimeField())
    early = Q(expires_at__lte=now + margin) & Q(three_quarters__lte=now)
    return (
        Pool.objects.filter(status=Pool.Status.OPEN)
        .annotate(three_quarters=quarter)
        .filter(early)
        .order_by("expires_at")
    )


def _check_terms(lifetime: timedelta, window: int, providers: int) -> None:
    shortest, longest = timedelta(hours=1), timedelta(days=366)
    if not shortest <= lifetime <= longest:
        raise InvalidInput("expires_in_hours", "must be 1 to 8784", "a number of hours such as 720")
    if not 0 <= window <= 30 * 24 * 3600:
        raise InvalidInput("dispute_window_seconds", "must be 0 to 2592000", "3600")
    if providers > MAX_PROVIDERS:
        raise InvalidInput("providers", f"must name at most {MAX_PROVIDERS}", "fewer; others are added when first paid")


def _locked(pool: Pool) -> Pool:
    return Pool.objects.select_for_update(no_key=True).get(pk=pool.pk)


def _tell(pool: Pool, type: str, **payload: object) -> None:
    events.record(type=type, subject_type="pool", subject_id=pool.pk, payload=payload, pool=pool)
