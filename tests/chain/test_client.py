"""One node: what its answers mean, and what becomes of each way it can fail."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from escrow.chain import contract, events, wire
from escrow.chain.client import ChainClient
from escrow.chain.contract import BudgetPool
from escrow.chain.deploy import send
from escrow.chain.errors import ChainRefused, ChainReverted, ChainUnavailable
from escrow.chain.outcomes import SendOutcome, classify
from escrow.chain.signer import LocalSigner, TransactionFields

from .world import PROVIDERS, World

SECRET_PATH = "/v2/an-api-key-in-the-path"


class FakeNode:
    """An HTTP server that answers every request as it is told, and counts them."""

    def __init__(self) -> None:
        self.answer: Callable[[http.server.BaseHTTPRequestHandler], None] = lambda _handler: None
        self.requests = 0
        node = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                node.requests += 1
                self.rfile.read(int(self.headers["Content-Length"]))
                node.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}{SECRET_PATH}"

    def says(self, body: bytes, status: int = 200, **headers: str) -> None:
        def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)

        self.answer = answer

    def returns(self, result: Any) -> None:
        self.says(json.dumps({"jsonrpc": "2.0", "id": 0, "result": result}).encode())

    def fails(self, code: int, message: str, returned: str | None = None) -> None:
        error: dict[str, Any] = {"code": code, "message": message} | ({"data": returned} if returned else {})
        self.says(json.dumps({"jsonrpc": "2.0", "id": 0, "error": error}).encode())

    def hangs(self) -> None:
        self.answer = lambda _handler: time.sleep(1.5)

    def resets(self) -> None:
        self.answer = lambda handler: handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def node() -> Iterator[FakeNode]:
    fake = FakeNode()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


FAULTS: dict[str, Callable[[FakeNode], None]] = {
    "hang": FakeNode.hangs,
    "reset": FakeNode.resets,
    "500": lambda node: node.says(b"oops", 500),
    "429": lambda node: node.says(b"{}", 429),
    "503 with JSON": lambda node: node.says(b'{"result": "0x1"}', 503),
    "redirect": lambda node: node.says(b"", 307, Location=node.url),
    "garbage": lambda node: node.says(b"<html>busy</html>"),
    "empty": lambda node: node.says(b""),
    "not utf-8": lambda node: node.says(b"\xff\xfe"),
    "a list": lambda node: node.says(b"[]"),
    "a string": lambda node: node.says(b'"0x1"'),
    "neither result nor error": lambda node: node.says(b'{"jsonrpc": "2.0", "id": 0}'),
    "result of another shape": lambda node: node.returns({"what": "else"}),
    "no number": lambda node: node.returns("0xzz"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_transport_failure_is_one_error_after_one_try(node: FakeNode, fault: str) -> None:
    FAULTS[fault](node)
    client = ChainClient(node.url, timeout=0.3)
    with pytest.raises(ChainUnavailable) as caught:
        client.nonce(PROVIDERS[0])
    assert node.requests == 1
    assert "api-key" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("fault", [f for f in FAULTS if f not in ("result of another shape", "no number")])
def test_a_broadcast_that_got_no_answer_is_unknown(node: FakeNode, fault: str) -> None:
    FAULTS[fault](node)
    assert ChainClient(node.url, timeout=0.3).send_raw(b"\x02\x01").outcome is SendOutcome.UNKNOWN
    assert node.requests == 1


def test_nobody_there() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(ChainUnavailable, match="eth_chainId: ConnectionError"):
        ChainClient(url, timeout=0.3).chain_id()


def test_the_environment_has_no_say(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    node.returns("0x5")
    assert ChainClient(node.url, timeout=1).chain_id() == 5


def test_malformed_objects_are_no_answer(node: FakeNode) -> None:
    client = ChainClient(node.url, timeout=1)
    node.returns({"number": "0x1"})
    with pytest.raises(ChainUnavailable, match="malformed"):
        client.block()
    with pytest.raises(ChainUnavailable, match="malformed"):
        client.receipt("0x" + "00" * 32)
    node.returns([{"topics": []}, 5])
    with pytest.raises(ChainUnavailable, match="malformed"):
        client.logs(PROVIDERS[0], 0, "latest")
    node.returns(None)
    assert client.block() is None
    assert client.receipt("0x" + "00" * 32) is None
    assert client.transaction("0x" + "00" * 32) is None


def test_errors_of_the_node_keep_its_words(node: FakeNode) -> None:
    client = ChainClient(node.url, timeout=1)
    node.fails(-32602, "invalid params")
    with pytest.raises(ChainRefused) as refused:
        client.nonce(PROVIDERS[0])
    assert (refused.value.method, refused.value.code, refused.value.message) == (
        "eth_getTransactionCount",
        -32602,
        "invalid params",
    )
    node.fails(-32000, "execution reverted")
    with pytest.raises(ChainReverted) as reverted:
        client.call(PROVIDERS[0], b"")
    assert (reverted.value.name, reverted.value.facts) == ("", {})
    node.fails(3, "execution reverted", "0xdeadbeef")
    with pytest.raises(ChainReverted) as reverted:
        client.call(PROVIDERS[0], b"")
    assert reverted.value.name == ""
    node.fails(3, "execution reverted", "0x4e487b71" + "11".rjust(64, "0"))
    with pytest.raises(ChainReverted) as reverted:
        client.call(PROVIDERS[0], b"")
    assert (reverted.value.name, reverted.value.facts) == ("Panic", {"code": 0x11})
    node.fails(3, "execution reverted", "0x4e487b71ff")
    with pytest.raises(ChainReverted) as reverted:
        client.call(PROVIDERS[0], b"")
    assert reverted.value.name == ""


@pytest.mark.parametrize(
    ("message", "outcome"),
    [
        ("already known", SendOutcome.ALREADY_KNOWN),
        ("known transaction: 0xabc", SendOutcome.ALREADY_KNOWN),
        ("transaction already imported", SendOutcome.ALREADY_KNOWN),
        ("nonce too low: next nonce 5, tx nonce 4", SendOutcome.NONCE_TOO_LOW),
        ("nonce too low", SendOutcome.NONCE_TOO_LOW),
        ("replacement transaction underpriced", SendOutcome.UNDERPRICED),
        ("transaction underpriced: gas tip cap 0, minimum needed 1", SendOutcome.UNDERPRICED),
        ("transaction gas price below minimum: gas tip cap 0, minimum needed 1", SendOutcome.UNDERPRICED),
        ("max fee per gas less than block base fee: address 0x1, maxFeePerGas: 1, baseFee: 7", SendOutcome.UNDERPRICED),
        ("insufficient funds for gas * price + value: balance 0, tx cost 1", SendOutcome.UNFUNDED),
        ("Insufficient funds for gas * price + value", SendOutcome.UNFUNDED),
        ("intrinsic gas too low: gas 0, minimum needed 21000", SendOutcome.REFUSED),
        ("exceeds block gas limit", SendOutcome.REFUSED),
        ("max priority fee per gas higher than max fee per gas", SendOutcome.REFUSED),
        ("tx fee (2.00 ether) exceeds the configured cap (1.00 ether)", SendOutcome.REFUSED),
        ("txpool is full", SendOutcome.UNKNOWN),
        ("nonce too high", SendOutcome.UNKNOWN),
        ("limit exceeded", SendOutcome.UNKNOWN),
        ("", SendOutcome.UNKNOWN),
    ],
)
def test_texts_of_geth_and_anvil(message: str, outcome: SendOutcome) -> None:
    assert classify(message) is outcome


def test_outcomes_of_a_real_node(world: World) -> None:
    client = world.client
    sender = LocalSigner((0xB001).to_bytes(32, "big"))
    client.request("anvil_setBalance", [sender.address, hex(10**18)])
    fees = client.fees()

    def raw(nonce: int, **changes: Any) -> bytes:
        fields: dict[str, Any] = {
            "chain_id": client.chain_id(),
            "nonce": nonce,
            "to": PROVIDERS[0],
            "data": b"",
            "gas": 30_000,
            "max_fee_per_gas": fees.max_fee + 10**9,
            "max_priority_fee_per_gas": 10**9,
        }
        return sender.sign_transaction(TransactionFields(**(fields | changes))).raw

    def outcome(signed: bytes) -> SendOutcome:
        return client.send_raw(signed).outcome

    client.request("evm_setAutomine", [False])
    try:
        first = raw(0)
        sent = client.send_raw(first)
        assert sent.outcome is SendOutcome.OK
        assert outcome(first) is SendOutcome.ALREADY_KNOWN
        assert outcome(raw(0, data=b"\x01")) is SendOutcome.UNDERPRICED
        pending = client.transaction(sent.transaction_hash)
        assert pending is not None
        assert (pending.nonce, pending.from_, pending.block_number) == (0, sender.address, None)
        assert client.receipt(sent.transaction_hash) is None
        assert (client.nonce(sender.address), client.nonce(sender.address, "pending")) == (0, 1)
        client.request("anvil_mine", [1])
    finally:
        client.request("evm_setAutomine", [True])
    receipt = client.receipt(sent.transaction_hash)
    assert receipt is not None
    assert receipt.ok
    mined = client.transaction(sent.transaction_hash)
    assert mined is not None
    assert (mined.block_number, mined.block_hash) == (receipt.block_number, receipt.block_hash)
    assert outcome(raw(0, data=b"\x01")) is SendOutcome.NONCE_TOO_LOW
    assert outcome(first) in (SendOutcome.NONCE_TOO_LOW, SendOutcome.ALREADY_KNOWN)
    assert outcome(raw(1, max_fee_per_gas=1, max_priority_fee_per_gas=1)) is SendOutcome.UNDERPRICED
    assert outcome(raw(1, value=10**19)) is SendOutcome.UNFUNDED
    assert outcome(raw(1, gas=20_999)) is SendOutcome.REFUSED
    assert outcome(raw(1, max_priority_fee_per_gas=10**12)) is SendOutcome.REFUSED
    assert outcome(b"\x02\x01") is SendOutcome.REFUSED


def test_blocks_balances_and_fees(world: World) -> None:
    latest = world.client.block("latest")
    assert latest is not None
    assert world.client.block(latest.number) == latest
    assert world.client.block_by_hash(latest.hash) == latest
    before = world.client.block(latest.number - 1)
    assert before is not None
    assert latest.parent_hash == before.hash
    assert world.client.block(latest.number + 1_000) is None
    assert world.client.balance(world.relayer.address) > 0
    fees = world.client.fees()
    assert fees.max_fee == 2 * fees.base_fee + fees.tip


def test_logs_in_chain_order_by_range_and_by_block(world: World) -> None:
    pool_id = world.open(world.terms(), 1_000_000)
    receipt = world.send(world.settlement(pool_id, [wire.Record(PROVIDERS[i % 3], 5 + i) for i in range(4)]))
    address = world.contract.address
    found = world.client.logs(address, receipt.block_number, receipt.block_number)
    assert found == list(receipt.events) == world.client.logs_of_block(address, receipt.block_hash)
    assert [type(event) for event in found] == [events.Credited] * 3 + [events.BatchSettled]
    assert [event.place.log_index for event in found] == [0, 1, 2, 3]
    assert {event.place.transaction_hash for event in found} == {receipt.transaction_hash}
    with pytest.raises(ChainRefused):
        world.client.logs_of_block(address, "0x" + "ab" * 32)
    assert world.client.logs(world.usdc.address, 0, "latest") == []


def test_terms_come_back_from_the_event_as_they_went_in(world: World) -> None:
    terms = world.terms()
    pool_id = world.open(terms, 77)
    (opened,) = [
        event
        for event in world.client.logs(world.contract.address, 0, "latest")
        if isinstance(event, events.PoolOpened) and event.pool_id == pool_id
    ]
    assert (opened.terms, opened.payer, opened.deposit) == (terms, terms.payer, 77)


def test_an_address_without_our_contract_is_refused_by_name(world: World) -> None:
    with pytest.raises(ChainRefused, match="no contract at"):
        BudgetPool(world.client, PROVIDERS[0]).total_held()
    with pytest.raises(ChainReverted) as caught:
        world.contract.pool(b"\x00" * 32)
    assert (caught.value.name, caught.value.facts) == ("NoSuchPool", {"poolId": b"\x00" * 32})


def test_what_would_revert_is_not_sent(world: World) -> None:
    before = world.client.nonce(world.relayer.address)
    with pytest.raises(ChainReverted, match=r"NoSuchPool\(poolId="):
        send(world.client, world.relayer, world.contract.address, contract.reclaim(b"\x01" * 32))
    assert world.client.nonce(world.relayer.address) == before


def test_the_token_domain_is_read_from_the_token(world: World) -> None:
    assert world.usdc.domain() == wire.Domain("USDC", "2", world.client.chain_id(), world.usdc.address)
    separator = world.client.call(world.usdc.address, bytes.fromhex("3644e515"))
    assert separator == world.usdc.domain().separator
