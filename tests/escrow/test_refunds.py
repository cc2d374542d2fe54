"""`escrow.refunds`: all or a part goes back, before a payment has landed and after it; asked for, granted, declined, lapsed."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import Sum

from escrow import budgets, disputes, invoices, ledger, payments, pools, receipts, refunds, sessions, settlement
from escrow.chain import wire
from escrow.chain.signer import LocalSigner
from escrow.errors import InvalidInput, NotRefundable, StateConflict
from escrow.models import DUE, Deduction, Event, Party, Payment, Pool, Refund, Session, Transfer
from escrow.policy import Policy
from tests.escrow import books
from tests.escrow.books import NOW, USDC, balance, unmoved
from tests.escrow.test_settlement import settle

pytestmark = pytest.mark.django_db
LATER = NOW + timedelta(seconds=settings.REFUND_WINDOW)


def back(payment: Payment, micros: int | None = None, reason: str = "unparsable") -> Payment:
    return refunds.pay(payment=payment, amount_micros=micros, reason=reason, now=NOW)


def land(of: Pool) -> None:
    """Settle what a pool owes, and let it land."""
    books.land(settle(of), tx_hash=f"0x{uuid4().hex:0>64}")


def landed(micros: int = 10_000) -> tuple[Session, Party, Payment]:
    """Return a session, whom it paid, and a payment that has landed."""
    spending, to = books.session(micros=USDC), books.party()
    payment = books.pay(spending, to, micros)
    land(spending.pool)
    payment.refresh_from_db()
    assert payment.status == "settled"
    return spending, to, payment


def state(payment: Payment) -> tuple[str, int, int]:
    """Return the status of a payment, what went back of it, and what of it is due."""
    payment.refresh_from_db()
    return str(payment.status), payment.refunded_micros, payment.due_micros


def check_debts(of: Pool) -> None:
    """Check that each party is owed what its payable payments have due, and that nobody got back more than was paid."""
    for account in of.accounts.filter(kind="payable"):
        owing = Payment.objects.filter(pool=of, party=account.party, status="payable")
        assert account.balance_micros == (owing.aggregate(s=Sum(DUE))["s"] or 0)
    for payment in Payment.objects.filter(pool=of):
        went = payment.refunds.filter(status="paid").aggregate(s=Sum("amount_micros"))["s"] or 0
        assert (went, payment.deductions.aggregate(s=Sum("amount_micros"))["s"] or 0) == (
            payment.refunded_micros,
            payment.deducted_micros,
        )
        assert 0 <= went <= payment.amount_micros
    for refund in Refund.objects.filter(payment__pool=of):
        taken = refund.deductions.aggregate(s=Sum("amount_micros"))["s"] or 0
        moved = Transfer.objects.filter(reason="refund", ref=str(refund.pk)).aggregate(s=Sum("amount_micros"))["s"] or 0
        assert taken == moved == (refund.amount_micros if refund.status == "paid" else 0)


# --- before it has landed -----------------------------------------------------------------------------------------


def test_a_refund_goes_back_to_the_session_once() -> None:
    spending, to = books.session(micros=10_000), books.party()
    payment = books.pay(spending, to, 4_000)
    back(payment)
    assert state(payment) == ("refunded", 4_000, 0)
    assert payment.reason == "unparsable"
    assert balance(spending.account) == 10_000
    assert balance(ledger.payable(spending.pool, to)) == 0
    with unmoved():
        again = back(payment, reason="other")
    assert again.reason == "unparsable"
    check_debts(spending.pool)


def test_parts_go_back_until_the_payment_is_used_up() -> None:
    spending, to = books.session(micros=10_000), books.party()
    payment = books.pay(spending, to, 4_000)
    back(payment, 1)
    back(payment, 2_999)
    assert state(payment) == ("payable", 3_000, 1_000)
    assert balance(spending.account) == 9_000
    with unmoved(), pytest.raises(InvalidInput) as caught:
        back(payment, 1_001)
    assert caught.value.facts["would_pass"] == '"0.001" or less'
    back(payment)
    assert state(payment) == ("refunded", 4_000, 0)
    assert list(Refund.objects.order_by("pk").values_list("amount_micros", "status")) == [
        (1, "paid"), (2_999, "paid"), (1_000, "paid"),
    ]  # fmt: skip
    with unmoved(), pytest.raises(StateConflict) as gone:
        back(payment, 1)
    assert gone.value.facts == {"subject": "payment", "state": "refunded"}
    check_debts(spending.pool)


def test_both_sides_are_told_of_each_part_and_of_the_end() -> None:
    payment = books.pay(books.session(), books.party(), 3_000)
    back(payment, 1_000)
    back(payment)
    told = Event.objects.filter(type__startswith="refund").order_by("pk")
    assert [(event.type, event.payload["amount"], event.payload["payment_id"]) for event in told] == [
        ("refund.paid", "0.001", str(payment.pk)),
        ("refund.paid", "0.002", str(payment.pk)),
    ]
    assert {(event.payer_id, event.party_id) for event in told} == {(payment.payer_id, payment.party_id)}
    assert Event.objects.get(type="payment.refunded").payload["amount"] == "0.003"


def test_the_transfer_names_its_refund() -> None:
    payment = books.pay(books.session(), books.party(), 3_000)
    back(payment, 1_000)
    back(payment, 1_000)  # the same sum between the same accounts again
    refs = Transfer.objects.filter(reason="refund").order_by("pk").values_list("ref", flat=True)
    assert list(refs) == [str(refund.pk) for refund in Refund.objects.order_by("pk")]


def test_a_partly_refunded_payment_settles_for_what_is_left() -> None:
    spending, to = books.session(micros=USDC), books.party()
    payment, other = books.pay(spending, to, 10_000), books.pay(spending, to, 500)
    back(payment, 4_000)
    batch = settle(spending.pool)
    assert list(batch.records.values_list("amount_micros", flat=True)) == [6_500]
    payment.refresh_from_db()
    proof = receipts.prove(payment=payment, now=NOW)
    assert proof.leaf.amount == 6_000
    assert wire.verify_proof(bytes.fromhex(batch.root[2:]), proof.leaf, list(proof.proof))
    assert receipts.prove(payment=Payment.objects.get(pk=other.pk), now=NOW).leaf.amount == 500


def test_a_refund_to_a_closed_session_goes_to_its_pool() -> None:
    of = books.pool(10 * USDC)
    spending = books.session(of, USDC)
    payment = books.pay(spending, books.party(), 4_000)
    sessions.close(session=spending, now=NOW)
    back(payment, 1_000)
    assert budgets.of(spending).spent == 3_000
    back(payment)
    assert (balance(spending.account), balance(ledger.free(of))) == (0, 10 * USDC)
    assert budgets.of(spending).spent == 0


def test_a_refund_of_a_closed_pool_is_refused() -> None:
    spending = books.session()
    payment = books.pay(spending, books.party(), 4_000)
    free = ledger.balance(ledger.world(spending.pool))
    pools.reclaimed(spending.pool, amount_micros=-free, ref="0x1:0", at=NOW)
    for verb in (refunds.pay, refunds.ask):
        with unmoved(), pytest.raises(StateConflict) as caught:
            verb(payment=payment, reason="x", now=NOW)
        assert caught.value.facts == {"subject": "pool", "state": "closed"}


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_a_refund_has_a_reason(reason: str) -> None:
    payment = books.pay(books.session(), books.party(), 4_000)
    for verb in (refunds.pay, refunds.ask):
        with unmoved(), pytest.raises(InvalidInput):
            verb(payment=payment, reason=reason, now=NOW)


def test_what_is_on_its_way_or_disputed_does_not_go_back() -> None:
    spending, to = books.session(), books.party()
    settling, disputed = books.pay(spending, to, 10), books.pay(spending, to, 20)
    disputes.open_for_payment(payment=disputed, reason="x", now=NOW)
    settle(spending.pool)
    for payment, seen in ((settling, "settling"), (disputed, "disputed")):
        with unmoved(), pytest.raises(StateConflict) as caught:
            back(payment, 1)
        assert caught.value.facts == {"subject": "payment", "state": seen}
        assert state(payment)[1] == 0
    assert not Refund.objects.exists()


def test_a_refund_makes_room_under_the_total_only_for_what_came_back() -> None:
    spending, to = books.session(micros=10_000), books.party()
    back(books.pay(spending, to, 10_000), 4_000)
    books.pay(spending, to, 4_000)
    assert balance(spending.account) == 0


# --- after it has landed ------------------------------------------------------------------------------------------


def test_what_has_landed_is_paid_out_of_what_is_owed_and_has_not() -> None:
    spending, to, payment = landed(10_000)
    newer = books.pay(spending, to, 50_000)
    back(payment, 4_000)
    assert state(payment) == ("settled", 4_000, 10_000)
    assert state(newer) == ("payable", 0, 46_000)
    assert balance(ledger.credited(spending.pool, to)) == 10_000
    assert balance(spending.account) == USDC - 56_000
    assert list(Deduction.objects.values_list("payment", "amount_micros")) == [(newer.pk, 4_000)]
    check_debts(spending.pool)


def test_the_newest_debts_pay_first_and_one_used_up_is_offset() -> None:
    spending, to, payment = landed(10_000)
    oldest, middle, newest = (books.pay(spending, to, micros) for micros in (5_000, 3_000, 2_000))
    moments = ((oldest, 3), (middle, 2), (newest, 1))
    for debt, hours in moments:
        Payment.objects.filter(pk=debt.pk).update(created_at=NOW - timedelta(hours=hours))
    back(payment, 6_000)
    assert [state(debt) for debt in (oldest, middle, newest)] == [
        ("payable", 0, 4_000), ("offset", 0, 0), ("offset", 0, 0),
    ]  # fmt: skip
    check_debts(spending.pool)
    batch = settle(spending.pool)
    assert list(batch.records.values_list("amount_micros", flat=True)) == [4_000]
    for used_up in (middle, newest):
        used_up.refresh_from_db()
        with unmoved(), pytest.raises(StateConflict, match="offset"):
            receipts.prove(payment=used_up, now=NOW)


def test_more_than_is_owed_and_not_settled_is_refused_and_says_how_much_would_do() -> None:
    spending, to, payment = landed(10_000)
    books.pay(spending, to, 3_000)
    books.pay(spending, books.party(), 9_000)  # another's
    books.pay(books.session(), to, 9_000)  # in another pool
    with unmoved(), pytest.raises(NotRefundable) as caught:
        back(payment)
    assert caught.value.facts == {"subject": "payment", "state": "settled", "would_allow": "0.003"}
    assert not Refund.objects.exists()
    back(payment, 3_000)
    with unmoved(), pytest.raises(NotRefundable) as none:
        back(payment)
    assert none.value.facts["would_allow"] == "0.00"
    assert state(payment) == ("settled", 3_000, 10_000)


def test_a_debt_pays_for_its_own_refund_before_another_does() -> None:
    spending, to, old = landed(10_000)
    first, second = books.pay(spending, to, 6_000), books.pay(spending, to, 6_000)
    for debt, hours in ((first, 2), (second, 1)):
        Payment.objects.filter(pk=debt.pk).update(created_at=NOW - timedelta(hours=hours))
    back(old, 2_000)
    assert [state(debt)[2] for debt in (first, second)] == [6_000, 4_000]
    back(second)  # 4,000 of its own, and 2,000 of the first
    assert (state(first), state(second)) == (("payable", 0, 4_000), ("refunded", 6_000, 0))
    check_debts(spending.pool)


def test_an_offset_payment_can_be_refunded_itself() -> None:
    spending, to, old = landed(10_000)
    used_up = books.pay(spending, to, 6_000)
    back(old, 6_000)
    assert state(used_up) == ("offset", 0, 0)
    with unmoved(), pytest.raises(NotRefundable):
        back(used_up)
    other = books.pay(spending, to, 7_000)
    back(used_up, 1_000)
    assert state(used_up) == ("offset", 1_000, 0)
    back(used_up)
    assert (state(used_up), state(other)) == (("refunded", 6_000, 0), ("payable", 0, 1_000))
    check_debts(spending.pool)


def test_what_has_landed_can_go_back_as_a_whole_and_buys_nothing_then() -> None:
    spending, to, payment = landed(10_000)
    books.pay(spending, to, 10_000)
    back(payment)
    assert state(payment) == ("settled", 10_000, 10_000)
    assert Event.objects.filter(type="payment.refunded", subject_id=payment.pk).count() == 1
    with unmoved(), pytest.raises(StateConflict) as caught:
        payments.redeem(payment=payment, party_id=to.pk, request_hash="a" * 64, now=NOW)
    assert caught.value.facts["state"] == "refunded"


def test_an_offset_payment_still_buys_its_request() -> None:
    spending, to, old = landed(10_000)
    used_up = books.pay(spending, to, 6_000)
    back(old, 6_000)
    bought = payments.redeem(payment=used_up, party_id=to.pk, request_hash="a" * 64, now=NOW)
    assert bought.redeemed_at == NOW


def test_an_invoice_and_a_ruling_can_go_back_and_pay_for_others() -> None:
    spending, to, payment = landed(10_000)
    invoice = invoices.approve(invoice=books.invoice(books.hold(spending, to, 20_000), 8_000), now=NOW)
    assert invoice.payment is not None
    back(payment, 5_000)
    assert state(invoice.payment) == ("payable", 0, 3_000)
    back(invoice.payment, 1_000)
    assert state(invoice.payment) == ("payable", 1_000, 2_000)
    check_debts(spending.pool)


def test_a_voided_batch_gives_its_debts_back_for_what_was_due_of_them() -> None:
    spending, to = books.session(micros=USDC), books.party()
    payment = books.pay(spending, to, 10_000)
    back(payment, 4_000)
    settlement.void(batch=settle(spending.pool))
    assert state(payment) == ("payable", 4_000, 6_000)
    back(payment, 1_000)
    check_debts(spending.pool)
    assert [record.amount_micros for record in settle(spending.pool).records.all()] == [5_000]


def test_no_more_debts_than_the_limit_pay_for_one_refund(settings) -> None:
    settings.REFUND_MAX_DEBTS = 2
    spending, to, payment = landed(10_000)
    for _ in range(3):
        books.pay(spending, to, 100)
    with unmoved(), pytest.raises(NotRefundable) as caught:
        back(payment, 300)
    assert caught.value.facts["would_allow"] == "0.0002"
    back(payment, 200)
    assert Counter(Payment.objects.values_list("status", flat=True)) == {"settled": 1, "offset": 2, "payable": 1}


def test_the_database_keeps_what_was_signed() -> None:
    spending, _, payment = landed(10_000)
    fresh = books.pay(spending, books.party(), 10)
    back(fresh, 4)
    wrong = [
        (payment, {"deducted_micros": 1}, "its batch was signed"),
        (payment, {"refunded_micros": 10_001}, "payment_refunded_at_most_once"),
        (fresh, {"deducted_micros": 3}, "only grows"),
        (fresh, {"refunded_micros": 0}, "only grows"),
        (fresh, {"deducted_micros": 10}, "payment_used_up_when_gone"),
    ]
    for row, change, said in wrong:
        with pytest.raises(IntegrityError, match=said), transaction.atomic():
            Payment.objects.filter(pk=row.pk).update(**change)
    with pytest.raises(IntegrityError, match="refused"), transaction.atomic():
        Deduction.objects.all().delete()


# --- disputes beside it -------------------------------------------------------------------------------------------


def test_a_payable_payment_is_disputed_for_what_is_left_of_it() -> None:
    spending, to = books.session(micros=USDC), books.party()
    payment = books.pay(spending, to, 10_000)
    back(payment, 4_000)
    with unmoved(), pytest.raises(InvalidInput) as caught:
        disputes.open_for_payment(payment=payment, amount_micros=10_000, reason="x", now=NOW)
    assert caught.value.facts["would_pass"] == '"0.006"'
    dispute = disputes.open_for_payment(payment=payment, reason="x", now=NOW)
    assert (dispute.amount_micros, balance(dispute.account)) == (6_000, 6_000)
    disputes.rule(dispute=dispute, to_provider_bps=5_000, reason="half", ruled_by="ada", now=NOW)
    assert balance(spending.account) == USDC - 3_000
    check_debts(spending.pool)


def test_what_went_back_is_not_disputed_on_chain_too() -> None:
    spending, to, payment = landed(10_000)
    books.pay(spending, to, 4_000)
    back(payment, 4_000)
    with unmoved(), pytest.raises(InvalidInput) as caught:
        disputes.open_for_payment(payment=payment, amount_micros=6_001, reason="x", now=NOW)
    assert caught.value.facts["would_pass"] == '"0.006" or less'
    assert disputes.open_for_payment(payment=payment, reason="x", now=NOW).amount_micros == 6_000


def test_what_is_disputed_on_chain_does_not_go_back_too() -> None:
    spending, to, payment = landed(10_000)
    books.pay(spending, to, 10_000)
    dispute = disputes.open_for_payment(payment=payment, amount_micros=3_000, reason="x", now=NOW)
    with unmoved(), pytest.raises(StateConflict) as caught:
        back(payment, 1)
    assert caught.value.facts == {"subject": "payment", "state": "disputed"}
    reference = disputes.reference(dispute.pk)
    where = {"reference": reference, "ref": "0x2:0", "at": NOW}
    disputes.disputed(payment.pool, to, amount_micros=3_000, **where)
    disputes.resolved(payment.pool, to, to_provider=0, to_payer=3_000, by_timeout=True, **{**where, "ref": "0x3:0"})
    with unmoved(), pytest.raises(InvalidInput):
        back(payment, 7_001)
    back(payment)
    assert state(payment) == ("settled", 7_000, 10_000)


def test_a_closed_session_has_spent_what_did_not_come_back() -> None:
    spending, to, old = landed(10_000)
    helper, disputed = books.pay(spending, to, 3_000), books.pay(spending, to, 5_000)
    back(disputed, 1_000)
    Payment.objects.filter(pk=disputed.pk).update(created_at=NOW + timedelta(hours=1))
    back(old, 2_000)  # out of the newest, which is disputed then
    disputes.open_for_payment(payment=disputed, reason="x", now=NOW)
    sessions.close(session=spending, now=NOW)
    # 8,000 of the old one, 3,000 of the helper, 4,000 of the disputed one
    assert budgets.of(spending).spent == 15_000
    assert helper.due_micros == 3_000


# --- asked for ----------------------------------------------------------------------------------------------------


def asked(payment: Payment, micros: int | None = None) -> Refund:
    return refunds.ask(payment=payment, amount_micros=micros, reason="nothing came", now=NOW)


def test_a_payer_asks_and_the_provider_grants() -> None:
    spending, to = books.session(micros=10_000), books.party()
    payment = books.pay(spending, to, 4_000)
    with unmoved():
        refund = asked(payment, 1_500)
    assert (refund.status, refund.amount_micros, refund.answer_by) == ("requested", 1_500, LATER)
    granted = refunds.grant(refund=refund, now=NOW)
    assert (granted.status, granted.answered_at) == ("paid", NOW)
    assert state(payment) == ("payable", 1_500, 2_500)
    assert balance(spending.account) == 7_500
    with unmoved():
        assert refunds.grant(refund=refund, now=NOW).status == "paid"
    assert list(Event.objects.filter(subject_type="refund").order_by("pk").values_list("type", flat=True)) == [
        "refund.requested", "refund.paid",
    ]  # fmt: skip
    check_debts(spending.pool)


def test_a_provider_declines_and_the_payer_can_dispute() -> None:
    payment = books.pay(books.session(), books.party(), 4_000)
    refund = asked(payment)
    with unmoved():
        declined = refunds.decline(refund=refund, reason="It was served.", now=NOW)
    assert (declined.status, declined.answer) == ("declined", "It was served.")
    for verb in (
        lambda: refunds.grant(refund=refund, now=NOW),
        lambda: refunds.decline(refund=refund, reason="again", now=NOW),
    ):
        with unmoved(), pytest.raises(StateConflict) as caught:
            verb()
        assert caught.value.facts == {"subject": "refund", "state": "declined"}
    assert disputes.open_for_payment(payment=payment, reason="It was not.", now=NOW).status == "open"
    assert Event.objects.get(type="refund.declined").payload["reason"] == "It was served."


def test_silence_lapses_a_request_and_says_what_is_next() -> None:
    payment = books.pay(books.session(), books.party(), 4_000)
    refund = asked(payment)
    with unmoved():
        assert refunds.lapse_by_silence(now=LATER - timedelta(microseconds=1), limit=9) == 0
        with pytest.raises(StateConflict) as caught:
            refunds.grant(refund=refund, now=LATER)  # the sweep has not come yet
        assert caught.value.facts == {"subject": "refund", "state": "lapsed"}
        assert refunds.lapse_by_silence(now=LATER, limit=9) == 1
        assert refunds.lapse_by_silence(now=LATER, limit=9) == 0
    refund.refresh_from_db()
    assert (refund.status, refund.answered_at) == ("lapsed", LATER)
    assert "Dispute the payment" in refund.answer
    assert state(payment) == ("payable", 0, 4_000)
    assert asked(payment).status == "requested"  # it can be asked for again


def test_a_request_waits_no_longer_than_the_pool_allows() -> None:
    of = books.pool(expires_in=timedelta(hours=2))
    refund = asked(books.pay(books.session(of, USDC), books.party(), 4_000))
    assert refund.answer_by == NOW + timedelta(hours=1)


def test_one_request_of_a_payment_waits_at_a_time() -> None:
    payment = books.pay(books.session(), books.party(), 4_000)
    asked(payment, 1)
    with unmoved(), pytest.raises(StateConflict) as caught:
        asked(payment, 2)
    assert caught.value.facts == {"subject": "refund", "state": "requested"}


def test_no_more_is_asked_for_than_is_left() -> None:
    payment = books.pay(books.session(), books.party(), 4_000)
    back(payment, 1_000)
    with unmoved(), pytest.raises(InvalidInput):
        asked(payment, 3_001)
    assert asked(payment).amount_micros == 3_000


def test_a_request_of_what_went_back_meanwhile_lapses_with_it() -> None:
    payment = books.pay(books.session(), books.party(), 4_000)
    refund = asked(payment, 3_000)
    back(payment, 2_000)
    with unmoved(), pytest.raises(InvalidInput, match=r"0\.002"):
        refunds.grant(refund=refund, now=NOW)
    back(payment)
    refund.refresh_from_db()
    assert (refund.status, refund.answer) == ("lapsed", "The whole payment has gone back.")
    assert state(payment) == ("refunded", 4_000, 0)


def test_a_request_of_a_payment_that_is_settling_is_granted_once_it_has_landed() -> None:
    spending, to = books.session(micros=USDC), books.party()
    payment = books.pay(spending, to, 10_000)
    batch = settle(spending.pool)
    refund = asked(payment)
    with unmoved(), pytest.raises(StateConflict) as caught:
        refunds.grant(refund=refund, now=NOW)
    assert caught.value.facts["state"] == "settling"
    books.land(batch, tx_hash="0x" + "0c" * 32)
    with unmoved(), pytest.raises(NotRefundable):
        refunds.grant(refund=refund, now=NOW)
    refund.refresh_from_db()
    assert refund.status == "requested"
    books.pay(spending, to, 12_000)
    refunds.grant(refund=refund, now=NOW)
    assert state(payment) == ("settled", 10_000, 10_000)


def test_a_ruling_is_not_asked_back() -> None:
    spending, to = books.session(), books.party()
    dispute = disputes.open_for_payment(payment=books.pay(spending, to, 4_000), reason="x", now=NOW)
    ruled = disputes.rule(dispute=dispute, to_provider_bps=10_000, reason="fine", ruled_by="ada", now=NOW)
    assert ruled.ruled_payment is not None
    with unmoved(), pytest.raises(StateConflict, match="final"):
        asked(ruled.ruled_payment)
    with unmoved(), pytest.raises(StateConflict, match="disputed"):
        asked(Payment.objects.get(pk=dispute.payment_id))


# --- at once ------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_whole_refunds_at_once_move_money_once() -> None:
    spending, to = books.session(micros=100), books.party()
    payment = books.pay(spending, to, 40)
    start = threading.Barrier(8)

    def attempt(_: int) -> str:
        start.wait(30)
        try:
            return str(back(payment).status)
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as threads:
        assert Counter(threads.map(attempt, range(8))) == {"refunded": 8}
    assert Transfer.objects.filter(reason="refund").count() == 1
    assert balance(spending.account) == 100


@pytest.mark.django_db(transaction=True)
def test_fifty_at_once_refund_a_payment_in_parts_and_never_more_than_it() -> None:
    spending, to = books.session(micros=1_000), books.party()
    payment = books.pay(spending, to, 100)
    books.pay(spending, to, 500)  # which must not pay for what is not left of the first
    start = threading.Barrier(50)

    def attempt(_: int) -> str:
        start.wait(60)
        try:
            back(payment, 3)
        except (InvalidInput, StateConflict):
            return "refused"
        finally:
            connection.close()
        return "paid"

    with ThreadPoolExecutor(50) as threads:
        answers = Counter(threads.map(attempt, range(50)))
    assert answers == {"paid": 33, "refused": 17}
    assert state(payment) == ("payable", 99, 1)
    assert balance(spending.account) == 1_000 - 600 + 99
    check_debts(spending.pool)


@pytest.mark.django_db(transaction=True)
def test_two_refunds_at_once_of_the_last_micro_are_one() -> None:
    spending, to, payment = landed(10)
    for part in (4, 5):
        books.pay(spending, to, part)
        back(payment, part)
    books.pay(spending, to, 100)
    start = threading.Barrier(2)

    def attempt(_: int) -> str:
        start.wait(30)
        try:
            back(payment, 1)
        except (InvalidInput, StateConflict):
            return "refused"
        finally:
            connection.close()
        return "paid"

    with ThreadPoolExecutor(2) as threads:
        assert Counter(threads.map(attempt, range(2))) == {"paid": 1, "refused": 1}
    assert state(payment) == ("settled", 10, 10)
    check_debts(spending.pool)


@pytest.mark.django_db(transaction=True)
def test_a_refund_that_meets_a_settlement_is_in_the_batch_or_back_and_never_both() -> None:
    spending, to = books.session(micros=USDC), books.party()
    authorizer = LocalSigner(b"\1" * 32)
    for _ in range(12):
        payment = books.pay(spending, to, 1_000)
        before = balance(spending.account)
        start = threading.Barrier(2)

        def settles(start: threading.Barrier = start) -> object:
            start.wait(30)
            try:
                return settlement.settle(pool=spending.pool, authorizer=authorizer, now=NOW)
            finally:
                connection.close()

        def refunds_it(payment: Payment = payment, start: threading.Barrier = start) -> bool:
            start.wait(30)
            try:
                back(payment)
            except StateConflict:
                return False
            finally:
                connection.close()
            return True

        with ThreadPoolExecutor(2) as threads:
            batch, went = threads.submit(settles), threads.submit(refunds_it)
        if went.result():
            assert (state(payment), batch.result()) == (("refunded", 1_000, 0), None)
            assert balance(spending.account) == before + 1_000
        else:
            assert state(payment) == ("settling", 0, 1_000)
            assert balance(spending.account) == before
        check_debts(spending.pool)
        books.check_conservation()


@pytest.mark.django_db(transaction=True)
def test_netted_refunds_payments_and_settlements_at_once_keep_the_sums_in_step() -> None:
    spending, to = books.session(micros=USDC), books.party()
    old = [books.pay(spending, to, 500) for _ in range(10)]
    land(spending.pool)
    authorizer = LocalSigner(b"\1" * 32)

    def attempt(number: int) -> str:
        try:
            match number % 5:
                case 0:
                    settlement.settle(pool=spending.pool, authorizer=authorizer, now=NOW)
                case 1 | 2:
                    books.pay(spending, to, 100)
                case _:
                    back(old[number % 10], 70)
        except (InvalidInput, StateConflict):
            return "refused"
        finally:
            connection.close()
        return "done"

    with ThreadPoolExecutor(16) as threads:
        answers = Counter(threads.map(attempt, range(100)))
    assert answers["done"] >= 60
    check_debts(spending.pool)
    at = books.check_pool(spending.pool)
    settling = Payment.objects.filter(status="settling").aggregate(s=Sum(DUE))["s"] or 0
    assert at.settling == settling
    went = Refund.objects.filter(status="paid").aggregate(s=Sum("amount_micros"))["s"] or 0
    assert balance(spending.account) == USDC - 5_000 - 40 * 100 + went


# --- what is stopped ----------------------------------------------------------------------------------------------


def test_a_refund_reaches_a_paused_session_and_the_one_above_a_closed_one() -> None:
    above, to = books.session(micros=USDC), books.party()
    child = sessions.open_child(parent=above, budget_micros=10_000, policy=Policy(), now=NOW)
    payment = books.pay(child, to, 4_000)
    sessions.pause(session=child, now=NOW)
    back(payment, 1_000)
    assert balance(child.account) == 7_000
    sessions.close(session=child, now=NOW)
    back(payment)
    assert (balance(child.account), balance(above.account)) == (0, USDC)
    check_debts(child.pool)
