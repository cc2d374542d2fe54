"""The proxy before a node, on a real one: every fault does what its line says, as often as it was told, and no more."""

from __future__ import annotations

import http.client
import json
import secrets
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from escrow.chain.client import ChainClient
from escrow.chain.errors import ChainRefused, ChainUnavailable
from escrow.chain.outcomes import SendOutcome
from escrow.chain.signer import LocalSigner, TransactionFields
from marketplace.management.faults.rpc_proxy import RpcProxy

NOBODY = "0x00000000000000000000000000000000000000AA"
GWEI = 10**9


@pytest.fixture
def proxy(rpc_url: str) -> Iterator[RpcProxy]:
    with RpcProxy(rpc_url) as started:
        yield started


@pytest.fixture
def client(proxy: RpcProxy) -> ChainClient:
    return ChainClient(proxy.url, timeout=5)


@pytest.fixture
def node(rpc_url: str) -> ChainClient:
    """The node itself."""
    return ChainClient(rpc_url)


@pytest.fixture
def sender(node: ChainClient) -> LocalSigner:
    signer = LocalSigner(secrets.token_bytes(32))
    node.request("anvil_setBalance", [signer.address, hex(10**20)])
    return signer


@pytest.fixture
def still(node: ChainClient) -> Iterator[None]:
    """Nothing is mined."""
    node.request("evm_setAutomine", [False])
    node.request("evm_setIntervalMining", [0])
    yield
    node.request("evm_setIntervalMining", [1])
    node.request("evm_setAutomine", [True])


def signed(sender: LocalSigner, nonce: int = 0, *, max_fee: int = 100 * GWEI, tip: int = GWEI) -> bytes:
    fields = TransactionFields(31337, nonce, NOBODY, b"", 30_000, max_fee, tip)
    return sender.sign_transaction(fields).raw


def test_an_honest_proxy_is_not_noticed(proxy: RpcProxy, client: ChainClient, node: ChainClient) -> None:
    assert client.chain_id() == node.chain_id() == 31337
    assert client.block(0) == node.block(0)
    with pytest.raises(ChainRefused, match="Method not found"):
        client.request("eth_nothing")
    assert dict(proxy.calls) == {"eth_chainId": 1, "eth_getBlockByNumber": 1, "eth_nothing": 1}


@pytest.mark.parametrize(
    ("kind", "how", "says"),
    [
        ("status", {}, "HTTPError"),
        ("status", {"status": 429}, "HTTPError"),
        ("garbage", {}, "JSONDecodeError"),
        ("reset", {}, "ConnectionError"),
        ("drop_response", {}, "ConnectionError"),
        ("error", {"code": -32005, "message": "limit exceeded"}, "too many requests"),
    ],
)
def test_a_fault_happens_as_often_as_it_was_told(
    proxy: RpcProxy, client: ChainClient, kind: str, how: dict[str, Any], says: str
) -> None:
    proxy.fault(kind, method="eth_gasPrice", times=2, **how)
    assert client.chain_id() == 31337
    for _ in range(2):
        with pytest.raises(ChainUnavailable, match=says):
            client.request("eth_gasPrice")
    assert int(client.request("eth_gasPrice"), 16) > 0
    assert (proxy.met(kind), proxy.calls["eth_gasPrice"]) == (2, 3)


def test_an_error_is_the_nodes_own_word(proxy: RpcProxy, client: ChainClient) -> None:
    proxy.fault("error", code=-32099, message="out of cheese")
    with pytest.raises(ChainRefused) as caught:
        client.request("eth_gasPrice")
    assert (caught.value.code, caught.value.message) == (-32099, "out of cheese")


def test_refused_until_cleared_at_the_same_port(proxy: RpcProxy, client: ChainClient) -> None:
    assert client.chain_id() == 31337
    for _ in range(2):
        proxy.fault("refuse")
        with pytest.raises(ConnectionRefusedError):
            http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=5).request("POST", "/")
        with pytest.raises(ChainUnavailable, match="ConnectionError"):
            client.block()
        proxy.clear()
        assert client.block() is not None


def test_whoever_hangs_is_let_go(proxy: RpcProxy, client: ChainClient) -> None:
    proxy.fault("hang", method="eth_gasPrice")
    ended: list[str] = []

    def ask() -> None:
        with pytest.raises(ChainUnavailable):
            ChainClient(proxy.url, timeout=60).request("eth_gasPrice")
        ended.append("cut")

    waiting = threading.Thread(target=ask)
    waiting.start()
    proxy.wait("hang")
    assert client.chain_id() == 31337
    assert ended == []
    proxy.clear("hang")
    waiting.join(10)
    assert ended == ["cut"]
    assert int(client.request("eth_gasPrice"), 16) > 0


def test_an_answer_that_is_lost_was_given(
    proxy: RpcProxy, client: ChainClient, node: ChainClient, sender: LocalSigner
) -> None:
    proxy.fault("drop_response", method="eth_sendRawTransaction", times=1)
    sent = client.send_raw(signed(sender))
    assert sent.outcome is SendOutcome.UNKNOWN
    assert node.transaction(sent.transaction_hash) is not None


def test_what_is_swallowed_never_arrives(
    proxy: RpcProxy, client: ChainClient, node: ChainClient, sender: LocalSigner
) -> None:
    proxy.fault("swallow", times=1)
    sent = client.send_raw(signed(sender))
    assert sent.outcome is SendOutcome.OK
    assert node.transaction(sent.transaction_hash) is None
    assert client.send_raw(signed(sender)).outcome is SendOutcome.OK
    assert node.transaction(sent.transaction_hash) is not None


