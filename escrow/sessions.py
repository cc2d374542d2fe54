"""Sessions: spending accounts inside a pool, or inside another session. Lives here: opening, topping up, pausing, closing, and
changing a policy. Whether one may spend is `escrow.authorisation`'s to ask, what it has left `escrow.budgets`' to say.
"""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from django.db import transaction

from escrow import budgets, events, families, ledger, lifecycle, money, policy, verdicts
from escrow.errors import NotFound, StateConflict
from escrow.ledger import Move
from escrow.models import Account, Pool, Reason, Session, SessionPolicy
from escrow.policy import Policy

Status = Session.Status
_NOTHING_LEFT: Final = "Its parent's policy allows nothing of its own any more."


def require_open(pool: Pool, now: datetime, *more: Pool.Status) -> None:
    """Return when a pool takes new spending; with `more`, what is left to do in those statuses also. Raises StateConflict."""
    if pool.status not in (Pool.Status.OPEN, *more):
        raise verdicts.not_open("pool", pool.status)
    if now >= pool.expires_at:
        raise verdicts.not_open("pool", "expired")
    if pool.frozen_at is not None:
        raise verdicts.not_open("pool", "frozen")


def require_spending(session: Session, now: datetime) -> None:
    """Return when a session and its pool take new spending. Raises StateConflict when they do not."""
    require_open(session.pool, now)
    _require(session, now, Status.OPEN)


def timer(pool: Pool, seconds: int, now: datetime) -> datetime:
    """Return when a time of waiting ends: after so many seconds, and no later than half of the pool's remaining life.

    So a chain of timers always leaves time to settle what it ends in, however short the pool's life is.
    """
    return now + min(timedelta(seconds=seconds), (pool.expires_at - now) / 2)


@transaction.atomic
def open(
    *,
    pool: Pool,
    budget_micros: int,
    policy: Policy,
    now: datetime,
    name: str = "",
    expires_at: datetime | None = None,
) -> Session:
    """Open a session with a budget from its pool. Raises InsufficientFunds or StateConflict."""
    free = ledger.lock([ledger.free(pool)]).popitem()[1]
    pool.refresh_from_db()
    require_open(pool, now)
    ledger.require(free, budget_micros, "The pool")
    return _open(free, pool, budget_micros, policy, name, expires_at)


@transaction.atomic
def open_child(
    *,
    parent: Session,
    budget_micros: int,
    policy: Policy,
    now: datetime,
    name: str = "",
    expires_at: datetime | None = None,
) -> Session:
    """Open a session inside another, with a budget of its money, under at most its policy, for at most its time.

    Of the limits over time it has shares, so that sessions inside one never spend more together than it might alone.
    Raises InvalidPolicy, PolicyDenied, InsufficientFunds or StateConflict.
    """
    source = ledger.lock([parent.account]).popitem()[1]
    parent = reread(parent.pk)
    require_spending(parent, now)
    families.require_room(parent, now)
    narrowed(policy, parent)
    ledger.require(source, budget_micros, "The session")
    effective = narrowed(budgets.share(policy, parent, budget_micros=budget_micros, now=now), parent)
    end = min(filter(None, [expires_at, parent.expires_at]), default=None)
    return _open(source, parent.pool, budget_micros, effective, name, end, parent)


def narrowed(asked: Policy, parent: Session) -> Policy:
    """Return what a session inside another may do of what was asked for it. Raises InvalidPolicy when that is more."""
    return policy.narrow(asked, Policy.from_document(parent.policy))


@transaction.atomic
def top_up(*, session: Session, amount_micros: int, now: datetime) -> Session:
    """Move more money into a session, from its pool or from the session it is in.

    Raises InsufficientFunds, PolicyDenied or StateConflict.
    """
    parent = session.parent
    source = parent.account if parent is not None else ledger.free(session.pool)
    from_ = ledger.lock([source, session.account])[source.pk]
    session = reread(session.pk)
    require_open(session.pool, now)
    _require(session, now, Status.OPEN, Status.PAUSED)
    if session.parent_id is not None:
        parent = reread(session.parent_id)
        require_spending(parent, now)
        budgets.require_top_up(parent, amount_micros, now)
    ledger.require(from_, amount_micros, "The pool" if parent is None else "The session it is in")
    ledger.post([Move(source, session.account, amount_micros, Reason.SESSION_TOP_UP, str(uuid4()))])
    _mark(session)
    _tell(session, "session.topped_up", {"amount": money.render(amount_micros)})
    return session


@transaction.atomic
def pause(*, session: Session, now: datetime, reason: str = "") -> Session:
    """Let a session and those inside it spend no more until they are resumed. Money on hold stays on hold."""
    _, below = families.lock(session)
    session = reread(session.pk)
    if session.status == Status.PAUSED:
        return session
    _require(session, now, Status.OPEN)
    for each in [session, *below]:
        if each.status == Status.OPEN:
            lifecycle.move(each, Status.PAUSED)
            _tell(each, "session.paused", {"reason": reason})
    return session


@transaction.atomic
def resume(*, session: Session, now: datetime) -> Session:
    """Let a paused session and those inside it spend again, each under no more than the policy of the one that it is in.

    One that is allowed nothing by that stays paused. Raises StateConflict for such a one, and while one above it is paused.
    """
    _, below = families.lock(session)
    session = reread(session.pk)
    if session.status == Status.OPEN:
        return session
    _require(session, now, Status.PAUSED)
    if any(parent.status == Status.PAUSED for parent in families.above(session)):
        raise StateConflict("session", "paused", "The session that it is in is paused; resume that one.")
    stopped: set[UUID | None] = set()
    for each in [session, *below]:
        if each.parent_id in stopped or not _held_to_parent(each):
            stopped.add(each.pk)
        elif each.status == Status.PAUSED:
            lifecycle.move(each, Status.OPEN)
            _tell(each, "session.resumed", {})
    if session.pk in stopped:
        raise StateConflict("session", "paused", f"{_NOTHING_LEFT} Close it and open another one.")
    return session


