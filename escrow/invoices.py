"""Invoices: a provider's claim on a hold for finished work. Lives here: submit, approve, reject, withdraw, and silence.

Silence always decides: a submitted invoice that nobody reviews is approved. What silence does to a rejected one is a
dispute's matter (`escrow.disputes`).
"""

from collections.abc import Mapping
from datetime import datetime

from django.conf import settings
from django.db import IntegrityError, transaction

from escrow import events, families, holds, ledger, lifecycle, money, sessions
from escrow.errors import DuplicateInvoice, StateConflict
from escrow.models import Hold, Invoice, Payment, Pool


@transaction.atomic
def submit(
    *,
    hold: Hold,
    amount_micros: int,
    number: str,
    memo: str,
    task_ref: str,
    deliverable: Mapping[str, object],
    now: datetime,
) -> Invoice:
    """Claim all or part of a hold for finished work. Raises InvalidInput, StateConflict or DuplicateInvoice."""
    hold = (
        Hold.objects.select_for_update(no_key=True, of=("self",))
        .select_related("account", "session__pool", "party")
        .get(pk=hold.pk)
    )
    if hold.status != Hold.Status.HELD or Invoice.objects.filter(hold=hold).exists():
        raise StateConflict("hold", hold.status, "This money is not open to an invoice any more.")
    if hold.expires_at is not None:
        raise StateConflict("hold", hold.status, "This money is set aside for a call, and its buyer's to capture.")
    holds.require_within(hold.account, amount_micros)
    try:
        with transaction.atomic():
            invoice = Invoice.objects.create(
                session=hold.session,
                party=hold.party,
                hold=hold,
                to=hold.to,
                number=number,
                task_ref=task_ref,
                amount_micros=amount_micros,
                memo=memo,
                deliverable=dict(deliverable),
                review_by=sessions.timer(hold.session.pool, settings.REVIEW_WINDOW, now),
            )
    except IntegrityError:
        detail = f"Invoice number {number} was used in this session already."
        raise DuplicateInvoice("invoice", "submitted", detail) from None
    _tell(invoice, "invoice.submitted")
    return invoice


@transaction.atomic
def approve(*, invoice: Invoice, now: datetime) -> Invoice:
    """Accept the work: the invoiced amount becomes a debt, the rest of the hold goes back."""
    invoice = locked(invoice)
    if invoice.status == Invoice.Status.APPROVED:
        return invoice
    lifecycle.move(invoice, Invoice.Status.APPROVED)
    invoice.payment = holds.claim(
        hold=invoice.hold,
        amount_micros=invoice.amount_micros,
        kind=Payment.Kind.INVOICE,
        idempotency_key=f"invoice {invoice.pk}",  # no caller's key has a space in it
    )
    invoice.save(update_fields=["payment"])
    _tell(invoice, "invoice.approved")
    return invoice


@transaction.atomic
def reject(*, invoice: Invoice, reason: str, now: datetime) -> Invoice:
    """Refuse the work, with a reason. The money stays on hold until it is withdrawn, approved after all, or disputed."""
    invoice = locked(invoice)
    review_by = sessions.timer(invoice.hold.session.pool, settings.REJECTION_WINDOW, now)
    lifecycle.move(invoice, Invoice.Status.REJECTED, reason=reason, review_by=review_by)
    _tell(invoice, "invoice.rejected", reason=reason)
    return invoice


@transaction.atomic
def withdraw(*, invoice: Invoice, now: datetime) -> Invoice:
    """Give the claim up, as its provider: all of the hold goes back to the session."""
    invoice = locked(invoice)
    if invoice.status == Invoice.Status.WITHDRAWN:
        return invoice
    lifecycle.move(invoice, Invoice.Status.WITHDRAWN)
    holds.give_back(hold=invoice.hold, now=now)
    _tell(invoice, "invoice.withdrawn")
    return invoice


def approve_by_silence(*, now: datetime, limit: int) -> int:
    """Approve submitted invoices whose review window has ended; return how many there were."""
    waiting = Invoice.objects.filter(status=Invoice.Status.SUBMITTED, review_by__lte=now)
    due = waiting.exclude(session__pool__status=Pool.Status.CLOSED).order_by("review_by")
    return lifecycle.sweep(due, lambda invoice: _approve_if_silent(invoice, now), name="silent-reviews", limit=limit)


@transaction.atomic
def _approve_if_silent(invoice: Invoice, now: datetime) -> bool:
    invoice = locked(invoice)
    if invoice.status != Invoice.Status.SUBMITTED:
        return False  # somebody spoke while the sweep came to it
    approve(invoice=invoice, now=now)
    return True


def locked(invoice: Invoice) -> Invoice:
    """Return an invoice as it is now, locked until the database transaction ends.

    The accounts come first, as everywhere: whoever holds an invoice's row already holds what it will move.
    """
    hold = invoice.hold
    pool = hold.session.pool
    ways_back = families.ways_back(hold.session)
    ledger.lock([hold.account, hold.session.account, ledger.payable(pool, hold.party), *ways_back])
    related = Invoice.objects.select_related(
        "hold__account", "hold__party", "hold__session__pool", "hold__session__account"
    )
    return related.select_for_update(no_key=True, of=("self",)).get(pk=invoice.pk)


def _tell(invoice: Invoice, type: str, **more: object) -> None:
    payload = {
        "session_id": str(invoice.session_id),
        "number": invoice.number,
        "amount": money.render(invoice.amount_micros),
        **more,
    }
    session = invoice.hold.session
    events.record(
        type=type,
        subject_type="invoice",
        subject_id=invoice.pk,
        payload=payload,
        pool=session.pool,
        party=invoice.hold.party,
    )
