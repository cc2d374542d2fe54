"""Refunds: a payment that goes back, all or in parts. Lives here: giving, asking, granting, declining, and what silence does.

What has not gone into a batch is taken off the debt, and the payment settles for what is left. What has landed cannot be
taken back on chain, so its refund is netted: it is paid out of what the same pool owes the same provider and has not yet
put into a batch, the newest debts first. A payment's debt pays for its own refunds before another's does.
"""

from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F, Sum

from escrow import events, families, ledger, lifecycle, money, payments, sessions
from escrow.errors import InvalidInput, NotRefundable, StateConflict, require_text
from escrow.ledger import Move
from escrow.models import DUE, Account, Deduction, Dispute, Payment, Pool, Reason, Refund

Status = Refund.Status
OPEN_DISPUTE = (Dispute.Status.OPENING, Dispute.Status.OPEN, Dispute.Status.ANSWERED, Dispute.Status.RULING)
LAPSED = "The provider did not answer in time. Dispute the payment while it can still be disputed."
MOOT = "The whole payment has gone back."


@transaction.atomic
def pay(*, payment: Payment, reason: str, now: datetime, amount_micros: int | None = None) -> Payment:
    """Give a payment back as its provider: an amount of it, or all that has not gone back yet.

    A payment that has gone back as a whole stays as it is when no amount is named. Raises InvalidInput for more than is left
    of it, StateConflict while its batch is on its way or it is disputed, and NotRefundable when too little is owed.
    """
    require_text("reason", reason)
    source, payment = _locked(payment)
    if not payment.unrefunded_micros and amount_micros is None:
        return payment
    amount = _amount(payment, amount_micros)
    refund = _create(payment, amount, reason, status=Status.PAID, answered_at=now)
    _carry_out(refund, payment, source, now)
    return payment


@transaction.atomic
def ask(*, payment: Payment, reason: str, now: datetime, amount_micros: int | None = None) -> Refund:
    """Ask for a payment, or a part of it, as its payer; no money moves until the provider grants it.

    One request of a payment waits at a time. Silence lapses it after ``settings.REFUND_WINDOW``; a dispute need not wait.
    """
    require_text("reason", reason)
    payment = payments.locked(payment)
    if payment.kind == Payment.Kind.RULING:
        raise StateConflict("payment", payment.status, "The payment carries out a ruling, and a ruling is final.")
    _require_undisputed(payment)
    amount = _amount(payment, amount_micros)
    if Refund.objects.filter(payment=payment, status=Status.REQUESTED).exists():
        detail = "A refund of this payment is asked for already, and waits for its provider's answer."
        raise StateConflict("refund", Status.REQUESTED, detail)
    answer_by = sessions.timer(payment.pool, settings.REFUND_WINDOW, now)
    refund = _create(payment, amount, reason, status=Status.REQUESTED, answer_by=answer_by)
    _tell(refund, "refund.requested", reason=reason)
    return refund


@transaction.atomic
def grant(*, refund: Refund, now: datetime) -> Refund:
    """Pay what was asked for, as the provider. A refund that was paid before stays as it is."""
    source, payment = _locked(refund.payment)
    refund = _reread(refund.pk)
    if refund.status == Status.PAID:
        return refund
    _require_waiting(refund, now)
    _amount(payment, refund.amount_micros)
    lifecycle.move(refund, Status.PAID, answered_at=now)
    _carry_out(refund, payment, source, now)
    return refund


@transaction.atomic
def decline(*, refund: Refund, reason: str, now: datetime) -> Refund:
    """Say no to what was asked for, as the provider. The payer can dispute the payment."""
    require_text("reason", reason)
    refund = _reread(refund.pk)
    _require_waiting(refund, now)
    lifecycle.move(refund, Status.DECLINED, answer=reason, answered_at=now)
    _tell(refund, "refund.declined", reason=reason)
    return refund


