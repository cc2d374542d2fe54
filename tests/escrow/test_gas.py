"""`escrow.gas`: what waits for a better price, what fits into the hour's budget, and what a replacement offers."""

from datetime import datetime, timedelta
from itertools import count
from typing import Any
from uuid import uuid4

import pytest

from escrow import gas, intents, ledger
from escrow.chain.answers import Fees
from escrow.models import Account, Attempt, Batch, ChainAction, Pool
from tests.escrow import books
from tests.escrow.books import NOW

Kind = ChainAction.Kind
HOUR = timedelta(hours=1)
_keys = count(1)


def at(gwei: int) -> Fees:
    """What a market asks: a base fee of one gwei less, and a tip of one."""
    return Fees(base_fee=(gwei - 1) * gas.GWEI, tip=gas.GWEI, max_fee=2 * gwei * gas.GWEI)


def action(kind: Kind = Kind.WITHDRAW, **changes: Any) -> ChainAction:
    made = intents.record(kind, dedupe_key=f"gas:{next(_keys)}", pool=None)
    ChainAction.objects.filter(pk=made.pk).update(**changes)
    made.refresh_from_db()
    return made


def carries(by: ChainAction, of: Pool) -> None:
    """Let an action carry a batch of a pool."""
    name = uuid4()
    Batch.objects.create(
        id=name, pool=of, account=ledger.open_account(Account.Kind.SETTLING, pool=of, subject=name), first_seq=0,
        packed=b"", root="0x", signature=b"", deadline=NOW + HOUR, action=by,
    )  # fmt: skip


def test_a_price_is_the_base_fee_and_the_tip() -> None:
    assert gas.price(Fees(base_fee=7, tip=3, max_fee=100)) == 10


@pytest.mark.django_db
@pytest.mark.parametrize("kind", list(Kind))
def test_only_what_nobody_waits_for_waits_for_a_better_price(kind: Kind, settings: Any) -> None:
    settings.GAS_PRICE_CEILING_GWEI = 20
    one = action(kind)
    assert gas.too_dear(one, at(20), NOW) == ""
    told = "Gas costs 20.000 gwei; it waits until that is at most 20."
    dearer = Fees(base_fee=20 * gas.GWEI, tip=1, max_fee=0)
    waits = kind in {Kind.SETTLE, Kind.WITHDRAW, Kind.WITHDRAW_FEES}
    assert gas.too_dear(one, dearer, NOW) == (told if waits else "")


@pytest.mark.django_db
def test_a_price_is_said_in_gwei(settings: Any) -> None:
    settings.GAS_PRICE_CEILING_GWEI = 3
    dear = Fees(base_fee=4_000_000_000, tip=567_891_000, max_fee=0)
    assert gas.too_dear(action(), dear, NOW) == "Gas costs 4.568 gwei; it waits until that is at most 3."


@pytest.mark.django_db
def test_a_settlement_goes_at_any_price_when_its_pool_is_near_its_end(settings: Any) -> None:
    settings.GAS_PRICE_CEILING_GWEI = 1
    day = timedelta(days=1)
    of = books.pool(expires_in=timedelta(days=30))
    settles = action(Kind.SETTLE)
    carries(settles, books.pool(expires_in=timedelta(days=30)))
    carries(settles, of)
    assert gas.too_dear(settles, at(2), NOW) != ""
    end = of.expires_at
    assert gas.too_dear(settles, at(2), end - day - timedelta(seconds=1)) != ""
    assert gas.too_dear(settles, at(2), end - day) == ""
    Pool.objects.filter(pk=of.pk).update(reclaimable_at=NOW + day)
    assert gas.too_dear(settles, at(2), NOW - timedelta(seconds=1)) != ""
    assert gas.too_dear(settles, at(2), NOW) == ""


def spent(
    gas_limit: int, price: int, *, used: int | None = None, mined_at: datetime | None = None, status: str
) -> None:
    action(gas_limit=gas_limit, gas_price_wei=price, gas_used=used, mined_at=mined_at, status=status)


