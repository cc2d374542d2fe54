"""`escrow.pausing`: while the chain stands still debts grow up to a bound, then nothing new is spent until it goes on."""

import logging
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.conf import settings as configured

from escrow import gauges, holds, ledger, offchain, pausing, pools, refunds
from escrow.errors import SettlementPaused, StateConflict
from escrow.ledger import Move
from escrow.models import ChainCursor, Denial, Pool, Reason, Session
from tests.escrow import books
from tests.escrow.books import NOW, USDC, balance, unmoved

pytestmark = pytest.mark.django_db
LONG, SHORT = timedelta(seconds=300, microseconds=1), timedelta(seconds=300)
OTHER = "0x" + "99" * 20


@pytest.fixture(autouse=True)
def _bounds(settings: Any) -> None:
    settings.CHAIN_SILENT_SECONDS, settings.UNSETTLED_MICROS = 300, 2 * USDC


def silent(since: timedelta | None = LONG, contract: str = "", **changes: Any) -> ChainCursor:
    """The indexer has read up to a block, and the newest that it was told of is so old."""
    contract = contract or configured.ESCROW_ADDRESS
    return ChainCursor.objects.create(
        chain_id=configured.CHAIN_ID, contract_address=contract, block_number=1, block_hash="0x1", block_time=NOW,
        read_at=NOW, head_time=None if since is None else NOW - since, **changes,
    )  # fmt: skip


def block(at: datetime = NOW) -> None:
    ChainCursor.objects.update(head_time=at)


def is_paused() -> bool:
    return ChainCursor.objects.filter(paused_at__isnull=False).exists()


def owing(micros: int) -> Session:
    session = books.session()
    books.pay(session, books.party(), micros)
    return session


@pytest.mark.parametrize(
    ("since", "micros", "pauses"),
    [
        (LONG, 2 * USDC, True),
        (LONG, 2 * USDC - 1, False),
        (SHORT, 2 * USDC, False),
        (None, 2 * USDC, False),
    ],
    ids=["silent and enough", "a micro-USDC less", "a microsecond less", "no block was read yet"],
)
def test_it_takes_a_silent_chain_and_the_whole_bound(since: timedelta | None, micros: int, pauses: bool) -> None:
    owing(micros)
    silent(since)
    with unmoved():
        assert pausing.look(now=NOW) is pauses
        assert is_paused() is pauses
        assert pausing.look(now=NOW) is False  # it has said so


def test_nothing_is_read_yet() -> None:
    owing(2 * USDC)
    assert pausing.look(now=NOW) is False


def test_what_is_owed_is_what_no_batch_has_and_what_is_in_one_over_all_pools_of_the_contract() -> None:
    session, other = owing(USDC), owing(500_000)
    assert pausing.unsettled_micros() == 1_500_000
    settling = ledger.open_account(pausing.Kind.SETTLING, pool=session.pool, subject="batch")
    party = session.payments.get().party
    move = Move(ledger.payable(session.pool, party), settling, 400_000, Reason.SETTLE, "batch")
    ledger.post([move])
    assert pausing.unsettled_micros() == 1_500_000
    Pool.objects.filter(pk=other.pool_id).update(contract_address=OTHER)
    assert pausing.unsettled_micros() == 1_000_000


def test_new_spending_is_refused_and_put_on_record_and_what_was_begun_goes_on() -> None:
    session, to = books.session(), books.party()
    paid = books.pay(session, to, 2 * USDC, key="before")
    placed = books.hold(session, to, 3 * USDC, expires_in=60)
    silent()
    assert pausing.look(now=NOW)
    with unmoved():
        with pytest.raises(SettlementPaused) as refusal:
            books.pay(session, to, 1)
        with pytest.raises(SettlementPaused):
            books.hold(session, to, 1)
        assert books.pay(session, to, 2 * USDC, key="before").pk == paid.pk
    assert (refusal.value.retryable, refusal.value.outcome) == (True, "not_charged")
    assert list(Denial.objects.values_list("rule", flat=True)) == ["settlement_paused"]
    holds.capture(hold=placed, amount_micros=USDC, now=NOW)
    refunds.pay(payment=paid, reason="not needed", now=NOW)
    assert balance(ledger.payable(session.pool, to)) == USDC


def test_what_can_be_said_of_the_pool_itself_is_said_first() -> None:
    session = owing(2 * USDC)
    silent()
    pausing.look(now=NOW)
    pools.close(pool=session.pool, now=NOW)
    with unmoved(), pytest.raises(StateConflict, match="closing"):
        books.pay(session, books.party(), 1)


def test_another_contracts_pools_spend_on() -> None:
    session, other = owing(2 * USDC), books.session()
    Pool.objects.filter(pk=other.pool_id).update(contract_address=OTHER)
    silent(SHORT, OTHER)
    silent()
    assert pausing.look(now=NOW)
    books.pay(other, books.party(), 1)
    with unmoved(), pytest.raises(SettlementPaused):
        books.pay(session, books.party(), 1)


def test_a_block_lifts_it_and_nothing_else_does(caplog: pytest.LogCaptureFixture) -> None:
    session, to = books.session(), books.party()
    paid = books.pay(session, to, 2 * USDC)
    silent()
    with caplog.at_level(logging.WARNING, "escrow.pausing"):
        pausing.look(now=NOW)
        refunds.pay(payment=paid, reason="not needed", now=NOW)
        assert pausing.look(now=NOW) is False  # less is owed now, and nothing has landed
        assert is_paused()
        block(NOW)
        assert pausing.look(now=NOW + SHORT)
    assert not is_paused()
    books.pay(session, to, 1)
    stopped, goes_on = caplog.messages
    assert (
        stopped
        == f"No block since {NOW - LONG}, and 2.00 USDC wait to be settled: nothing new is spent until one comes"
    )
    assert goes_on == "The chain goes on: pools spend again"


def test_operators_see_it() -> None:
    def shown() -> float:
        (value,) = [gauge.values[0][1] for gauge in gauges.read(NOW) if gauge.name == "market_settlement_paused"]
        return value

    owing(2 * USDC)
    silent()
    assert shown() == 0.0
    pausing.look(now=NOW)
    assert shown() == 1.0


def test_the_sweep_that_asks_no_node_looks() -> None:
    owing(2 * USDC)
    silent()
    with unmoved():
        offchain.timer_sweep()
    assert is_paused()
