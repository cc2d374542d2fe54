"""Holds: a session's money set aside for one party. Lives here: placing, capturing, releasing, expiring.

`capture` and `release` are its buyer's; `claim`, `give_back` and `dispute` are those of the task or invoice it belongs to.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from django.conf import settings
from django.db import transaction

from escrow import authorisation, clock, events, families, ledger, lifecycle, money, payments, sessions, verdicts
from escrow.errors import InvalidInput, StateConflict
from escrow.ledger import Move
from escrow.models import Account, Hold, Party, Payment, Pool, Reason, Session

RELATED: Final = ("session__pool", "session__account", "party", "account")


@transaction.atomic
def place(
    *,
    session: Session,
    amount_micros: int,
    party: Party,
    to: str,
    metadata: Mapping[str, object] | None = None,
    expires_in: int | None = None,
    capability: str = "",
    fingerprint: bytes = b"",
    now: datetime | None = None,
) -> Hold:
    """Set an amount of a session aside for a party, under the same policy as a payment.

    One that expires, after so many seconds or earlier if its pool's life asks for it, is its buyer's to `capture`. One
    that does not belongs to a task or an invoice. ``fingerprint`` is what tells the request from any other: a person's
    approval is of one request.
    """
    payments.require_payable_amount(amount_micros)
    _require_lifetime(expires_in)
    account, version, hold_id = authorisation.authorise(
        session=session, party=party, to=to, amount_micros=amount_micros, capability=capability,
        fingerprint=fingerprint, metadata=metadata or {}, now=now,
    )  # fmt: skip
    session = sessions.reread(session.pk)
    ledger.payable(session.pool, party)  # opened now, so that it is older than the hold: the order of locks
    held = ledger.open_account(Account.Kind.HOLD, pool=session.pool, subject=hold_id)
    expires_at = expires_in and sessions.timer(session.pool, expires_in, now or clock.now())
    hold = Hold.objects.create(
        id=hold_id,
        session=session,
        party=party,
        payer_id=session.pool.payer_id,
        account=held,
        to=to,
        metadata=dict(metadata or {}),
        capability=capability,
        policy_version=version,
        expires_at=expires_at or None,
    )
    ledger.post([Move(account, held, amount_micros, Reason.HOLD, str(hold_id))])
    held.refresh_from_db()
    _tell(hold, "hold.placed", amount_micros)
    return hold


@transaction.atomic
def capture(*, hold: Hold, now: datetime, amount_micros: int | None = None) -> Payment:
    """Turn a hold, all of it or an amount, into a payment, because what it was set aside for has succeeded.

    The rest goes back. The policy was asked when the hold was placed, and is not asked again. Raises StateConflict once it
    is captured, released or expired, and while its session or pool is stopped; InvalidInput for more than is held.
    """
    locked, hold = _lock(hold)
    _require_own(hold)
    _require_held(hold, now)
    held = locked[hold.account_id].balance_micros
    amount = held if amount_micros is None else amount_micros
    payment = _turn_into_debt(locked, hold, amount, Payment.Kind.CALL, f"hold {hold.pk}", hold.metadata)
    _tell(hold, "hold.captured", amount, payment_id=str(payment.pk), released=money.render(held - amount))
    return payment


@transaction.atomic
def claim(*, hold: Hold, amount_micros: int, kind: Payment.Kind, idempotency_key: str) -> Payment:
    """Turn what an invoice claims of a hold into a debt; the rest goes back. Raises StateConflict when it is not held."""
    locked, hold = _lock(hold)
    return _turn_into_debt(locked, hold, amount_micros, kind, idempotency_key, {})


def _turn_into_debt(
    locked: Mapping[int, Account],
    hold: Hold,
    amount_micros: int,
    kind: Payment.Kind,
    idempotency_key: str,
    metadata: Mapping[str, object],
) -> Payment:
    held = locked[hold.account_id]
    require_within(held, amount_micros)
    lifecycle.move(hold, Hold.Status.CAPTURED)
    back = locked[families.return_account(hold.session).pk]
    rest = held.balance_micros - amount_micros
    ledger.post([Move(held, back, rest, Reason.RELEASE, str(hold.pk))])
    hold.payment = payments.owe(
        session=hold.session,
        party=hold.party,
        source=held,
        payable=ledger.payable(hold.session.pool, hold.party),
        to=hold.to,
        amount_micros=amount_micros,
        kind=kind,
        reason=Reason.CAPTURE,
        idempotency_key=idempotency_key,
        remaining_micros=ledger.balance(hold.session.account),
        metadata=metadata,
        capability=hold.capability,
    )
    hold.save(update_fields=["payment"])
    return hold.payment


@transaction.atomic
def release(*, hold: Hold, now: datetime) -> Hold:
    """Give a hold back before it expires, as its buyer, or as the party that it is for and that gives it up.

    A released hold stays as it is. Raises StateConflict once it is captured, and for one that belongs to a task or an
    invoice.
    """
    locked, hold = _lock(hold)
    _require_own(hold)
    return _give_back(locked, hold)


def release_expired(*, now: datetime, limit: int) -> int:
    """Release holds whose time is over; return how many."""
    over = Hold.objects.filter(status=Hold.Status.HELD, expires_at__lte=now).select_related(*RELATED)
    due = over.order_by("expires_at")
    return lifecycle.sweep(due, _release_if_held, name="expired-holds", limit=limit)


@transaction.atomic
def _release_if_held(hold: Hold) -> bool:
    locked, hold = _lock(hold)
    if hold.status != Hold.Status.HELD:
        return False  # somebody captured it in time, or released it, while the sweep came to it
    _give_back(locked, hold)
    return True


@transaction.atomic
def give_back(*, hold: Hold, now: datetime) -> Hold:
    """Give a hold back to its session, or to the pool when the session is closed. A released hold stays as it is."""
    return _give_back(*_lock(hold))


def _give_back(locked: Mapping[int, Account], hold: Hold) -> Hold:
    if hold.status == Hold.Status.RELEASED:
        return hold
    held = locked[hold.account_id]
    amount = held.balance_micros
    lifecycle.move(hold, Hold.Status.RELEASED)
    ledger.post([Move(held, families.return_account(hold.session), amount, Reason.RELEASE, str(hold.pk))])
    _tell(hold, "hold.released", amount)
    return hold


@transaction.atomic
def dispute(*, hold: Hold, dispute_account: Account, amount_micros: int, ref: str) -> None:
    """Move the invoiced part of a hold into a dispute's account; the rest goes back."""
    locked, hold = _lock(hold)
    held = locked[hold.account_id]
    require_within(held, amount_micros)
    lifecycle.move(hold, Hold.Status.CAPTURED)
    rest = held.balance_micros - amount_micros
    ledger.post(
        [
            Move(held, families.return_account(hold.session), rest, Reason.RELEASE, str(hold.pk)),
            Move(held, dispute_account, amount_micros, Reason.DISPUTE, ref),
        ]
    )


