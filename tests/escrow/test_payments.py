"""`escrow.payments`: send, the one door; redeem."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction

from escrow import holds, invoices, ledger, payments, pools, refunds, sessions
from escrow.errors import (
    AlreadyRedeemed,
    EscrowError,
    IdempotencyConflict,
    InsufficientFunds,
    InvalidInput,
    NotFound,
    PolicyDenied,
    StateConflict,
)
from escrow.models import Party, Payment, Session, Transfer
from escrow.policy import Policy
from tests.escrow import books
from tests.escrow.books import LINT, NOW, USDC, balance, unmoved

pytestmark = pytest.mark.django_db


def refused(by: Session, to: Party, micros: int, kind: type[EscrowError], **how: str) -> EscrowError:
    """Pay, see it refused, and see that nothing is left of it."""
    before = Payment.objects.count()
    with unmoved(), pytest.raises(kind) as caught:
        books.pay(by, to, micros, **how)
    assert Payment.objects.count() == before
    return caught.value


# --- send ---------------------------------------------------------------------------------------------------------


def test_a_payment_is_a_debt_at_once() -> None:
    spending, to = books.session(micros=25 * USDC), books.party()
    sent = payments.send(
        session_id=spending.pk,
        party_id=to.pk,
        to=LINT,
        amount_micros=8_000,
        metadata={"file": "a.py"},
        idempotency_key="k",
        request_hash=b"\1" * 32,
        now=NOW,
    )
    paid = Payment.objects.get(pk=sent.payment.pk)
    assert not sent.replayed
    assert (paid.status, paid.kind, paid.amount_micros, paid.remaining_micros) == ("payable", "call", 8_000, 24_992_000)
    assert (paid.to, paid.party, paid.metadata) == (LINT, to, {"file": "a.py"})
    assert balance(spending.account) == 24_992_000
    assert balance(ledger.payable(spending.pool, to)) == 8_000


def test_the_same_request_again_moves_nothing() -> None:
    spending, to = books.session(micros=10_000), books.party()
    first = books.pay(spending, to, 10_000, key="k")
    with unmoved():
        again = books.pay(spending, to, 10_000, key="k")
    assert again.pk == first.pk
    assert again.remaining_micros == 0


def test_a_replay_is_answered_whatever_happened_since() -> None:
    spending, to = books.session(), books.party()
    first = books.pay(spending, to, 1, key="k")
    sessions.close(session=spending, now=NOW)
    pools.close(pool=spending.pool, now=NOW)
    with unmoved():
        assert books.pay(spending, to, 1, key="k").pk == first.pk


def test_another_request_with_the_same_key_is_refused() -> None:
    spending, to = books.session(), books.party()
    books.pay(spending, to, 1, key="k")
    with unmoved(), pytest.raises(IdempotencyConflict) as caught:
        books.pay(spending, to, 2, key="k", request=b"\2" * 32)
    assert caught.value.facts == {"idempotency_key": "k"}


def test_a_key_is_its_session_s_own() -> None:
    of, to = books.pool(), books.party()
    one, other = books.session(of, USDC), books.session(of, USDC)
    assert books.pay(one, to, 1, key="k").pk != books.pay(other, to, 1, key="k").pk
    assert balance(ledger.payable(of, to)) == 2


def test_a_refused_payment_leaves_its_key_free() -> None:
    spending, to = books.session(micros=1), books.party()
    refused(spending, to, 2, InsufficientFunds, key="k")
    sessions.top_up(session=spending, amount_micros=1, now=NOW)
    assert books.pay(spending, to, 2, key="k").amount_micros == 2


def test_more_than_is_left_is_refused() -> None:
    spending, to = books.session(micros=10_000), books.party()
    books.pay(spending, to, 4_000)
    error = refused(spending, to, 6_001, InsufficientFunds)
    checkpoint = {"budget": "0.01", "spent": "0.004", "remaining": "0.006"}
    assert error.facts == {
        "remaining": "0.006", "required": "0.006001", "would_allow": "0.006", "checkpoint": checkpoint,
    }  # fmt: skip
    assert error.retryable
    books.pay(spending, to, 6_000)
    assert balance(spending.account) == 0


@pytest.mark.promise("S7")
def test_more_than_the_policy_allows_for_one_payment_is_refused() -> None:
    spending, to = books.session(policy=Policy(max_per_tx=50_000)), books.party()
    error = refused(spending, to, 50_001, PolicyDenied)
    assert error.facts == {"rule": "max_per_tx", "limit": "0.05", "would_allow": "0.05", "policy_version": 1}
    books.pay(spending, to, 50_000)


def test_more_than_the_policy_allows_in_all_is_refused() -> None:
    spending, to = books.session(policy=Policy(max_total=10_000)), books.party()
    books.pay(spending, to, 3_000)
    books.hold(spending, to, 4_000)
    error = refused(spending, to, 3_001, PolicyDenied)
    assert error.facts == {
        "rule": "max_total",
        "limit": "0.01",
        "would_allow": "0.003",
        "spent": "0.007",
        "policy_version": 1,
    }
    books.pay(spending, to, 3_000)


def test_a_refund_makes_room_under_the_total() -> None:
    spending, to = books.session(policy=Policy(max_total=10_000)), books.party()
    payment = books.pay(spending, to, 10_000)
    refused(spending, to, 1, PolicyDenied)
    refunds.pay(payment=payment, reason="x", now=NOW)
    books.pay(spending, to, 10_000)


@pytest.mark.parametrize("agent", ["agent://acme.dev", "agent://lint.evilacme.dev", "agent://lint.acme.dev.evil"])
@pytest.mark.promise("S8")
def test_a_recipient_that_is_not_allowed_is_refused(agent: str) -> None:
    spending, to = books.session(policy=Policy(allowed_recipients=("*.acme.dev",))), books.party()
    error = refused(spending, to, 1, PolicyDenied, agent=agent)
    assert error.facts["rule"] == "allowed_recipients"
    assert error.facts["would_allow"] == ["*.acme.dev"]
    books.pay(spending, to, 1)


def test_a_denied_recipient_is_refused() -> None:
    spending, to = books.session(policy=Policy(denied_recipients=("lint.acme.dev",))), books.party()
    assert refused(spending, to, 1, PolicyDenied).facts["rule"] == "denied_recipients"
    books.pay(spending, to, 1, agent="agent://other.acme.dev")


def test_an_ended_policy_pays_nothing() -> None:
    spending, to = books.session(policy=Policy(expires_at=NOW)), books.party()
    assert refused(spending, to, 1, PolicyDenied).facts["rule"] == "expires_at"


def test_an_expired_session_pays_nothing() -> None:
    spending = sessions.open(pool=books.pool(), budget_micros=1, policy=Policy(), now=NOW, expires_at=NOW)
    assert refused(spending, books.party(), 1, StateConflict).facts["state"] == "expired"


def test_a_closed_session_pays_nothing() -> None:
    spending = books.session()
    sessions.close(session=spending, now=NOW)
    assert refused(spending, books.party(), 1, StateConflict).facts == {"subject": "session", "state": "closed"}


def test_a_pool_on_its_way_out_pays_nothing() -> None:
    spending = books.session()
    pools.close(pool=spending.pool, now=NOW)
    assert refused(spending, books.party(), 1, StateConflict).facts == {"subject": "pool", "state": "closing"}


def test_what_no_record_could_carry_is_refused() -> None:
    spending = books.session(books.pool(2**40 - 1), 2**40 - 1)
    refused(spending, books.party(), 2**40, InvalidInput)
    books.pay(spending, books.party(), 2**40 - 1)


def test_a_session_or_a_recipient_that_is_not_there() -> None:
    spending, to = books.session(), books.party()
    refused(spending, Party(pk=uuid4()), 1, NotFound)
    refused(Session(pk=uuid4()), to, 1, NotFound)


@pytest.mark.parametrize("micros", [0, -1])
def test_the_database_refuses_a_payment_of_nothing_or_less(micros: int) -> None:
    spending, to = books.session(), books.party()
    with unmoved(), pytest.raises(IntegrityError, match="payment_positive"), transaction.atomic():
        books.pay(spending, to, micros)


@pytest.mark.django_db(transaction=True)
@pytest.mark.promise("S6", "S20")
def test_two_hundred_at_once_on_a_budget_of_a_hundred_pay_exactly_a_hundred() -> None:
    spending, parties = books.session(micros=100), [books.party() for _ in range(3)]

    def attempt(number: int) -> str:
        try:
            books.pay(spending, parties[number % 3], 1, key=f"k{number}")
        except InsufficientFunds:
            return "refused"
        finally:
            connection.close()
        return "paid"

    with ThreadPoolExecutor(24) as threads:
        answers = Counter(threads.map(attempt, range(200)))
    assert answers == {"paid": 100, "refused": 100}
    assert balance(spending.account) == 0
    assert Payment.objects.count() == Transfer.objects.filter(reason="payment").count() == 100
    assert sorted(Payment.objects.values_list("remaining_micros", flat=True)) == list(range(100))


@pytest.mark.django_db(transaction=True)
@pytest.mark.promise("S29")
def test_one_request_sent_at_once_fifty_times_pays_once() -> None:
    spending, to = books.session(micros=100), books.party()
    start = threading.Barrier(25)

    def attempt(number: int) -> str:
        start.wait(30)
        try:
            return str(books.pay(spending, to, 7, key="k", request=bytes([number % 2]) * 32).pk)
        except IdempotencyConflict:
            return "conflict"
        finally:
            connection.close()

    with ThreadPoolExecutor(25) as threads:
        answers = Counter(threads.map(attempt, range(50)))
    assert answers.pop("conflict") == 25
    assert list(answers.values()) == [25]
    assert balance(spending.account) == 93


# --- redeem -------------------------------------------------------------------------------------------------------


def test_a_payment_buys_one_request() -> None:
    to = books.party()
    payment = books.pay(books.session(), to, 1)
    with unmoved():
        bought = payments.redeem(payment=payment, party_id=to.pk, request_hash="a" * 64, now=NOW)
        assert (bought.redeemed_hash, bought.redeemed_at) == ("a" * 64, NOW)
        later = NOW + timedelta(seconds=9)
        again = payments.redeem(payment=payment, party_id=to.pk, request_hash="a" * 64, now=later)
        assert again.redeemed_at == NOW
        with pytest.raises(AlreadyRedeemed):
            payments.redeem(payment=payment, party_id=to.pk, request_hash="b" * 64, now=NOW)


def test_another_party_s_payment_is_not_there() -> None:
    payment = books.pay(books.session(), books.party(), 1)
    with pytest.raises(NotFound):
        payments.redeem(payment=payment, party_id=books.party().pk, request_hash="a" * 64, now=NOW)
    payment.refresh_from_db()
    assert payment.redeemed_hash == ""


def test_a_refunded_payment_buys_nothing() -> None:
    to = books.party()
    payment = books.pay(books.session(), to, 1)
    refunds.pay(payment=payment, reason="x", now=NOW)
    with unmoved(), pytest.raises(StateConflict) as caught:
        payments.redeem(payment=payment, party_id=to.pk, request_hash="a" * 64, now=NOW)
    assert caught.value.facts["state"] == "refunded"


def test_a_payment_that_bought_finished_work_buys_no_call() -> None:
    to = books.party()
    invoice = books.invoice(books.hold(books.session(), to), USDC)
    payment = invoices.approve(invoice=invoice, now=NOW).payment
    assert payment is not None
    with unmoved(), pytest.raises(StateConflict, match="buys no call"):
        payments.redeem(payment=payment, party_id=to.pk, request_hash="a" * 64, now=NOW)


def test_a_key_that_a_buyer_may_choose_never_stands_in_the_way_of_an_invoice() -> None:
    spending, to = books.session(), books.party()
    invoice = books.invoice(books.hold(spending, to), USDC)
    books.pay(spending, to, 1, key=f"invoice:{invoice.pk}")
    assert invoices.approve(invoice=invoice, now=NOW).status == "approved"


def test_holds_and_payments_share_one_budget() -> None:
    spending, to = books.session(micros=10), books.party()
    held = holds.place(session=spending, amount_micros=6, party=to, to=LINT, now=NOW)
    refused(spending, to, 5, InsufficientFunds)
    holds.give_back(hold=held, now=NOW)
    books.pay(spending, to, 10)
