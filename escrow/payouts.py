"""Payouts: what the contract has credited to a party goes to its address. Lives here: planning them and mirroring them."""

from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import (
    DateTimeField,
    DurationField,
    Exists,
    ExpressionWrapper,
    F,
    OuterRef,
    QuerySet,
    Subquery,
    Sum,
)
from django.db.models.functions import Coalesce

from escrow import crashpoints, events, intents, ledger, lifecycle, money
from escrow.ledger import Move
from escrow.models import Account, ChainAction, Party, Pool, Reason, Transfer

Kind = Account.Kind


def pay_due(*, now: datetime, limit: int) -> int:
    """Plan a withdrawal for each credit whose hold window has ended; return how many were planned."""
    planned = lifecycle.sweep(_matured(now), _plan, name="payouts", limit=limit)
    crashpoints.reach("payout.planned")
    return planned


def _plan(account: Account) -> bool:
    pool, party = account.pool, account.party
    if pool is None or party is None:
        raise ValueError(f"{account} is credited to nobody")
    done = Transfer.objects.filter(sender=account, reason=Reason.PAYOUT).count()
    key = f"withdraw:{pool.pk}:{party.pk}:{done}"
    params = {"payouts_before": done}
    action = intents.record(ChainAction.Kind.WITHDRAW, dedupe_key=key, pool=pool, subject_id=party.pk, params=params)
    return action.status == ChainAction.Status.PLANNED


def pay_fees(*, now: datetime) -> bool:
    """Plan the payout of the market's fees once they are worth a chain transaction; return whether it was planned."""
    fees = ledger.fees()
    if fees.balance_micros < settings.FEE_PAYOUT_MIN_MICROS:
        return False
    done = Transfer.objects.filter(sender=fees, reason=Reason.FEE_PAYOUT).count()
    intents.record(ChainAction.Kind.WITHDRAW_FEES, dedupe_key=f"withdraw_fees:{done}", pool=None)
    return True


def withdrawn(pool: Pool, party: Party, *, net_micros: int, fee_micros: int, ref: str) -> None:
    """Mirror Withdrawn: the party has its money, the fee stays in the contract until it is paid out."""
    credited = ledger.credited(pool, party)
    ledger.post(
        [
            Move(credited, ledger.world(pool), net_micros, Reason.PAYOUT, ref),
            Move(credited, ledger.fees(), fee_micros, Reason.FEE, ref),
        ]
    )
    payload = {"pool_id": str(pool.pk), "amount": money.render(net_micros), "fee": money.render(fee_micros)}
    events.record(type="payout.sent", subject_type="pool", subject_id=pool.pk, payload=payload, pool=pool, party=party)


def foreign_fee(*, fee_micros: int, ref: str) -> None:
    """Mirror the fee of somebody else's pool: the contract keeps it with ours, and pays them out together."""
    ledger.post([Move(_market(), ledger.fees(), fee_micros, Reason.FEE, ref)])


def fees_withdrawn(*, amount_micros: int, ref: str) -> None:
    """Mirror FeesWithdrawn."""
    ledger.post([Move(ledger.fees(), _market(), amount_micros, Reason.FEE_PAYOUT, ref)])


def _market() -> Account:
    return ledger.open_account(Kind.WORLD, pool=None, subject="market")


def _matured(now: datetime) -> "QuerySet[Account]":
    """Return credited accounts with something in them that came in two whole hold windows ago or earlier.

    The contract lets a credit go after one to two windows; after two it certainly does. What has left since is taken
    from the oldest first, as the contract does. Those whose last withdrawal was parked come last, so that they keep
    nobody waiting.
    """
    windows = ExpressionWrapper(
        F("receiver__pool__dispute_window_seconds") * timedelta(seconds=2), output_field=DurationField()
    )
    ripe = (
        Transfer.objects.filter(receiver=OuterRef("pk"))
        .exclude(reason=Reason.PAYMENT)  # none comes to such an account; said for the index that leaves payments out
        .annotate(ripe_at=ExpressionWrapper(F("created_at") + windows, output_field=DateTimeField()))
        .filter(ripe_at__lte=now)
        .order_by()
        .values("receiver")
        .annotate(micros=Sum("amount_micros"))
        .values("micros")
    )
    moving = ChainAction.objects.filter(
        kind=ChainAction.Kind.WITHDRAW, pool=OuterRef("pool"), subject_id=OuterRef("party")
    ).exclude(status__in=ChainAction.ENDED)
    full = Account.objects.filter(kind=Kind.CREDITED, received_micros__gt=F("sent_micros"))
    due = full.annotate(ripe_micros=Coalesce(Subquery(ripe), 0)).filter(ripe_micros__gt=F("sent_micros"))
    stuck = ChainAction.objects.filter(
        kind=ChainAction.Kind.WITHDRAW,
        pool=OuterRef("pool"),
        subject_id=OuterRef("party"),
        status=ChainAction.Status.PARKED,
    )
    return due.filter(~Exists(moving)).select_related("pool", "party").order_by(Exists(stuck), "pk")
