"""What a record and a pool's whole life cost in gas, on real receipts. The ceilings fail when the contract gets worse.

`pytest -s tests/chain/test_gas.py` prints the figures.
"""

from __future__ import annotations

import pytest

from escrow.chain import contract, wire
from escrow.chain.deploy import TRANSACTION_GAS_CAP

from .world import DAY, World


def providers(count: int) -> tuple[str, ...]:
    return tuple(f"0x{0x500000 + i:040x}" for i in range(count))


def records(count: int, among: tuple[str, ...]) -> list[wire.Record]:
    return [wire.Record(among[i % len(among)], 1_000 + i) for i in range(count)]


def open_pool(world: World, among: tuple[str, ...]) -> tuple[bytes, int]:
    terms = world.terms(providers_hash=wire.providers_hash(among), dispute_window=DAY)
    return world.open(terms, 40_000_000, among), world.last_gas


# A pool at work: lines credited before, the bitmap word begun. (The first batch of a word costs 17,100 gas more.)
# Ceilings are what was measured plus one per cent.
@pytest.mark.parametrize(
    ("count", "among", "ceiling"),
    [(1, 1, 56_510), (10, 3, 7_620), (50, 3, 1_701), (200, 3, 590), (200, 20, 1_345), (1000, 20, 516)],
)
def test_gas_per_record(world: World, count: int, among: int, ceiling: int) -> None:
    pool_id, _ = open_pool(world, providers(among))
    world.send(world.settlement(pool_id, records(among, providers(among))))
    receipt = world.send(world.settlement(pool_id, records(count, providers(among))))
    per_record = receipt.gas_used / count
    print(
        f"\nsettle {count:>4} records, {among:>2} providers: {receipt.gas_used:>8,} gas, {per_record:>8,.0f} per record"
    )
    assert per_record <= ceiling
    assert receipt.gas_used < TRANSACTION_GAS_CAP


@pytest.mark.parametrize(("count", "among"), [(3, 3), (200, 3), (200, 20)])
def test_gas_of_a_whole_life(world: World, count: int, among: int) -> None:
    """Open, one batch, every withdrawal, reclaim. Three records carry 200 micropayments to three providers."""
    pool_id, opening = open_pool(world, providers(among))
    settling = world.send(world.settlement(pool_id, records(count, providers(among)))).gas_used
    world.at(world.contract.pool(pool_id).ends_at)
    withdrawing = sum(world.send(contract.withdraw(pool_id, provider)).gas_used for provider in providers(among))
    reclaiming = world.send(contract.reclaim(pool_id)).gas_used
    total = opening + settling + withdrawing + reclaiming
    print(
        f"\nlife of {count} records, {among} providers: {total:,} gas"
        f" (open {opening:,}, settle {settling:,}, withdraw {withdrawing:,}, reclaim {reclaiming:,})"
    )
