"""`escrow.sessions`: a cap that is a balance."""

from datetime import timedelta

import pytest

from escrow import ledger, pools, sessions
from escrow.errors import InsufficientFunds, NotFound, StateConflict
from escrow.models import Pool, Session
from escrow.policy import Policy
from escrow.sessions import SessionBalances
from tests.escrow import books
from tests.escrow.books import NOW, USDC, balance, unmoved

pytestmark = pytest.mark.django_db


def test_a_budget_leaves_the_pool_for_the_session() -> None:
    of = books.pool(100 * USDC)
    spending = sessions.open(pool=of, budget_micros=25 * USDC, policy=Policy(max_per_tx=50_000), now=NOW, name="review")
    assert (spending.status, spending.name, spending.policy) == ("open", "review", {"max_per_tx": "0.05"})
    assert (balance(spending.account), balance(ledger.free(of))) == (25 * USDC, 75 * USDC)
    assert sessions.balances(spending) == SessionBalances(25 * USDC, 0, 0, 25 * USDC)


def test_a_budget_over_what_the_pool_has_is_refused() -> None:
    of = books.pool(10 * USDC)
    with unmoved(), pytest.raises(InsufficientFunds) as caught:
        sessions.open(pool=of, budget_micros=10 * USDC + 1, policy=Policy(), now=NOW)
    assert caught.value.facts == {"remaining": "10.00", "required": "10.000001", "would_allow": "10.00"}
    assert not Session.objects.exists()


@pytest.mark.parametrize("status", ["opening", "closing", "closed", "failed"])
def test_only_an_open_pool_has_sessions(status: str) -> None:
    of = books.pool()
    Pool.objects.filter(pk=of.pk).update(status=status)
    with unmoved(), pytest.raises(StateConflict) as caught:
        sessions.open(pool=of, budget_micros=1, policy=Policy(), now=NOW)
    assert caught.value.facts == {"subject": "pool", "state": status}


def test_a_top_up_adds_to_the_budget() -> None:
    of = books.pool(100 * USDC)
    spending = books.session(of, 10 * USDC)
    for _ in range(2):
        sessions.top_up(session=spending, amount_micros=5 * USDC, now=NOW)
    assert sessions.balances(spending) == SessionBalances(20 * USDC, 0, 0, 20 * USDC)
    assert balance(ledger.free(of)) == 80 * USDC


def test_a_top_up_is_refused_when_there_is_too_little_or_no_more_spending() -> None:
    of = books.pool(10 * USDC)
    spending = books.session(of, 9 * USDC)
    with unmoved(), pytest.raises(InsufficientFunds):
        sessions.top_up(session=spending, amount_micros=1 * USDC + 1, now=NOW)
    sessions.close(session=spending, now=NOW)
    with unmoved(), pytest.raises(StateConflict, match="The session is closed"):
        sessions.top_up(session=spending, amount_micros=1, now=NOW)
    other = books.session(of, 1)
    pools.close(pool=of, now=NOW)
    with unmoved(), pytest.raises(StateConflict, match="The pool is closing"):
        sessions.top_up(session=other, amount_micros=1, now=NOW)


def test_an_expired_session_takes_no_top_up() -> None:
    spending = sessions.open(pool=books.pool(), budget_micros=USDC, policy=Policy(), now=NOW, expires_at=NOW)
    with unmoved(), pytest.raises(StateConflict) as caught:
        sessions.top_up(session=spending, amount_micros=1, now=NOW)
    assert caught.value.facts == {"subject": "session", "state": "expired"}
    assert sessions.close(session=spending, now=NOW + timedelta(days=1)).status == "closed"


def test_closing_gives_the_rest_back_once() -> None:
    of = books.pool(100 * USDC)
    spending, to = books.session(of, 25 * USDC), books.party()
    books.pay(spending, to, 8_000)
    books.hold(spending, to, 10 * USDC)
    spending = sessions.close(session=spending, now=NOW)
    assert sessions.balances(spending) == SessionBalances(25 * USDC, 8_000, 10 * USDC, 0)
    assert balance(ledger.free(of)) == 90 * USDC - 8_000
    with unmoved():
        assert sessions.close(session=spending, now=NOW).status == "closed"


def test_the_lines_of_a_session_are_what_it_sent_and_received() -> None:
    spending = books.session(micros=USDC)
    books.pay(spending, books.party(), 8_000)
    assert [(line.reason, line.amount_micros) for line in ledger.sent_by(spending.account)] == [("payment", 8_000)]
    assert [(line.reason, line.amount_micros) for line in ledger.received_by(spending.account)] == [
        ("session_open", USDC)
    ]


def test_a_session_that_is_not_there() -> None:
    with pytest.raises(NotFound):
        sessions.reread(books.party().pk)