def lapse_by_silence(*, now: datetime, limit: int) -> int:
    """End requests that nobody answered in time; return how many. No money moves."""
    overdue = Refund.objects.filter(status=Status.REQUESTED, answer_by__lte=now).order_by("answer_by")
    return lifecycle.sweep(overdue, lambda refund: _lapse(refund.pk, LAPSED, now), name="silent-refunds", limit=limit)


@transaction.atomic
def _lapse(refund_id: UUID, answer: str, now: datetime) -> bool:
    refund = _reread(refund_id)
    if refund.status != Status.REQUESTED:
        return False  # somebody spoke while the sweep came to it
    lifecycle.move(refund, Status.LAPSED, answer=answer, answered_at=now)
    _tell(refund, "refund.lapsed", reason=answer)
    return True


def _carry_out(refund: Refund, payment: Payment, source: Account, now: datetime) -> None:
    """Move the money of a refund whose accounts and payment are locked, and take it off the debts that pay for it."""
    _require_undisputed(payment)
    if payment.status == Payment.Status.SETTLING:
        detail = (
            "The payment is in a batch that is on its way. It can be refunded once that has landed, or no longer can."
        )
        raise StateConflict("payment", payment.status, detail)
    taken = _take(refund, payment, source.balance_micros)
    Deduction.objects.bulk_create(
        Deduction(refund=refund, payment_id=pk, amount_micros=micros) for pk, micros in taken.items()
    )
    _note(payment, refund, own_micros=taken.get(payment.pk, 0))
    target = families.return_account(sessions.reread(payment.session_id))
    ledger.post([Move(source, target, refund.amount_micros, Reason.REFUND, str(refund.pk))])
    _tell(refund, "refund.paid", reason=refund.reason)
    if not payment.unrefunded_micros:
        payments.tell(payment, "payment.refunded", reason=refund.reason)
        for waiting in Refund.objects.filter(payment=payment, status=Status.REQUESTED):
            _lapse(waiting.pk, MOOT, now)


def _take(refund: Refund, payment: Payment, owed_micros: int) -> dict[UUID, int]:
    """Return which debts pay for a refund, and take it off all of them but the payment's own. Raises NotRefundable."""
    left = refund.amount_micros
    if left > owed_micros:
        raise NotRefundable(payment.status, money.render(owed_micros))
    taken: dict[UUID, int] = {}
    if payment.status == Payment.Status.PAYABLE:
        taken[payment.pk] = min(left, payment.due_micros)
        left -= taken[payment.pk]
    if left:
        taken |= _net(refund, payment, left)
    return taken


def _net(refund: Refund, payment: Payment, left_micros: int) -> dict[UUID, int]:
    """Return which other debts pay for what a payment's own does not, the newest first, and take it off them.

    The account of all these debts is locked, so none of them can go into a batch or a dispute meanwhile.
    """
    left, taken = left_micros, dict[UUID, int]()
    others = Payment.objects.filter(pool=payment.pool, party=payment.party, status=Payment.Status.PAYABLE)
    newest = others.exclude(pk=payment.pk).order_by("-created_at", "-pk").values_list("pk", DUE)
    used_up: list[UUID] = []
    for pk, due in newest[: settings.REFUND_MAX_DEBTS].iterator(chunk_size=200):
        if not left:
            break
        taken[pk] = min(left, due)
        left -= taken[pk]
        if taken[pk] == due:
            used_up.append(pk)
        else:
            others.filter(pk=pk).update(deducted_micros=F("deducted_micros") + taken[pk])
    if left:
        raise NotRefundable(payment.status, money.render(refund.amount_micros - left))
    offset = others.filter(pk__in=used_up)
    moved = lifecycle.move_all(
        offset, frm=Payment.Status.PAYABLE, to=Payment.Status.OFFSET, deducted_micros=F("amount_micros")
    )
    if moved != len(used_up):
        raise RuntimeError(f"{len(used_up) - moved} debts left {refund} while it was paid")
    return taken


