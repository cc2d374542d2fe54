"""Holds: a session's money set aside for one party. Lives here: placing, capturing into a debt, releasing."""

from datetime import datetime
from uuid import uuid4

from django.db import transaction

from escrow import events, ledger, lifecycle, money, payments, sessions
from escrow.errors import InvalidInput
from escrow.ledger import Move
from escrow.models import Account, Hold, Party, Payment, Reason, Session


@transaction.atomic
def place(*, session: Session, amount_micros: int, party: Party, to: str, now: datetime | None = None) -> Hold:
    """Set an amount of a session aside for a party, under the same policy as a payment."""
    payments.require_payable_amount(amount_micros)
    account = sessions.authorise(session=session, party=party, to=to, amount_micros=amount_micros, now=now)
    session = sessions.reread(session.pk)
    ledger.payable(session.pool, party)  # opened now, so that it is older than the hold: the order of locks
    hold_id = uuid4()
    held = ledger.open_account(Account.Kind.HOLD, pool=session.pool, subject=hold_id)
    hold = Hold.objects.create(id=hold_id, session=session, party=party, account=held, to=to)
    ledger.post([Move(account, held, amount_micros, Reason.HOLD, str(hold_id))])
    held.refresh_from_db()
    _tell(hold, "hold.placed", amount_micros)
    return hold


@transaction.atomic
def capture(*, hold: Hold, amount_micros: int, kind: Payment.Kind, idempotency_key: str) -> Payment:
    """Turn all or part of a hold into a debt; the rest goes back. Raises StateConflict when it is no longer held."""
    locked, hold = _lock(hold)
    held = locked[hold.account_id]
    require_within(held, amount_micros)
    lifecycle.move(hold, Hold.Status.CAPTURED)
    back = locked[sessions.return_account(hold.session).pk]
    rest = held.balance_micros - amount_micros
    ledger.post([Move(held, back, rest, Reason.RELEASE, str(hold.pk))])
    return payments.owe(
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
    )


@transaction.atomic
def release(*, hold: Hold, now: datetime) -> Hold:
    """Give a hold back to its session, or to the pool when the session is closed. A released hold stays as it is."""
    locked, hold = _lock(hold)
    if hold.status == Hold.Status.RELEASED:
        return hold
    held = locked[hold.account_id]
    amount = held.balance_micros
    lifecycle.move(hold, Hold.Status.RELEASED)
    ledger.post([Move(held, sessions.return_account(hold.session), amount, Reason.RELEASE, str(hold.pk))])
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
            Move(held, sessions.return_account(hold.session), rest, Reason.RELEASE, str(hold.pk)),
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
    locked = ledger.lock([hold.account, session.account, ledger.free(session.pool), payable])
    related = Hold.objects.select_related("session__pool", "session__account", "party", "account")
    return locked, related.select_for_update(no_key=True, of=("self",)).get(pk=hold.pk)


def _tell(hold: Hold, type: str, amount_micros: int) -> None:
    payload = {"session_id": str(hold.session_id), "to": hold.to, "amount": money.render(amount_micros)}
    events.record(
        type=type, subject_type="hold", subject_id=hold.pk, payload=payload, pool=hold.session.pool, party=hold.party
    )
