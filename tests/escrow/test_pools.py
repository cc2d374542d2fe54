"""`escrow.pools`: opening, closing, the mirror of the chain, and balances that add up."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from escrow import funding, holds, invoices, ledger, pools, refunds
from escrow.errors import InvalidInput, StateConflict
from escrow.models import ChainAction, Pool, Session
from tests.escrow import books
from tests.escrow.books import NOW, USDC, balance, check_pool, unmoved, wait_for_a_lock

pytestmark = pytest.mark.django_db


def test_a_pool_holds_nothing_until_the_chain_says_so() -> None:
    with unmoved():
        asked = pools.open(payer_id=uuid4(), deposit_micros=25 * USDC, now=NOW)
    assert (asked.status, asked.requested_micros, asked.fee_bps) == ("opening", 25 * USDC, settings.FEE_BPS)
    assert ChainAction.objects.get(kind="open_pool").pool == asked
    assert check_pool(asked).deposited == 0
    with unmoved(), pytest.raises(StateConflict):
        books.session(asked, 1)


@pytest.mark.parametrize(
    "terms",
    [
        {"expires_in": timedelta(minutes=59)},
        {"expires_in": timedelta(days=367)},
        {"dispute_window_seconds": -1},
        {"dispute_window_seconds": 30 * 24 * 3600 + 1},
        {"deposit_micros": 2**40},
    ],
)
def test_terms_outside_the_limits_are_refused(terms: dict[str, object]) -> None:
    with unmoved(), pytest.raises(InvalidInput):
        pools.open(**({"payer_id": uuid4(), "deposit_micros": USDC, "now": NOW} | terms))
    assert not Pool.objects.exists()
    assert not ChainAction.objects.exists()


def test_an_open_pool_has_what_arrived() -> None:
    at = check_pool(books.pool(25 * USDC))
    assert (at.deposited, at.available) == (25 * USDC, 25 * USDC)


def test_a_top_up_moves_nothing_until_the_chain_says_so() -> None:
    of = books.pool(25 * USDC)
    with unmoved():
        pools.top_up(pool=of, amount_micros=5 * USDC, now=NOW)
    funding.topped_up(of, amount_micros=5 * USDC, ref="0x2:0")
    assert check_pool(of).deposited == 30 * USDC


def test_a_pool_that_never_opened_is_failed() -> None:
    asked = pools.open(payer_id=uuid4(), deposit_micros=USDC, now=NOW)
    with unmoved():
        pools.opening_failed(asked, reason="no funds")
        pools.opening_failed(asked, reason="again")
    asked.refresh_from_db()
    assert (asked.status, asked.reason) == ("failed", "no funds")


def test_the_money_of_a_pool_adds_up_wherever_it_is() -> None:
    of = books.pool(100 * USDC)
    spending, to = books.session(of, 25 * USDC), books.party()
    books.pay(spending, to, 8_000)
    refunds.pay(payment=books.pay(spending, to, 9_000), reason="x", now=NOW)
    books.hold(spending, to, 2 * USDC)
    invoices.approve(invoice=books.invoice(books.hold(spending, to, USDC), 400_000), now=NOW)
    at = check_pool(of)
    assert (at.available, at.held, at.payable) == (75 * USDC, 2 * USDC, 408_000)
    assert at.in_sessions == 25 * USDC - 2_408_000


def test_closing_ends_every_session_and_takes_no_more() -> None:
    of = books.pool(100 * USDC)
    one, other = books.session(of, 25 * USDC), books.session(of, 5 * USDC)
    books.pay(one, books.party(), 8_000)
    pools.close(pool=of, now=NOW)
    of.refresh_from_db()
    assert of.status == "closing"
    assert set(Session.objects.values_list("status", flat=True)) == {"closed"}
    assert (balance(one.account), balance(other.account)) == (0, 0)
    assert check_pool(of).available == 100 * USDC - 8_000
    with unmoved():
        pools.close(pool=of, now=NOW)
        with pytest.raises(StateConflict):
            books.session(of, 1)
        with pytest.raises(StateConflict):
            pools.top_up(pool=of, amount_micros=1, now=NOW)


def test_the_way_out_waits_for_debts_then_for_the_delay_then_reclaims() -> None:
    of = books.pool(100 * USDC)
    spending = books.session(of, 25 * USDC)
    held = books.hold(spending, books.party(), USDC)
    pools.close(pool=of, now=NOW)
    with unmoved():
        assert pools.close_due(now=NOW, limit=9) == 0
    holds.give_back(hold=held, now=NOW)
    with unmoved():
        assert pools.close_due(now=NOW, limit=9) == 1
        assert ChainAction.objects.filter(kind="request_close").count() == 1
        reclaimable = NOW + timedelta(hours=1)
        pools.close_requested(Pool.objects.get(), reclaimable_at=reclaimable, at=NOW)
        pools.close_due(now=reclaimable - timedelta(seconds=1), limit=9)
        assert not ChainAction.objects.filter(kind="reclaim").exists()
        pools.close_due(now=reclaimable, limit=9)
        pools.close_due(now=reclaimable, limit=9)
    assert ChainAction.objects.filter(kind="reclaim").count() == 1
    pools.reclaimed(Pool.objects.get(), amount_micros=100 * USDC, ref="0x3:0", at=reclaimable)
    of.refresh_from_db()
    at = check_pool(of)
    assert (of.status, at.available, at.reclaimed) == ("closed", 0, 100 * USDC)


def test_a_reclaim_past_us_sweeps_what_was_set_aside() -> None:
    of = books.pool(100 * USDC)
    spending, to = books.session(of, 25 * USDC), books.party()
    debt = books.pay(spending, to, 8_000)
    invoice = books.invoice(books.hold(spending, to, USDC), USDC)
    pools.reclaimed(of, amount_micros=100 * USDC, ref="0x3:0", at=NOW)
    at = check_pool(of)
    assert (at.reclaimed, at.available, at.payable, at.held, at.in_sessions) == (100 * USDC, 0, 0, 0, 0)
    assert balance(ledger.world(of)) == 0
    with unmoved():
        with pytest.raises(StateConflict):
            refunds.pay(payment=debt, reason="x", now=NOW)
        with pytest.raises(StateConflict):
            books.pay(spending, to, 1)
        assert invoices.approve_by_silence(now=invoice.review_by, limit=9) == 0


def test_a_payer_who_asks_the_contract_to_close_closes_here_too() -> None:
    of = books.pool()
    spending = books.session(of, USDC)
    pools.close_requested(of, reclaimable_at=NOW + timedelta(hours=1), at=NOW)
    of.refresh_from_db()
    assert (of.status, balance(spending.account)) == ("closing", 0)


def test_a_pool_near_its_expiry_is_closed_while_its_timers_still_fit() -> None:
    now = timezone.now()
    of = books.pool(expires_in=now - NOW + timedelta(days=90))
    early = of.expires_at - timedelta(seconds=settings.POOL_CLOSE_MARGIN)
    three_quarters = of.created_at + (of.expires_at - of.created_at) * 0.75
    start = max(early, three_quarters)
    pools.close_due(now=start - timedelta(seconds=1), limit=9)
    of.refresh_from_db()
    assert of.status == "open"
    pools.close_due(now=start + timedelta(seconds=1), limit=9)
    of.refresh_from_db()
    assert of.status == "closing"


@pytest.mark.django_db(transaction=True)
def test_a_pool_that_is_closed_while_its_deposit_arrives_waits_for_nobody_that_waits_for_it() -> None:
    asked = pools.open(payer_id=uuid4(), deposit_micros=25 * USDC, now=NOW)
    books.bind(asked)
    mine = ledger.free(asked)

    def arrives() -> None:
        try:
            with transaction.atomic():
                funding.opened(Pool.objects.get(pk=asked.pk), deposit_micros=25 * USDC, ref="0x1:0", at=NOW)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic():
            ledger.lock([mine])
            arriving = threads.submit(arrives)
            wait_for_a_lock(1)
            Pool.objects.select_for_update(nowait=True).get(pk=asked.pk)  # it waits with nothing in its hands
        arriving.result()
    assert pools.close(pool=asked, now=NOW).status == "closing"
    assert check_pool(asked).available == 25 * USDC
