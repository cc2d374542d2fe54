"""What a session was given, has spent, has set aside and has left. Lives here: reading it off the ledger."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import connection
from django.db.models import Case, F, Sum, When

from escrow import ledger, limits, money, policy
from escrow.models import Account, Hold, Payment, Session

_COUNTS: Final = "SELECT total, hour, day FROM escrow_counts(%s, %s)"


@dataclass(frozen=True, slots=True)
class SessionBalances:
    """A session's budget and where it is, in micro-USDC. ``delegated`` is with the sessions below it."""

    budget: int
    spent: int
    held: int
    remaining: int
    delegated: int = 0


def of(session: Session) -> SessionBalances:
    """Return the balances of a session, read together with its account."""
    session = Session.objects.select_related("account").get(pk=session.pk)
    budget = ledger.budget_of(session.account)
    held = _held(session)
    delegated = sum(_kept(child) for child in session.children.select_related("account"))
    remaining = session.account.balance_micros
    is_closed = session.status == Session.Status.CLOSED
    spent = _owed(session) if is_closed else budget - remaining - held - delegated
    return SessionBalances(budget=budget, spent=spent, held=held, remaining=remaining, delegated=delegated)


def require_within(session: Session, amount_micros: int, now: datetime) -> None:
    """Return when a session's limits over time leave room for an amount. Raises PolicyDenied.

    For what does not pass `escrow_judge`: a budget given to a session below. The caller has locked its account.
    """
    most = {
        "max_total": session.max_total_micros,
        "max_per_hour": session.max_per_hour_micros,
        "max_per_day": session.max_per_day_micros,
    }
    with connection.cursor() as cursor:
        cursor.execute(_COUNTS, [session.account_id, now])
        counts = dict(zip(most, cursor.fetchone(), strict=True))
    for rule, limit in most.items():
        if limit is not None and counts[rule] + amount_micros > limit:
            refusal = policy.exceeded(rule, limit=limit, spent=counts[rule], amount_micros=amount_micros)
            refusal.facts["policy_version"] = session.policy_version
            raise refusal


def thresholds(asked: policy.Policy, budget_micros: int) -> list[int]:
    """Return what a session has left when it passes each checkpoint of its policy, in the order of the checkpoints."""
    return [budget_micros - money.share(budget_micros, share) for share in asked.checkpoint_at or limits.CHECKPOINTS]


def _kept(child: Session) -> int:
    """Return what a session has not given back to the one above it."""
    if child.status != Session.Status.CLOSED:
        return ledger.budget_of(child.account)
    return _owed(child) + _held(child) + sum(_kept(below) for below in child.children.select_related("account"))


def _held(session: Session) -> int:
    holds = Hold.objects.filter(session=session, status=Hold.Status.HELD).select_related("account")
    return sum(hold.account.balance_micros for hold in holds)


def _owed(session: Session) -> int:
    """Return what a closed session has spent: what did not come back of its debts, and what is in dispute."""
    # A disputed debt is in its dispute's account and then in its ruling, but for what had paid for other refunds before.
    kept = Case(
        When(status=Payment.Status.DISPUTED, then=F("deducted_micros") - F("refunded_micros")),
        default=F("amount_micros") - F("refunded_micros"),
    )
    debts = Payment.objects.filter(session=session).aggregate(s=Sum(kept))["s"] or 0
    waiting = Account.objects.filter(kind=Account.Kind.DISPUTE, dispute__session=session)
    return debts + (waiting.aggregate(s=Sum(F("received_micros") - F("sent_micros")))["s"] or 0)
