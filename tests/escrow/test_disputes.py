"""`escrow.disputes`: opening, answering, ruling, and what silence decides."""

from datetime import timedelta

import pytest
from django.conf import settings

from escrow import disputes, invoices, ledger, refunds, sessions, silence
from escrow.errors import InvalidInput, StateConflict
from escrow.models import Account, Batch, BatchRecord, ChainAction, Dispute, Invoice, Payment, Reason
from tests.escrow import books
from tests.escrow.books import NOW, USDC, balance, unmoved
from tests.escrow.test_settlement import settle

pytestmark = pytest.mark.django_db
ANSWER_BY = NOW + timedelta(seconds=settings.ANSWER_WINDOW)
RULE_BY = NOW + timedelta(seconds=settings.RULING_WINDOW)


def rejected(micros: int = 3 * USDC) -> Invoice:
    spending = books.session(micros=25 * USDC)
    invoice = books.invoice(books.hold(spending, books.party(), 10 * USDC), micros)
    return invoices.reject(invoice=invoice, reason="empty", now=NOW)


def of_invoice(micros: int = 3 * USDC) -> Dispute:
    return disputes.open_for_invoice(invoice=rejected(micros), reason="The brief is empty.", now=NOW)


def of_payment(micros: int = 8_000) -> Dispute:
    payment = books.pay(books.session(micros=25 * USDC), books.party(), micros)
    return disputes.open_for_payment(payment=payment, amount_micros=micros, reason="Wrong file.", now=NOW)


def settled(micros: int = 8_000) -> Payment:
    """Return a payment that has landed, as the indexer leaves it."""
    payment = books.pay(books.session(micros=25 * USDC), books.party(), micros)
    settle(payment.pool)
    Payment.objects.filter(pk=payment.pk).update(status="settled")
    Batch.objects.filter(records__payments=payment).update(status="settled", settled_at=NOW)
    batch = BatchRecord.objects.get(payments=payment).batch
    move = ledger.Move(batch.account, ledger.credited(payment.pool, payment.party), micros, Reason.CREDIT, "0x1:0")
    ledger.post([move])
    return payment


def rule(dispute: Dispute, bps: int) -> Dispute:
    return disputes.rule(dispute=dispute, to_provider_bps=bps, reason="As agreed.", ruled_by="admin", now=NOW)


# --- opening ------------------------------------------------------------------------------------------------------


def test_a_disputed_invoice_waits_in_an_account_of_its_own() -> None:
    dispute = of_invoice(3 * USDC)
    assert (dispute.status, dispute.on_chain, dispute.amount_micros) == ("open", False, 3 * USDC)
    assert dispute.answer_by == ANSWER_BY
    assert balance(dispute.account) == 3 * USDC
    assert balance(dispute.session.account) == 22 * USDC
    assert dispute.invoice is not None
    dispute.invoice.refresh_from_db()
    assert dispute.invoice.status == "disputed"


def test_a_disputed_debt_leaves_what_is_payable() -> None:
    dispute = of_payment(8_000)
    assert dispute.payment is not None
    assert balance(dispute.account) == 8_000
    assert balance(ledger.payable(dispute.session.pool, dispute.party)) == 0
    with unmoved(), pytest.raises(StateConflict):
        refunds.pay(payment=dispute.payment, reason="x", now=NOW)


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_a_dispute_has_a_reason(reason: str) -> None:
    invoice = rejected()
    payment = books.pay(invoice.session, invoice.party, 1)
    with unmoved(), pytest.raises(InvalidInput):
        disputes.open_for_invoice(invoice=invoice, reason=reason, now=NOW)
    with unmoved(), pytest.raises(InvalidInput):
        disputes.open_for_payment(payment=payment, amount_micros=1, reason=reason, now=NOW)
    assert not Dispute.objects.exists()


def test_what_is_approved_or_withdrawn_is_not_disputed() -> None:
    for end in (invoices.approve, invoices.withdraw):
        invoice = rejected()
        end(invoice=invoice, now=NOW)
        with unmoved(), pytest.raises(StateConflict):
            disputes.open_for_invoice(invoice=invoice, reason="x", now=NOW)


def test_an_invoice_is_disputed_once() -> None:
    dispute = of_invoice()
    assert dispute.invoice is not None
    with unmoved(), pytest.raises(StateConflict):
        disputes.open_for_invoice(invoice=dispute.invoice, reason="x", now=NOW)


@pytest.mark.parametrize("micros", [0, 7_999, 8_001])
def test_a_debt_is_disputed_as_a_whole(micros: int) -> None:
    payment = books.pay(books.session(), books.party(), 8_000)
    with unmoved(), pytest.raises(InvalidInput) as caught:
        disputes.open_for_payment(payment=payment, amount_micros=micros, reason="x", now=NOW)
    assert caught.value.facts["would_pass"] == '"0.008"'


