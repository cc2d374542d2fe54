"""The gas cap of one transaction, at the most that one can hold; and when `make gas ARGS=--check` calls a figure worse.

The figures themselves are measured and held to by `benchmarks/gas`, the size of the bytecode by test_artifacts.py.
"""

from __future__ import annotations

import pytest

from benchmarks.gas import snapshot
from escrow.chain import wire
from escrow.chain.deploy import TRANSACTION_GAS_CAP

from .world import World


def test_a_pool_and_a_batch_of_as_many_providers_as_the_wire_takes_fit_one_transaction(world: World) -> None:
    among = tuple(f"0x{0x500000 + at:040x}" for at in range(wire.MAX_PROVIDERS))
    pool_id = world.open(world.terms(providers_hash=wire.providers_hash(among)), 40_000_000, among)
    assert world.last_gas < TRANSACTION_GAS_CAP
    batch = world.settlement(pool_id, [wire.Record(provider, 1_000) for provider in among * 4])
    assert world.send(batch).gas_used < TRANSACTION_GAS_CAP


COMMITTED = {"settle": {"200x3": 1_000, "1x1": 50_000}, "bytecode": 20_000}


@pytest.mark.parametrize(
    ("now", "wrong", "better"),
    [
        (1_021, ["settle.200x3: 1,000 before, 1,021 now (+2.1%)"], []),
        (1_019, [], []),
        (981, [], []),
        (979, [], ["settle.200x3: 1,000 before, 979 now (-2.1%)"]),
    ],
)
def test_two_per_cent_worse_is_wrong_and_two_per_cent_better_is_told(
    now: int, wrong: list[str], better: list[str]
) -> None:
    measured = {**COMMITTED, "settle": {"200x3": now, "1x1": 50_000}}
    assert snapshot.compare(measured, COMMITTED) == (wrong, better)


def test_a_figure_that_one_side_lacks_is_wrong() -> None:
    fewer = {"settle": {"200x3": 1_000}, "bytecode": 20_000}
    assert snapshot.compare(fewer, COMMITTED) == (["settle.1x1: in the snapshot, not measured"], [])
    assert snapshot.compare(COMMITTED, fewer) == (["settle.1x1: measured, not in the snapshot"], [])
    assert snapshot.compare(COMMITTED, {})[0] != []
