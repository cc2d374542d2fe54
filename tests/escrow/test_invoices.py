"""`escrow.invoices`: submit, approve, reject, withdraw, and what silence does."""

from datetime import timedelta

import pytest
from django.conf import settings

from escrow import holds, invoices, ledger, sessions
from escrow.errors import DuplicateInvoice, InvalidInput, StateConflict
from escrow.models import Invoice
from tests.escrow import books
from tests.escrow.books import NOW, USDC, balance, unmoved

pytestmark = pytest.mark.django_db
REVIEWED = NOW + timedelta(seconds=settings.REVIEW_WINDOW)


def submitted(micros: int = 3 * USDC, held: int = 10 * USDC) -> Invoice:
    return books.invoice(books.hold(books.session(micros=25 * USDC), books.party(), held), micros)


def test_a_submitted_invoice_waits_for_review() -> None:
    held = books.hold(books.session(), books.party(), 10 * USDC)
    with unmoved():
        invoice = books.invoice(held, 10 * USDC)
    assert (invoice.status, invoice.amount_micros, invoice.review_by) == ("submitted", 10 * USDC, REVIEWED)
    assert invoice.payment is None


@pytest.mark.parametrize("micros", [0, -1, 10 * USDC + 1])
def test_an_invoice_is_within_its_hold(micros: int) -> None:
    held = books.hold(books.session(), books.party(), 10 * USDC)
    with unmoved(), pytest.raises(InvalidInput):
        books.invoice(held, micros)
    assert not Invoice.objects.exists()


def test_a_hold_has_one_invoice() -> None:
    held = books.hold(books.session(), books.party())
    books.invoice(held, 1)
    with unmoved(), pytest.raises(StateConflict):
        books.invoice(held, 1, number="INV-2")


def test_a_released_hold_has_no_invoice() -> None:
    held = books.hold(books.session(), books.party())
    holds.give_back(hold=held, now=NOW)
    with unmoved(), pytest.raises(StateConflict):
        books.invoice(held, 1)


def test_a_number_is_used_once_by_a_party_in_a_session() -> None:
    spending, to = books.session(), books.party()
    books.invoice(books.hold(spending, to, USDC), 1)
    again = books.hold(spending, to, USDC)
    with unmoved(), pytest.raises(DuplicateInvoice) as caught:
        books.invoice(again, 1)
    assert caught.value.code == "duplicate_invoice"
    books.invoice(again, 1, number="INV-2")
    books.invoice(books.hold(spending, books.party(), USDC), 1)


def test_approving_pays_the_invoiced_part_and_gives_the_rest_back() -> None:
    invoice = submitted(3 * USDC, 10 * USDC)
    invoices.approve(invoice=invoice, now=NOW)
    invoice.refresh_from_db()
    payment = invoice.payment
    assert payment is not None
    assert (invoice.status, payment.kind, payment.status) == ("approved", "invoice", "payable")
    assert (payment.amount_micros, payment.remaining_micros) == (3 * USDC, 22 * USDC)
    assert balance(invoice.session.account) == 22 * USDC
    assert balance(invoice.hold.account) == 0
    assert balance(ledger.payable(invoice.session.pool, invoice.party)) == 3 * USDC
    with unmoved():
        assert invoices.approve(invoice=invoice, now=NOW).payment == payment


def test_the_rest_goes_to_the_pool_when_the_session_is_closed() -> None:
    invoice = submitted(3 * USDC, 10 * USDC)
    sessions.close(session=invoice.session, now=NOW)
    invoices.approve(invoice=invoice, now=NOW)
    assert balance(invoice.session.account) == 0
    assert balance(ledger.free(invoice.session.pool)) == 97 * USDC


def test_rejecting_moves_nothing_and_starts_the_clock() -> None:
    invoice = submitted()
    with unmoved():
        invoices.reject(invoice=invoice, reason="empty", now=NOW)
    invoice.refresh_from_db()
    due = NOW + timedelta(seconds=settings.REJECTION_WINDOW)
    assert (invoice.status, invoice.reason, invoice.review_by) == ("rejected", "empty", due)
    with unmoved(), pytest.raises(StateConflict):
        invoices.reject(invoice=invoice, reason="again", now=NOW)


def test_a_rejected_invoice_can_be_approved_after_all() -> None:
    invoice = submitted(3 * USDC)
    invoices.reject(invoice=invoice, reason="empty", now=NOW)
    invoices.approve(invoice=invoice, now=NOW)
    assert balance(ledger.payable(invoice.session.pool, invoice.party)) == 3 * USDC


@pytest.mark.parametrize("after", ["submitted", "rejected"])
def test_withdrawing_gives_all_of_the_hold_back(after: str) -> None:
    invoice = submitted(3 * USDC, 10 * USDC)
    if after == "rejected":
        invoices.reject(invoice=invoice, reason="empty", now=NOW)
    invoices.withdraw(invoice=invoice, now=NOW)
    assert balance(invoice.session.account) == 25 * USDC
    with unmoved():
        invoices.withdraw(invoice=invoice, now=NOW)
        with pytest.raises(StateConflict):
            invoices.approve(invoice=invoice, now=NOW)


def test_an_approved_invoice_is_neither_rejected_nor_withdrawn() -> None:
    invoice = submitted()
    invoices.approve(invoice=invoice, now=NOW)
    with unmoved(), pytest.raises(StateConflict):
        invoices.reject(invoice=invoice, reason="late", now=NOW)
    with unmoved(), pytest.raises(StateConflict):
        invoices.withdraw(invoice=invoice, now=NOW)


def test_silence_approves_when_the_window_ends_and_not_before() -> None:
    invoice = submitted(3 * USDC)
    with unmoved():
        assert invoices.approve_by_silence(now=REVIEWED - timedelta(seconds=1), limit=9) == 0
    assert invoices.approve_by_silence(now=REVIEWED, limit=9) == 1
    invoice.refresh_from_db()
    assert invoice.status == "approved"
    with unmoved():
        assert invoices.approve_by_silence(now=REVIEWED, limit=9) == 0


def test_silence_does_not_approve_what_was_rejected_while_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    invoice = submitted()
    lock = invoices.locked

    def rejected_first(stale: Invoice) -> Invoice:
        Invoice.objects.filter(pk=stale.pk).update(status="rejected", review_by=REVIEWED + timedelta(hours=72))
        return lock(stale)

    monkeypatch.setattr(invoices, "locked", rejected_first)
    with unmoved():
        invoices.approve_by_silence(now=REVIEWED, limit=9)
    invoice.refresh_from_db()
    assert invoice.status == "rejected"


def test_silence_takes_as_many_as_it_may() -> None:
    for _ in range(3):
        submitted()
    assert invoices.approve_by_silence(now=REVIEWED, limit=2) == 2
    assert invoices.approve_by_silence(now=REVIEWED, limit=2) == 1
