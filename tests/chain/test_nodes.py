"""Several nodes: who is asked, who is left alone, and what two must say alike. Real nodes, some behind a liar."""

from __future__ import annotations

import pytest

from escrow.chain.client import ChainClient

from .world import World


def test_tiers_by_depth(anvil_url: str, world: World) -> None:
    world.client.request("anvil_mine", ["0x5"])
    latest = world.client.block("latest")
    assert latest is not None
    for depth in (1, 3, latest.number + 1, latest.number + 9):
        tiers = ChainClient(anvil_url, finality=depth).tiers()
        assert tiers.latest == latest
        assert tiers.final == tiers.safe == world.client.block(max(latest.number - depth + 1, 0))


def test_tiers_by_the_nodes_word(anvil_url: str, world: World) -> None:
    world.client.request("anvil_mine", ["0x64"])
    blocks = [world.client.block(tag) for tag in ("latest", "safe", "finalized")]
    finalized = ChainClient(anvil_url, finality="finalized").tiers()
    assert [finalized.latest, finalized.safe, finalized.final] == blocks
    assert finalized.final.number < finalized.safe.number < finalized.latest.number
    safe = ChainClient(anvil_url, finality="safe").tiers()
    assert [safe.latest, safe.safe, safe.final] == [blocks[0], blocks[1], blocks[1]]


@pytest.mark.parametrize("finality", [0, -1, "latest", ""])
def test_no_other_finality(finality: int | str) -> None:
    with pytest.raises(ValueError, match="finality is"):
        ChainClient("http://127.0.0.1:9", finality=finality)


def test_one_node_agrees_with_itself(anvil_url: str, world: World) -> None:
    pool_id = world.open(world.terms(), 1_000_000)
    latest = world.client.block("latest")
    assert latest is not None
    client = ChainClient(anvil_url)
    assert client.agreed_block(latest.number) == latest
    assert client.agreed_block(latest.number + 1_000) is None
    opened, *_ = client.agreed_logs(world.contract.address, latest.number, latest.number)
    assert opened.pool_id == pool_id  # type: ignore[attr-defined]
    assert client.agreed_receipt(opened.place.transaction_hash) == client.receipt(opened.place.transaction_hash)
    assert client.agreed_nonce(world.relayer.address, latest.number) == world.client.nonce(world.relayer.address)
