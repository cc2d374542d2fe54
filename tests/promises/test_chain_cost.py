"""What a payment costs on chain, measured on one; and that pools of the promised sizes open there."""

import pytest

from benchmarks.gas import scenes, snapshot
from benchmarks.gas import yard as gas
from escrow import pools
from tests.onchain.conftest import Chain, chain

__all__ = ["chain"]

GWEI = 10**9
WEI = 10**18
GAS_PRICE = GWEI
"""Above what Base asks by far: a hundredth of it is usual."""
CENTS_OF_AN_ETHER = 400_000
PAYMENTS = 200


@pytest.mark.promise("S19")
def test_a_payment_costs_less_than_a_cent_on_chain_even_at_a_gas_price_of_one_gwei() -> None:
    with gas.chain() as url:
        life = scenes.instant_life(gas.Yard(url), PAYMENTS, 3)
    each = life.total / PAYMENTS
    assert each <= snapshot.read()["life"]["200x3"] * (1 + snapshot.TOLERANCE)
    assert each * GAS_PRICE * CENTS_OF_AN_ETHER / WEI < 1


@pytest.mark.promise("S10")
@pytest.mark.parametrize("deposit", [10_000_000, 500_000_000])
def test_a_pool_of_ten_and_one_of_five_hundred_open_and_are_spent_from(chain: Chain, deposit: int) -> None:
    pool = chain.open_pool(deposit)
    assert chain.contract.pool(pool.key).free == deposit
    chain.session(pool, deposit)
    chain.quiet()
    assert pools.balances(pool).available == 0
    assert chain.reconcile().exit_code == 0
