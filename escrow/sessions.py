"""Sessions: spending accounts inside a pool. Lives here: opening, topping up, closing, and what a session may still pay."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from django.db import connection, transaction
from django.db.models import Case, F, Sum, When
from django.utils import timezone

from escrow import events, ledger, lifecycle, money, verdicts
from escrow.errors import NotFound, StateConflict
from escrow.ledger import Move
from escrow.models import Account, Hold, Party, Payment, Pool, Reason, Session
from escrow.policy import Policy
from escrow.verdicts import Opinion, Rulebook, Verdict

RULES: Final = Rulebook()
"""What this process knows of the sessions' policies; the database says when it is stale."""
ATTEMPTS: Final = 5
"""A policy that changes this often between two looks is a mistake of its payer's."""

_JUDGE: Final = """
SELECT outcome, payment_id, at, remaining_micros, facts::text FROM escrow_judge(
    true, %s, %s::uuid[], %s::uuid[], %s::bigint[], ARRAY[NULL]::text[], ARRAY[NULL]::bytea[], %s::integer[],
    %s::timestamptz[], %s::timestamptz[], %s::boolean[]
)
"""


@dataclass(frozen=True, slots=True)
class SessionBalances:
    """What a session was given, has paid, has set aside and has left, in micro-USDC."""

    budget: int
    spent: int
    held: int
    remaining: int


def require_open(pool: Pool, now: datetime) -> None:
    """Return when a pool takes new spending. Raises StateConflict when it does not."""
    if pool.status != Pool.Status.OPEN:
        raise verdicts.not_open("pool", pool.status)
    if now >= pool.expires_at:
        raise verdicts.not_open("pool", "expired")


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
    session_id = uuid4()
    account = ledger.open_account(Account.Kind.SESSION, pool=pool, subject=session_id)
    session = Session.objects.create(
        id=session_id, pool=pool, account=account, name=name, policy=policy.to_document(), expires_at=expires_at
    )
    ledger.post([Move(free, account, budget_micros, Reason.SESSION_OPEN, str(session_id))])
    _tell(session, "session.opened", {"budget": money.render(budget_micros)})
    return session


@transaction.atomic
def top_up(*, session: Session, amount_micros: int, now: datetime) -> Session:
    """Move more of the pool's money into a session. Raises InsufficientFunds or StateConflict."""
    free_account = ledger.free(session.pool)
    free = ledger.lock([free_account, session.account])[free_account.pk]
    session = reread(session.pk)
    require_open(session.pool, now)
    _require_open_session(session, now)
    ledger.require(free, amount_micros, "The pool")
    ledger.post([Move(free, session.account, amount_micros, Reason.SESSION_TOP_UP, str(uuid4()))])
    _tell(session, "session.topped_up", {"amount": money.render(amount_micros)})
    return session


@transaction.atomic
def close(*, session: Session, now: datetime) -> Session:
    """End a session; what it has left goes back to its pool. Money on hold stays held and returns to the pool later."""
    free = ledger.free(session.pool)
    account = ledger.lock([free, session.account])[session.account_id]
    session = reread(session.pk)
    if session.status == Session.Status.CLOSED:
        return session
    left = account.balance_micros
    lifecycle.move(session, Session.Status.CLOSED, closed_at=now)
    ledger.post([Move(account, free, left, Reason.SESSION_CLOSE, str(session.pk))])
    _tell(session, "session.closed", {"returned": money.render(left)})
    return session


def reread(session_id: UUID) -> Session:
    """Return a session as it is now, with its pool and account. Raises NotFound."""
    try:
        return Session.objects.select_related("pool", "account").get(pk=session_id)
    except Session.DoesNotExist:
        raise NotFound("There is no such session.") from None


def decide(
    *,
    session_id: UUID,
    to: str,
    amount_micros: int,
    now: datetime | None,
    ask: Callable[[Opinion], Sequence[Any] | None],
    key: str = "",
) -> Verdict:
    """Have the database decide on a request to spend, and return its verdict: allowed, or replayed.

    ``ask`` runs the statement with what the pure rules say, and returns its row for `Verdict.read`. The database's clock
    decides, unless ``now`` does. Raises the refusals of `escrow.verdicts`.
    """
    at = now or timezone.now()  # of the rules that need no counting; the database refuses an answer that is too old
    for _ in range(ATTEMPTS):
        opinion = RULES.opinion(session_id, to=to, now=at)
        verdict = Verdict.read(ask(opinion))
        if verdict.outcome in (verdicts.ALLOWED, verdicts.REPLAYED):
            return verdict
        at = now or verdict.at or at
        if verdict.outcome == verdicts.STALE:
            RULES.learn(session_id, verdict.facts)
        elif verdict.outcome != verdicts.BUSY:
            raise verdicts.refusal(verdict, amount_micros=amount_micros, denial=opinion.denial, key=key)
    raise StateConflict("session", "changing", "The session's policy is being changed; repeat the request.")


def authorise(*, session: Session, party: Party, to: str, amount_micros: int, now: datetime | None = None) -> Account:
    """Lock and return the account of a session that may commit an amount to a party; raise the refusal when it may not.

    The lock is kept, so that nothing changes between this answer and the posting.
    """

    def ask(opinion: Opinion) -> Sequence[Any] | None:
        with connection.cursor() as cursor:
            judged: list[Any] = [[session.pk], [party.pk], [amount_micros], *([value] for value in opinion.columns)]
            cursor.execute(_JUDGE, [now, *judged])
            row: Sequence[Any] | None = cursor.fetchone()
            return row

    decide(session_id=session.pk, to=to, amount_micros=amount_micros, now=now, ask=ask)
    return Account.objects.get(pk=session.account_id)


def return_account(session: Session) -> Account:
    """Return where money that comes back to a session goes: the session while it is open, else its pool."""
    return session.account if session.status == Session.Status.OPEN else ledger.free(session.pool)


def balances(session: Session) -> SessionBalances:
    """Return what a session was given, has paid, has set aside and has left."""
    session = reread(session.pk)
    account = session.account
    budget = ledger.budget_of(account)
    held = sum(
        hold.account.balance_micros
        for hold in Hold.objects.filter(session=session, status=Hold.Status.HELD).select_related("account")
    )
    remaining = account.balance_micros
    if session.status == Session.Status.CLOSED:
        return SessionBalances(budget=budget, spent=_owed(session), held=held, remaining=remaining)
    return SessionBalances(budget=budget, spent=budget - remaining - held, held=held, remaining=remaining)


def close_expired(*, now: datetime, limit: int) -> int:
    """Close sessions whose time is over, so that what they have left is the pool's again; return how many."""
    over = Session.objects.filter(status=Session.Status.OPEN, expires_at__lte=now).select_related("pool", "account")
    return lifecycle.sweep(over.order_by("expires_at")[:limit], lambda session: close(session=session, now=now))


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


def _require_open_session(session: Session, now: datetime) -> None:
    if session.status != Session.Status.OPEN:
        raise verdicts.not_open("session", session.status)
    if session.expires_at is not None and now >= session.expires_at:
        raise verdicts.not_open("session", "expired")


def _tell(session: Session, type: str, payload: dict[str, object], party: Party | None = None) -> None:
    events.record(
        type=type, subject_type="session", subject_id=session.pk, payload=payload, pool=session.pool, party=party
    )