def test_a_refunded_or_settling_payment_is_not_disputed() -> None:
    spending, to = books.session(), books.party()
    refunded, settling = books.pay(spending, to, 1), books.pay(spending, to, 1)
    refunds.pay(payment=refunded, reason="x", now=NOW)
    settle(spending.pool)
    for payment in (refunded, settling):
        with unmoved(), pytest.raises(StateConflict):
            disputes.open_for_payment(payment=payment, amount_micros=1, reason="x", now=NOW)


def test_a_settled_payment_is_disputed_on_chain_and_nothing_moves_yet() -> None:
    payment = settled(8_000)
    with unmoved():
        dispute = disputes.open_for_payment(payment=payment, amount_micros=5_000, reason="x", now=NOW)
    assert (dispute.status, dispute.on_chain) == ("opening", True)
    action = ChainAction.objects.get(kind="dispute")
    assert (action.status, action.subject_id, action.pool) == ("planned", dispute.pk, payment.pool)
    with unmoved(), pytest.raises(InvalidInput) as caught:
        disputes.open_for_payment(payment=payment, amount_micros=3_001, reason="x", now=NOW)
    assert caught.value.facts["would_pass"] == '"0.003" or less'


def test_the_chain_s_own_words_move_disputed_money() -> None:
    payment = settled(8_001)
    pool, to = payment.pool, payment.party
    dispute = disputes.open_for_payment(payment=payment, amount_micros=8_001, reason="x", now=NOW)
    reference = disputes.reference(dispute.pk)
    disputes.disputed(pool, to, reference=reference, amount_micros=8_001, ref="0x2:0", at=NOW)
    dispute.refresh_from_db()
    assert (dispute.status, balance(dispute.account), balance(ledger.credited(pool, to))) == ("open", 8_001, 0)
    with unmoved():
        assert rule(dispute, 7_000).status == "ruling"
    assert ChainAction.objects.get(kind="resolve").subject_id == dispute.pk
    disputes.resolved(
        pool, to, reference=reference, to_provider=5_600, to_payer=2_401, by_timeout=False, ref="0x3:0", at=NOW
    )
    dispute.refresh_from_db()
    assert (dispute.status, dispute.to_provider_bps, dispute.to_provider_micros) == ("ruled", 7_000, 5_600)
    assert (balance(dispute.account), balance(ledger.credited(pool, to))) == (0, 5_600)
    assert balance(ledger.free(pool)) == 75 * USDC + 2_401
    books.check_pool(pool)


def test_a_dispute_that_the_contract_refuses_is_failed() -> None:
    payment = settled()
    dispute = disputes.open_for_payment(payment=payment, amount_micros=8_000, reason="x", now=NOW)
    with unmoved():
        disputes.opening_failed(dispute.pk, reason="The money had matured.")
        disputes.opening_failed(dispute.pk, reason="again")
        again = disputes.open_for_payment(payment=payment, amount_micros=8_000, reason="x", now=NOW)
    dispute.refresh_from_db()
    assert (dispute.status, dispute.ruling_reason, again.status) == ("failed", "The money had matured.", "opening")


# --- answering ----------------------------------------------------------------------------------------------------


def test_an_answer_is_given_once() -> None:
    dispute = of_invoice()
    with unmoved():
        answered = disputes.answer(dispute=dispute, answer="It is not empty.", now=NOW)
    assert (answered.status, answered.answer, answered.rule_by) == ("answered", "It is not empty.", RULE_BY)
    with unmoved(), pytest.raises(StateConflict):
        disputes.answer(dispute=dispute, answer="And more.", now=NOW)
    with unmoved(), pytest.raises(InvalidInput):
        disputes.answer(dispute=dispute, answer=" ", now=NOW)


# --- ruling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("micros", "bps", "to_provider"),
    [
        (2_400_000, 7_000, 1_680_000),
        (2_400_001, 7_000, 1_680_000),
        (2_400_009, 7_000, 1_680_006),
        (3, 5_000, 1),
        (1, 9_999, 0),
        (2_400_000, 0, 0),
        (2_400_000, 10_000, 2_400_000),
    ],
)
def test_a_ruling_splits_to_the_micro(micros: int, bps: int, to_provider: int) -> None:
    ruled = rule(of_invoice(micros), bps)
    pool = ruled.session.pool
    assert (ruled.status, ruled.to_provider_micros, ruled.ruled_by) == ("ruled", to_provider, "admin")
    assert balance(ruled.account) == 0
    assert balance(ledger.payable(pool, ruled.party)) == to_provider
    assert balance(ruled.session.account) == 25 * USDC - to_provider
    assert (ruled.ruled_payment is not None) == (to_provider > 0)
    if ruled.ruled_payment is not None:
        debt = ruled.ruled_payment
        assert (debt.kind, debt.amount_micros, debt.status) == ("ruling", to_provider, "payable")
    assert ruled.invoice is not None
    assert ruled.invoice.status == "ruled"