def _note(payment: Payment, refund: Refund, *, own_micros: int) -> None:
    """Write down what has gone back of a payment, and what its own debt gave for it."""
    deducted = payment.deducted_micros + own_micros
    changes: dict[str, object] = {
        "deducted_micros": deducted,
        "refunded_micros": payment.refunded_micros + refund.amount_micros,
    }
    is_used_up = deducted == payment.amount_micros
    if is_used_up and changes["refunded_micros"] == payment.amount_micros:
        lifecycle.move(payment, Payment.Status.REFUNDED, reason=refund.reason, **changes)
    elif is_used_up and payment.status == Payment.Status.PAYABLE:
        lifecycle.move(payment, Payment.Status.OFFSET, **changes)
    else:
        Payment.objects.filter(pk=payment.pk).update(**changes)
        for name, value in changes.items():
            setattr(payment, name, value)


def _amount(payment: Payment, asked_micros: int | None) -> int:
    """Return how much goes back: what was asked for, or all that can. What was in a dispute on chain was ruled on."""
    left = payment.unrefunded_micros
    if payment.status == Payment.Status.SETTLED:  # an unsettled one is disputed as a whole, and `disputed` itself
        ruled = Dispute.objects.filter(payment=payment, on_chain=True).exclude(status=Dispute.Status.FAILED)
        left -= ruled.aggregate(total=Sum("amount_micros"))["total"] or 0
    if left <= 0:
        state = Payment.Status.REFUNDED if not payment.unrefunded_micros else payment.status
        raise StateConflict("payment", state, "Nothing of the payment is left to go back.")
    if asked_micros is not None and asked_micros > left:
        limit = money.render(left)
        raise InvalidInput("amount", f"must be at most the {limit} that has not gone back", f'"{limit}" or less')
    return asked_micros or left


def _require_undisputed(payment: Payment) -> None:
    """Refuse what a dispute decides on, and what a closed pool no longer has."""
    if payment.pool.status == Pool.Status.CLOSED:
        detail = "The pool is closed; what it still owed left it with the rest."
        raise StateConflict("pool", payment.pool.status, detail)
    is_disputed = payment.status == Payment.Status.DISPUTED
    if payment.status == Payment.Status.SETTLED:
        is_disputed = Dispute.objects.filter(payment=payment, status__in=OPEN_DISPUTE).exists()
    if is_disputed:
        raise StateConflict(
            "payment", Payment.Status.DISPUTED, "The payment is disputed; a ruling says what goes back."
        )


def _require_waiting(refund: Refund, now: datetime) -> None:
    if refund.status != Status.REQUESTED:
        raise StateConflict("refund", refund.status, f"The refund is {refund.status}; it waits for no answer.")
    if refund.answer_by is not None and now >= refund.answer_by:
        raise StateConflict("refund", Status.LAPSED, "The time to answer is over; refund the payment itself instead.")


def _locked(payment: Payment) -> tuple[Account, Payment]:
    """Return the account that a refund is paid from and the payment, both locked, and so are the accounts it can go to."""
    source = ledger.payable(payment.pool, payment.party)
    locked = ledger.lock([source, payment.session.account, *families.ways_back(payment.session)])
    return locked[source.pk], payments.locked(payment)


def _reread(refund_id: UUID) -> Refund:
    related = Refund.objects.select_related("payment__pool", "payment__party", "payment__session__account")
    return related.select_for_update(no_key=True, of=("self",)).get(pk=refund_id)


def _create(payment: Payment, amount_micros: int, reason: str, **more: object) -> Refund:
    return Refund.objects.create(
        payment=payment,
        session=payment.session,
        party=payment.party,
        payer_id=payment.payer_id,
        amount_micros=amount_micros,
        reason=reason,
        **more,
    )


def _tell(refund: Refund, type: str, *, reason: str) -> None:
    payment = refund.payment
    payload = {
        "payment_id": str(payment.pk),
        "session_id": str(refund.session_id),
        "to": payment.to,
        "amount": money.render(refund.amount_micros),
        "reason": reason,
    }
    events.record(
        type=type,
        subject_type="refund",
        subject_id=refund.pk,
        payload=payload,
        pool=payment.pool,
        party=payment.party,
    )