def require_within(held: Account, amount_micros: int) -> None:
    """Return when an amount is positive and within what is held. Raises InvalidInput."""
    if not 0 < amount_micros <= held.balance_micros:
        limit = money.render(held.balance_micros)
        raise InvalidInput("amount", f"must be above zero and at most the {limit} on hold", f'"{limit}" or less')


def _lock(hold: Hold) -> tuple[dict[int, Account], Hold]:
    session = hold.session
    payable = ledger.payable(session.pool, hold.party)
    locked = ledger.lock([hold.account, session.account, payable, *families.ways_back(session)])
    related = Hold.objects.select_related(*RELATED)
    return locked, related.select_for_update(no_key=True, of=("self",)).get(pk=hold.pk)


def _require_lifetime(seconds: int | None) -> None:
    longest = settings.HOLD_MAX_SECONDS
    if seconds is not None and not 0 < seconds <= longest:
        raise InvalidInput("expires_in_seconds", f"must be from 1 to {longest}", f"{longest} or less")


def _require_own(hold: Hold) -> None:
    """Refuse what is not its buyer's to decide on: a task or an invoice does."""
    if hold.expires_at is None:
        detail = "The hold belongs to a task or an invoice; what becomes of that becomes of the hold."
        raise StateConflict("hold", hold.status, detail)


def _require_held(hold: Hold, now: datetime) -> None:
    """Refuse to capture what is gone or over, and whatever a pause, a freeze or the end of a pool stops.

    A session that was closed stops nothing: what it has set aside is a promise, which ends when the hold does.
    """
    session = hold.session
    if hold.status == Hold.Status.CAPTURED:
        detail = f"The hold was captured before, as payment {hold.payment_id}; a hold is captured once."
        raise StateConflict("hold", hold.status, detail)
    if hold.status != Hold.Status.HELD:
        raise StateConflict("hold", hold.status, "The hold was released; its money went back. Place another one.")
    if hold.expires_at is not None and now >= hold.expires_at:
        raise StateConflict("hold", "expired", "The hold has expired; its money goes back. Place another one.")
    sessions.require_open(session.pool, now, Pool.Status.CLOSING)
    if session.status not in (Session.Status.OPEN, Session.Status.CLOSED):
        raise verdicts.not_open("session", session.status)


def _tell(hold: Hold, type: str, amount_micros: int, **more: object) -> None:
    payload = {"session_id": str(hold.session_id), "to": hold.to, "amount": money.render(amount_micros), **more}
    events.record(
        type=type, subject_type="hold", subject_id=hold.pk, payload=payload, pool=hold.session.pool, party=hold.party
    )
