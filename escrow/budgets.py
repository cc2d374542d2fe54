"""What a session was given, has spent, has set aside and has left. Lives here: reading it off the ledger,
and sharing limits over time with the sessions inside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, cast
from uuid import UUID

from django.db import connection
from django.db.models import Case, F, Q, Sum, When

from escrow import ledger, limits, money, policy
from escrow.errors import InvalidPolicy, PolicyDenied
from escrow.limits import AMOUNTS
from escrow.models import Account, Hold, Payment, Reason, Session, Transfer
from escrow.policy import Policy

SHARED: Final = {
    "max_per_hour": timedelta(hours=1),
    "max_per_day": timedelta(days=1),
    "max_tx_per_minute": timedelta(minutes=1),
}
"""Limits over time of which those inside a session have shares, and over what time; in the order of `escrow_counts`."""

_COUNTS: Final = "SELECT total, hour, day, minute FROM escrow_counts(%s, %s)"


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
    held = _held([session.pk])
    delegated = _delegated(session)
    remaining = session.account.balance_micros
    is_closed = session.status == Session.Status.CLOSED
    spent = _owed([session.pk]) if is_closed else budget - remaining - held - delegated
    return SessionBalances(budget=budget, spent=spent, held=held, remaining=remaining, delegated=delegated)


def share(asked: Policy, parent: Session, *, budget_micros: int, now: datetime) -> Policy:
    """Return what a session inside another may spend over time: its share of each limit that its parent has.

    Left out, the share of an amount is the budget or what is left, and of payments a minute half of what is left. The
    caller has locked the parent's account. Raises PolicyDenied when the parent has less than that.
    """
    counted = _counts(parent, now)
    _require(parent, "max_total", counted, budget_micros)
    shares: dict[str, Any] = {}
    for rule in SHARED:
        limit = limit_of(parent, rule)
        if limit is None:
            continue
        left = max(limit - counted[rule], 0)
        usual = min(budget_micros, left) if rule in AMOUNTS else left // 2
        shares[rule] = getattr(asked, rule) or max(usual, 1)
        _require(parent, rule, counted, shares[rule])
    return replace(asked, **shares)


def reshare(asked: Policy, child: Session, parent: Session, now: datetime) -> Policy:
    """Return another policy of a session inside another: its shares are as they were, unless it asks for others."""
    counted = _counts(parent, now)
    own = Policy.from_document(child.policy)
    shares: dict[str, Any] = {}
    for rule in SHARED:
        if limit_of(parent, rule) is not None:
            before = getattr(own, rule) or 0
            shares[rule] = getattr(asked, rule) or before
            _require(parent, rule, counted, shares[rule] - before)
    return replace(asked, **shares)


def require_top_up(parent: Session, amount_micros: int, now: datetime) -> None:
    """Return when a session may hand on more of its budget. Raises PolicyDenied."""
    _require(parent, "max_total", _counts(parent, now), amount_micros)


def require_shares(parent: Session, asked: Policy, now: datetime) -> None:
    """Return when a policy leaves those inside a session the shares that they have. Raises InvalidPolicy."""
    for rule, span in SHARED.items():
        limit = getattr(asked, rule)
        alive = parent.children.filter(Q(closed_at__isnull=True) | Q(closed_at__gt=now - span))
        lent = sum(limit_of(child, rule) or 0 for child in alive)
        if limit is not None and lent > limit:
            least = money.render(lent) if rule in AMOUNTS else str(lent)
            raise InvalidPolicy(
                f"policy.{rule}",
                f"must be at least the {least} that the sessions inside may spend",
                f'"{least}" or more',
            )


def limit_of(session: Session, rule: str) -> int | None:
    """Return a limit over time of a session, in micro-USDC or payments a minute."""
    column = f"{rule}_micros" if rule in AMOUNTS else rule
    return cast("int | None", getattr(session, column))


def _counts(session: Session, now: datetime) -> dict[str, int]:
    with connection.cursor() as cursor:
        cursor.execute(_COUNTS, [session.account_id, now])
        return dict(zip(("max_total", *SHARED), cursor.fetchone(), strict=True))


def _require(session: Session, rule: str, counted: Mapping[str, int], more: int) -> None:
    limit = limit_of(session, rule)
    if limit is None or counted[rule] + more <= limit:
        return
    if rule == "max_tx_per_minute":
        left = max(limit - counted[rule], 0)
        detail = f"{more} payments a minute would pass the limit of {limit}; {left} are left to share."
        raise PolicyDenied(rule, detail, limit=limit, would_allow=str(left), spent=str(counted[rule]))
    raise policy.exceeded(rule, limit=limit, spent=counted[rule], amount_micros=more)


def thresholds(asked: Policy, budget_micros: int) -> list[int]:
    """Return what a session has left when it passes each checkpoint of its policy, in the order of the checkpoints."""
    return [budget_micros - money.share(budget_micros, share) for share in asked.checkpoint_at or limits.CHECKPOINTS]


def _delegated(session: Session) -> int:
    """Return what the sessions inside one have not given back to it. Its cost in queries does not grow with their number."""
    inside = dict(session.children.values_list("pk", "status"))
    ended = [pk for pk, status in inside.items() if status == Session.Status.CLOSED]
    given = Transfer.objects.filter(
        receiver__session__parent=session, reason__in=[Reason.SESSION_OPEN, Reason.SESSION_TOP_UP]
    ).exclude(receiver__session__in=ended)
    open_ones = given.aggregate(s=Sum("amount_micros"))["s"] or 0 if len(ended) < len(inside) else 0
    level = ended
    while level:  # what is inside a closed one is closed too
        level = list(Session.objects.filter(parent__in=level).values_list("pk", flat=True))
        ended += level
    return open_ones + (_owed(ended) + _held(ended) if ended else 0)


def _held(sessions: Sequence[UUID]) -> int:
    held = Account.objects.filter(hold__session__in=sessions, hold__status=Hold.Status.HELD)
    return held.aggregate(s=Sum(F("received_micros") - F("sent_micros")))["s"] or 0


def _owed(sessions: Sequence[UUID]) -> int:
    """Return what closed sessions have spent: what did not come back of their debts, and what is in dispute."""
    # A disputed debt is in its dispute's account and then in its ruling, but for what had paid for other refunds before.
    kept = Case(
        When(status=Payment.Status.DISPUTED, then=F("deducted_micros") - F("refunded_micros")),
        default=F("amount_micros") - F("refunded_micros"),
    )
    debts = Payment.objects.filter(session__in=sessions).aggregate(s=Sum(kept))["s"] or 0
    waiting = Account.objects.filter(kind=Account.Kind.DISPUTE, dispute__session__in=sessions)
    return debts + (waiting.aggregate(s=Sum(F("received_micros") - F("sent_micros")))["s"] or 0)
