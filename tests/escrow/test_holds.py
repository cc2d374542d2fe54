"""`escrow.holds`: placed under the policy, and released once."""

import pytest

from escrow import holds, invoices, ledger, pools, sessions
from escrow.errors import InsufficientFunds, InvalidInput, PolicyDenied, StateConflict
from escrow.models import Hold, Payment, Session
from escrow.policy import Policy
from escrow.sessions import SessionBalances
from tests.escrow import books
from tests.escrow.books import NOW, USDC, balance, unmoved

pytestmark = pytest.mark.django_db


def test_a_hold_takes_money_from_the_session() -> None:
    spending, to = books.session(micros=25 * USDC), books.party()
    held = books.hold(spending, to, 10 * USDC)
    assert (held.status, held.amount_micros) == ("held", 10 * USDC)
    assert sessions.balances(spending) == SessionBalances(25 * USDC, 0, 10 * USDC, 15 * USDC)


@pytest.mark.parametrize(
    ("limits", "rule"),
    [
        (Policy(max_per_tx=USDC - 1), "max_per_tx"),
        (Policy(max_total=USDC - 1), "max_total"),
        (Policy(allowed_recipients=("other.acme.dev",)), "allowed_recipients"),
        (Policy(denied_recipients=("*.acme.dev",)), "denied_recipients"),
        (Policy(expires_at=NOW), "expires_at"),
    ],
)
def test_a_hold_is_under_the_same_policy_as_a_payment(limits: Policy, rule: str) -> None:
    spending, to = books.session(policy=limits), books.party()
    with unmoved(), pytest.raises(PolicyDenied) as caught:
        books.hold(spending, to, USDC)
    assert caught.value.facts["rule"] == rule
    assert not Hold.objects.exists()


def test_a_hold_over_what_is_left_is_refused() -> None:
    spending, to = books.session(micros=10), books.party()
    with unmoved(), pytest.raises(InsufficientFunds):
        books.hold(spending, to, 11)


@pytest.mark.parametrize("ended", ["session", "pool"])
def test_a_hold_needs_an_open_session_in_an_open_pool(ended: str) -> None:
    spending = books.session()
    if ended == "session":
        sessions.close(session=spending, now=NOW)
    else:
        pools.close(pool=spending.pool, now=NOW)
    with unmoved(), pytest.raises(StateConflict):
        books.hold(spending, books.party(), 1)


def test_a_release_gives_all_back_once() -> None:
    spending, to = books.session(micros=25 * USDC), books.party()
    held = books.hold(spending, to, 10 * USDC)
    holds.release(hold=held, now=NOW)
    assert balance(spending.account) == 25 * USDC
    with unmoved():
        assert holds.release(hold=held, now=NOW).status == "released"


def test_a_release_after_the_session_goes_to_the_pool() -> None:
    of = books.pool(100 * USDC)
    spending = books.session(of, 25 * USDC)
    held = books.hold(spending, books.party(), 10 * USDC)
    sessions.close(session=spending, now=NOW)
    holds.release(hold=held, now=NOW)
    assert balance(ledger.free(of)) == 100 * USDC
    assert Session.objects.get().status == "closed"


def test_a_captured_part_is_a_debt_and_the_rest_goes_back() -> None:
    spending, to = books.session(micros=25 * USDC), books.party()
    held = books.hold(spending, to, 10 * USDC)
    payment = holds.capture(
        hold=held, amount_micros=3 * USDC, kind=Payment.Kind.INVOICE, idempotency_key="invoice of a test"
    )
    assert (payment.amount_micros, payment.remaining_micros) == (3 * USDC, 22 * USDC)
    assert (balance(held.account), balance(spending.account)) == (0, 22 * USDC)
    assert balance(ledger.payable(spending.pool, to)) == 3 * USDC


@pytest.mark.parametrize("micros", [0, -1, 11])
def test_no_more_than_is_held_is_captured(micros: int) -> None:
    held = books.hold(books.session(), books.party(), 10)
    with unmoved(), pytest.raises(InvalidInput):
        holds.capture(hold=held, amount_micros=micros, kind=Payment.Kind.INVOICE, idempotency_key="x")


def test_a_hold_ends_once() -> None:
    captured = books.hold(books.session(), books.party(), 10)
    invoices.approve(invoice=books.invoice(captured, 10), now=NOW)
    with unmoved(), pytest.raises(StateConflict):
        holds.release(hold=captured, now=NOW)
    released = books.hold(books.session(), books.party(), 10)
    holds.release(hold=released, now=NOW)
    with unmoved(), pytest.raises((StateConflict, InvalidInput)):
        holds.capture(hold=released, amount_micros=1, kind=Payment.Kind.INVOICE, idempotency_key="x")
