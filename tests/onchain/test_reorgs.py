"""Blocks that go away again: what was mined comes back and is paid once, and nobody spends what the chain does not have."""

from typing import Any

import pytest

from escrow.chain.client import ChainClient
from escrow.models import ChainLog, Party
from tests.onchain.conftest import Chain, party

DEPTH = 24
"""Blocks that stand on one that is final, in these tests."""


@pytest.fixture
def deep(chain: Chain, settings: Any) -> Chain:
    """A chain whose blocks are final only when others stand on them, and that makes one only when something is sent."""
    settings.FINALITY = DEPTH
    chain.client = ChainClient(settings.RPC_URL, finality=DEPTH)
    chain.client.request("evm_setIntervalMining", [0])
    chain.client.request("evm_setAutomine", [True])
    mine(chain, 2 * DEPTH)
    chain.index()
    return chain


@pytest.fixture
def lint(transactional_db: None) -> Party:
    return party("lint")


def mine(chain: Chain, blocks: int) -> None:
    chain.client.request("anvil_mine", [hex(blocks)])


def reorg(chain: Chain, depth: int) -> None:
    """Put as many empty blocks in the place of the newest ones. What was in them is not in the pool of the node either."""
    chain.client.request("anvil_reorg", [depth, []])


def test_a_deposit_whose_block_is_gone_halts_its_pool_until_it_is_mined_again(deep: Chain, lint: Party) -> None:
    pool = deep.open_pool(1_000_000, providers=(lint,))
    row = ChainLog.objects.get(event="PoolOpened")
    assert (row.tier, row.deposit_micros) == ("mined", 1_000_000)
    reorg(deep, 1)
    deep.index()
    pool.refresh_from_db()
    assert pool.unbacked_at is not None
    deep.relay()
    deep.index()
    pool.refresh_from_db()
    assert (pool.unbacked_at, pool.frozen_at) == (None, None)
    mine(deep, DEPTH)
    deep.index()
    row = ChainLog.objects.get(event="PoolOpened")
    assert row.tier == "final"
    assert deep.reconcile().equal