@pytest.mark.django_db
def test_what_was_spent_is_what_was_mined_lately_and_what_is_in_flight() -> None:
    assert gas.spent_wei(since=NOW - HOUR) == 0
    action()  # planned: it has no price yet
    spent(100_000, 2, used=60_000, mined_at=NOW - HOUR, status="final")
    spent(100_000, 3, used=50_000, mined_at=NOW - timedelta(minutes=1), status="reverted")
    spent(100_000, 5, used=70_000, mined_at=NOW - HOUR - timedelta(seconds=1), status="final")
    assert gas.spent_wei(since=NOW - HOUR) == 120_000 + 150_000
    spent(100_000, 7, status="signed")
    spent(100_000, 11, status="broadcast")
    spent(100_000, 13, status="dropped")
    spent(100_000, 17, used=90_000, mined_at=NOW - 2 * HOUR, status="mined")  # the chain has stood still since
    assert gas.spent_wei(since=NOW - HOUR) == 120_000 + 150_000 + 700_000 + 1_100_000


@pytest.mark.django_db
def test_what_was_spent_may_pass_what_a_column_can_hold() -> None:
    spent(16_000_000, 10**15, status="signed")
    assert gas.spent_wei(since=NOW) == 16 * 10**21


@pytest.mark.django_db
def test_a_cost_fits_into_the_budget_of_an_hour_or_waits(settings: Any) -> None:
    settings.GAS_BUDGET_USD_PER_HOUR, settings.ETH_USD = 100, 5_000  # 0.02 ETH
    spent(1_000_000, 15 * gas.GWEI, used=1_000_000, mined_at=NOW - HOUR, status="final")
    spent(1_000_000, 9 * gas.GWEI, used=1_000_000, mined_at=NOW - HOUR - timedelta(seconds=1), status="final")
    assert gas.over_budget(5 * 10**15, NOW) == ""
    assert gas.over_budget(5 * 10**15 + 1, NOW) == (
        "The gas of the last hour cost 0.015000 ETH, and this would cost 0.005000: more than 100 dollars in all."
    )
    assert gas.over_budget(14 * 10**15, NOW + timedelta(seconds=1)) == ""


@pytest.mark.django_db
def test_a_budget_is_rounded_down(settings: Any) -> None:
    settings.GAS_BUDGET_USD_PER_HOUR, settings.ETH_USD = 2, 3 * gas.ETHER
    assert gas.over_budget(0, NOW) == ""
    assert gas.over_budget(1, NOW) != ""
    settings.GAS_BUDGET_USD_PER_HOUR, settings.ETH_USD = 100, 3_002
    assert gas.over_budget(33_311_125_916_055_962, NOW) == ""
    assert gas.over_budget(33_311_125_916_055_963, NOW) != ""  # to the wei, which no float could tell


@pytest.mark.django_db
def test_without_a_budget_everything_fits(settings: Any) -> None:
    settings.GAS_BUDGET_USD_PER_HOUR = 0
    assert gas.over_budget(10**30, NOW) == ""


def test_a_replacement_offers_an_eighth_more_on_both_or_the_markets_price() -> None:
    last = Attempt(max_fee_wei=1_003, tip_wei=101)
    assert gas.bumped(last, Fees(base_fee=5, tip=1, max_fee=1)) == Fees(base_fee=5, tip=115, max_fee=1_134)
    assert gas.bumped(last, Fees(base_fee=5, tip=116, max_fee=1_135)) == Fees(base_fee=5, tip=116, max_fee=1_135)
    dear = Attempt(max_fee_wei=10**12, tip_wei=10**10)  # where a hundred-and-first would be seen
    assert gas.bumped(dear, Fees(base_fee=5, tip=1, max_fee=1)) == Fees(
        base_fee=5, tip=10**10 * 113 // 100 + 1, max_fee=10**12 * 113 // 100 + 1
    )
    nothing = Attempt(max_fee_wei=0, tip_wei=0)
    assert gas.bumped(nothing, Fees(base_fee=5, tip=0, max_fee=0)) == Fees(base_fee=5, tip=1, max_fee=1)


def test_no_replacement_offers_more_than_the_cap_by_itself(settings: Any) -> None:
    settings.GAS_PRICE_CAP_GWEI = 200
    assert not gas.past_cap(Fees(base_fee=10**12, tip=10**12, max_fee=200 * gas.GWEI), tried=12)
    assert gas.past_cap(Fees(base_fee=0, tip=0, max_fee=200 * gas.GWEI + 1), tried=1)
    assert gas.past_cap(Fees(base_fee=0, tip=0, max_fee=0), tried=13)
