"""The pulse on a real node: what a worker writes down of the chain, and what of it is not known when no node answers."""

from datetime import timedelta

from escrow import pulse
from escrow.chain.client import ChainClient
from escrow.models import Pulse
from tests.onchain.conftest import Chain


def test_a_look_writes_down_chain_contract_and_each_signer(chain: Chain, settings) -> None:
    chain.open_pool()
    relayer = chain.keyring.signer("relayer").address
    now = chain.now()
    seen = pulse.take(client=chain.client, worker="worker@a", now=now)
    head = chain.client.block("latest")
    assert (seen.chain_id, seen.code_present, seen.error) == (31337, True, "")
    assert head is not None
    assert seen.head_block is not None
    assert seen.head_block <= head.number
    assert seen.gas_price_wei is not None
    assert seen.signers[relayer] == {
        "balance_wei": str(chain.client.balance(relayer)),
        "nonce": chain.client.nonce(relayer),
    }
    settings.ESCROW_ADDRESS = "0x000000000000000000000000000000000000dEaD"
    assert pulse.take(client=chain.client, worker="worker@a", now=now).code_present is False
    assert Pulse.objects.count() == 1


def test_a_node_that_is_away_is_written_down_as_not_known(chain: Chain) -> None:
    now = chain.now()
    pulse.take(client=chain.client, worker="worker@old", now=now - timedelta(days=2))
    pulse.take(client=chain.client, worker="worker@a", now=now)
    seen = pulse.take(client=ChainClient("http://127.0.0.1:9"), worker="worker@a", now=now)
    assert (seen.at, seen.chain_id, seen.code_present, seen.gas_price_wei, seen.signers) == (now, None, None, None, {})
    assert seen.error.endswith("eth_chainId: ConnectionError")
    assert list(Pulse.objects.values_list("worker", flat=True)) == ["worker@a"]