@transaction.atomic
def close(*, session: Session, now: datetime) -> Session:
    """End a session and those inside it; what they have left goes back to where it came from.

    Money on hold stays held, and goes back later.
    """
    _, below = families.lock(session)
    session = reread(session.pk)
    if session.status == Status.CLOSED:
        return session
    for each in [*reversed(below), session]:  # what one gives back is then given back with the one that it is in
        lifecycle.move(each, Status.CLOSED, closed_at=now)
        left = ledger.balance(each.account)
        ledger.post([Move(each.account, families.return_account(each), left, Reason.SESSION_CLOSE, str(each.pk))])
        _tell(each, "session.closed", {"returned": money.render(left)})
    return session


@transaction.atomic
def change_policy(*, session: Session, policy: Policy, now: datetime) -> Session:
    """Put a new version of a session's policy into force; the sessions inside it are held to it at once.

    One inside it that would be allowed nothing any more is paused. Raises InvalidPolicy or StateConflict.
    """
    families.lock(session)
    session = reread(session.pk)
    _require(session, now, Status.OPEN, Status.PAUSED)
    if session.parent_id is not None:
        parent = reread(session.parent_id)
        policy = narrowed(budgets.reshare(policy, session, parent, now), parent)
    _renew(session, policy)
    _hold_to(session, policy, now)
    return session


def reread(session_id: UUID) -> Session:
    """Return a session as it is now, with its pool, account and parent. Raises NotFound."""
    try:
        return Session.objects.select_related("pool", "account", "parent__account").get(pk=session_id)
    except Session.DoesNotExist:
        raise NotFound("There is no such session.") from None


def close_expired(*, now: datetime, limit: int) -> int:
    """Close sessions whose time is over, so that what they have left is free again; return how many."""
    over = Session.objects.exclude(status=Status.CLOSED).filter(expires_at__lte=now)
    related = over.select_related("pool", "account").order_by("expires_at")
    return lifecycle.sweep(
        related, lambda session: close(session=session, now=now), name="expired-sessions", limit=limit
    )


def _open(
    source: Account,
    pool: Pool,
    budget_micros: int,
    limits: Policy,
    name: str,
    expires_at: datetime | None,
    parent: Session | None = None,
) -> Session:
    session_id = uuid4()
    account = ledger.open_account(Account.Kind.SESSION, pool=pool, subject=session_id)
    session = Session.objects.create(
        id=session_id,
        pool=pool,
        parent=parent,
        account=account,
        name=name,
        policy=limits.to_document(),
        checkpoints_micros=budgets.thresholds(limits, budget_micros),
        expires_at=expires_at,
    )
    SessionPolicy.objects.create(session=session, version=session.policy_version, policy=session.policy)
    ledger.post([Move(source, account, budget_micros, Reason.SESSION_OPEN, str(session_id))])
    _tell(session, "session.opened", {"budget": money.render(budget_micros)})
    return session


def _hold_to(parent: Session, limits: Policy | None, now: datetime) -> None:
    """Hold the sessions inside one to its policy; what is inside of one that is allowed nothing is allowed nothing either.

    At every depth the shares of those inside must be within the limits over time. Raises InvalidPolicy when they are not.
    """
    for child in parent.children.exclude(status=Status.CLOSED).select_related("pool", "account"):
        own = Policy.from_document(child.policy)
        held = None if limits is None else policy.tightened(own, limits)
        if held is None:
            if child.status == Status.OPEN:
                lifecycle.move(child, Status.PAUSED)
                _tell(child, "session.paused", {"reason": _NOTHING_LEFT})
        elif held != own:
            _renew(child, held)
        _hold_to(child, held, now)
    if limits is not None:
        budgets.require_shares(parent, limits, now)


def _held_to_parent(session: Session) -> bool:
    """Hold a session to the policy of the one that it is in; return whether that leaves it anything."""
    if session.parent_id is None:
        return True
    own, limits = (Policy.from_document(each.policy) for each in (session, reread(session.parent_id)))
    held = policy.tightened(own, limits)
    if held is not None and held != own:
        _renew(session, held)
    return held is not None


def _renew(session: Session, limits: Policy) -> None:
    session.policy, session.policy_version = limits.to_document(), session.policy_version + 1
    session.save(update_fields=["policy", "policy_version"])
    SessionPolicy.objects.create(session=session, version=session.policy_version, policy=session.policy)
    _mark(session)
    _tell(session, "session.policy_changed", {"version": session.policy_version})


def _mark(session: Session) -> None:
    """Reckon what is left at each checkpoint anew."""
    marks = budgets.thresholds(Policy.from_document(session.policy), ledger.budget_of(session.account))
    Session.objects.filter(pk=session.pk).update(checkpoints_micros=marks)


def _require(session: Session, now: datetime, *statuses: str) -> None:
    if session.status not in statuses:
        raise verdicts.not_open("session", session.status)
    if session.expires_at is not None and now >= session.expires_at:
        raise verdicts.not_open("session", "expired")


def _tell(session: Session, type: str, payload: dict[str, object]) -> None:
    events.record(type=type, subject_type="session", subject_id=session.pk, payload=payload, pool=session.pool)