def test_a_disputed_debt_is_split_the_same_way() -> None:
    ruled = rule(of_payment(8_001), 7_000)
    assert balance(ledger.payable(ruled.session.pool, ruled.party)) == 5_600
    assert balance(ruled.session.account) == 25 * USDC - 5_600
    assert ruled.payment is not None
    assert ruled.payment.status == "disputed"


def test_the_payer_s_part_goes_to_the_pool_when_the_session_is_closed() -> None:
    dispute = of_invoice(3 * USDC)
    sessions.close(session=dispute.session, now=NOW)
    rule(dispute, 7_000)
    assert balance(ledger.free(dispute.session.pool)) == 100 * USDC - 2_100_000


def test_a_dispute_is_ruled_once() -> None:
    dispute = of_invoice()
    rule(dispute, 7_000)
    for bps in (7_000, 0):
        with unmoved(), pytest.raises(StateConflict):
            rule(dispute, bps)


@pytest.mark.parametrize("bps", [-1, 10_001])
def test_a_ruling_is_within_the_whole(bps: int) -> None:
    dispute = of_invoice()
    with unmoved(), pytest.raises(InvalidInput):
        rule(dispute, bps)


def test_a_ruling_has_a_reason() -> None:
    dispute = of_invoice()
    with unmoved(), pytest.raises(InvalidInput):
        disputes.rule(dispute=dispute, to_provider_bps=1, reason=" ", ruled_by="admin", now=NOW)


def test_a_ruling_is_final() -> None:
    debt = rule(of_invoice(), 7_000).ruled_payment
    assert debt is not None
    with unmoved(), pytest.raises(StateConflict, match="a ruling is final"):
        disputes.open_for_payment(payment=debt, amount_micros=debt.amount_micros, reason="again", now=NOW)


# --- silence ------------------------------------------------------------------------------------------------------


def test_silence_on_a_rejection_is_a_dispute() -> None:
    invoice = rejected()
    due = NOW + timedelta(seconds=settings.REJECTION_WINDOW)
    with unmoved():
        assert silence.rule_by_silence(now=due - timedelta(seconds=1), limit=9) == 0
    assert silence.rule_by_silence(now=due, limit=9) == 1
    dispute = Dispute.objects.get(invoice=invoice)
    assert dispute.reason.endswith("The buyer's reason: empty")
    assert balance(dispute.account) == 3 * USDC


def test_silence_of_the_provider_gives_all_back() -> None:
    dispute = of_invoice(3 * USDC)
    with unmoved():
        assert silence.rule_by_silence(now=ANSWER_BY - timedelta(seconds=1), limit=9) == 0
    assert silence.rule_by_silence(now=ANSWER_BY, limit=9) == 1
    dispute.refresh_from_db()
    assert (dispute.status, dispute.to_provider_bps, dispute.ruled_by) == ("ruled", 0, "silence")
    assert balance(dispute.session.account) == 25 * USDC


def test_silence_of_the_judge_splits_evenly_and_the_odd_micro_is_the_payer_s() -> None:
    dispute = disputes.answer(dispute=of_invoice(3), answer="no", now=NOW)
    with unmoved():
        assert silence.rule_by_silence(now=RULE_BY - timedelta(seconds=1), limit=9) == 0
    assert silence.rule_by_silence(now=RULE_BY, limit=9) == 1
    assert balance(ledger.payable(dispute.session.pool, dispute.party)) == 1
    assert balance(dispute.session.account) == 25 * USDC - 1


def test_silence_does_not_rule_what_was_answered_while_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    dispute = of_invoice()
    lock = disputes.locked_with_accounts

    def answered_first(stale: Dispute) -> Dispute:
        Dispute.objects.filter(pk=stale.pk).update(status="answered", answer="no", rule_by=RULE_BY)
        return lock(stale)

    monkeypatch.setattr(disputes, "locked_with_accounts", answered_first)
    with unmoved():
        assert silence.rule_by_silence(now=ANSWER_BY, limit=9) == 0
    dispute.refresh_from_db()
    assert dispute.status == "answered"


def test_silence_on_chain_asks_the_contract() -> None:
    payment = settled()
    dispute = disputes.open_for_payment(payment=payment, amount_micros=8_000, reason="x", now=NOW)
    reference = disputes.reference(dispute.pk)
    disputes.disputed(payment.pool, payment.party, reference=reference, amount_micros=8_000, ref="0x2:0", at=NOW)
    Dispute.objects.filter(pk=dispute.pk).update(created_at=NOW)
    with unmoved():
        assert silence.rule_by_silence(now=dispute.created_at + timedelta(days=15), limit=9) == 1
    assert ChainAction.objects.get(kind="resolve_by_timeout").subject_id == dispute.pk
    assert Account.objects.get(pk=dispute.account_id).kind == "contested"