def test_a_send_that_is_doubled_is_mined_once(
    proxy: RpcProxy, node: ChainClient, sender: LocalSigner, still: None
) -> None:
    with RpcProxy(proxy.url) as outer:
        client = ChainClient(outer.url)
        outer.fault("dup", times=1)
        assert client.send_raw(signed(sender)).outcome is SendOutcome.OK
        assert (outer.calls["eth_sendRawTransaction"], proxy.calls["eth_sendRawTransaction"]) == (1, 2)
        assert client.send_raw(signed(sender)).outcome is SendOutcome.ALREADY_KNOWN
    node.request("anvil_mine", [1])
    assert node.nonce(sender.address) == 1


def test_lies_about_the_nonce(proxy: RpcProxy, client: ChainClient, sender: LocalSigner) -> None:
    proxy.fault("nonce", by=3, times=1)
    proxy.fault("nonce", by=-1, times=1)
    assert [client.nonce(sender.address) for _ in range(3)] == [3, 0, 0]


def test_lies_about_a_receipt(
    proxy: RpcProxy, client: ChainClient, node: ChainClient, sender: LocalSigner, still: None
) -> None:
    unmined = client.send_raw(signed(sender)).transaction_hash
    proxy.fault("receipt", says="null", times=1)
    assert client.receipt(unmined) is None
    assert proxy.met("receipt") == 0, "there was nothing to hide"
    proxy.clear()
    proxy.fault("receipt", says="success", times=1)
    fake = client.receipt(unmined)
    assert fake is not None
    assert fake.ok
    assert node.block_by_hash(fake.block_hash) is None
    node.request("anvil_mine", [1])
    true = client.receipt(unmined)
    assert true is not None
    assert true == node.receipt(unmined)
    proxy.fault("receipt", says="flip", times=1)
    flipped = client.receipt(unmined)
    assert flipped is not None
    assert (true.ok, flipped.ok, flipped.block_hash) == (True, False, true.block_hash)
    proxy.fault("receipt", times=1)
    assert client.receipt("0x" + "11" * 32) is None
    assert client.receipt(unmined) is None, "the one fault was kept for an answer that can be spoiled"
    assert client.receipt(unmined) == true


def test_a_stale_head_is_a_whole_chain_of_yesterday(
    proxy: RpcProxy, client: ChainClient, node: ChainClient, sender: LocalSigner, still: None
) -> None:
    before = client.block()
    assert before is not None
    proxy.fault("stale")
    sent = client.send_raw(signed(sender)).transaction_hash
    node.request("anvil_mine", ["0x2"])
    receipt = node.receipt(sent)
    assert receipt is not None
    assert client.block() == before
    assert client.block(before.number + 1) is None
    assert client.block_by_hash(receipt.block_hash) is None
    assert int(client.request("eth_blockNumber"), 16) == before.number
    assert (client.nonce(sender.address), node.nonce(sender.address)) == (0, 1)
    assert client.receipt(sent) is None
    assert client.balance(NOBODY) == node.balance(NOBODY, before.number)
    proxy.clear()
    latest = client.block()
    assert latest is not None
    assert latest.number == before.number + 2
    assert client.receipt(sent) == receipt


def test_a_replacement_pays_a_tenth_more_on_both_fees(
    client: ChainClient, node: ChainClient, sender: LocalSigner, still: None
) -> None:
    def outcome(max_fee: int, tip: int) -> SendOutcome:
        return client.send_raw(signed(sender, max_fee=max_fee, tip=tip)).outcome

    assert outcome(100 * GWEI, 10 * GWEI) is SendOutcome.OK
    assert outcome(110 * GWEI - 1, 11 * GWEI) is SendOutcome.UNDERPRICED
    assert outcome(110 * GWEI, 11 * GWEI - 1) is SendOutcome.UNDERPRICED
    assert outcome(110 * GWEI, 10 * GWEI) is SendOutcome.UNDERPRICED
    assert outcome(110 * GWEI, 11 * GWEI) is SendOutcome.OK
    assert outcome(110 * GWEI, 11 * GWEI) is SendOutcome.ALREADY_KNOWN
    dropped = client.send_raw(signed(sender, max_fee=130 * GWEI, tip=13 * GWEI)).transaction_hash
    node.request("anvil_dropTransaction", [dropped])
    assert outcome(50 * GWEI, GWEI) is SendOutcome.OK, "nothing is replaced"
    node.request("anvil_mine", [1])
    assert outcome(200 * GWEI, 20 * GWEI) is SendOutcome.NONCE_TOO_LOW


def test_a_node_that_is_gone_looks_gone(client: ChainClient, proxy: RpcProxy, rpc_url: str) -> None:
    assert client.block() is not None
    proxy.upstream = "http://127.0.0.1:9"
    proxy.cut_all()
    with pytest.raises(ChainUnavailable, match="ConnectionError"):
        client.block()
    proxy.upstream = rpc_url
    assert client.block() is not None


def test_no_other_kind(proxy: RpcProxy) -> None:
    with pytest.raises(ValueError, match="no fault of a RpcProxy: one of drop_response, dup, error"):
        proxy.fault("explode")


def test_raw_json_keeps_the_id(proxy: RpcProxy) -> None:
    proxy.fault("swallow", times=1)
    proxy.fault("stale", method="eth_blockNumber", at=0, times=1)
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=5)
    for method, params in (("eth_sendRawTransaction", ["0x02"]), ("eth_blockNumber", [])):
        connection.request("POST", "/", json.dumps({"jsonrpc": "2.0", "id": 77, "method": method, "params": params}))
        answer = json.loads(connection.getresponse().read())
        assert answer["id"] == 77
    assert answer["result"] == "0x0"
    connection.close()
