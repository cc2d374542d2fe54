"""A receipt is believed only as far as the chain says the same: each way to forge one is refused by its name."""

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx2
import pytest

import agentmarket
from agentmarket import (
    Client,
    Denied,
    InvalidReply,
    NotAContract,
    NotCredited,
    NotFinal,
    NotOnChain,
    Receipt,
    ReceiptMismatch,
    ReceiptRefused,
    RpcUnavailable,
    SyncClient,
    TransactionReverted,
    WrongChain,
)
from agentmarket.chain import rpc

from . import stub
from .node import CONTRACT, JSON, LANDED, ONE, PAYER, POOL, Node, batch_of, document, log, pool, serve, settle

OTHER_POOL, TWO = b"\x12" * 32, "0x" + "b2" * 20


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(rpc, "FIRST_PAUSE", 0.0)
    node = Node()
    stop = serve(node)
    yield node
    stop()


def verify(node: Node, told: JSON, **options: Any) -> agentmarket.Verified:
    return Receipt.read(json.dumps(told)).verify(rpc_url=node.url, **{"contract": CONTRACT, **options})


def test_an_honest_receipt_is_proven(node: Node) -> None:
    told = document(node)
    proven = verify(node, told, min_confirmations=1_001)
    assert (proven.block, proven.transaction, proven.root) == (4_000, LANDED, told["root"])
    assert (proven.confirmations, proven.amount_micros, proven.chain_id) == (1_001, 8_000, 8453)
    assert node.count("eth_getLogs") == 0
    assert asyncio.run(Receipt.read(json.dumps(told)).averify(rpc_url=node.url, contract=CONTRACT)) == proven


def test_a_receipt_survives_its_file(node: Node) -> None:
    told = document(node)
    receipt = Receipt.read(json.dumps(told))
    assert json.loads(receipt.json()) == told
    assert Receipt.read(receipt.json()) == receipt
    with pytest.raises(InvalidReply, match="leaf"):
        Receipt.read("{}".replace("}", '"payment_id": "x", "chain_id": 1, "contract": "", "pool_key": "", "seq": 1}'))
    with pytest.raises(InvalidReply):
        Receipt.read(b"\xff not json")


@pytest.mark.parametrize("named", [None, "0x" + "99" * 32, "not a hash"])
def test_without_the_right_transaction_the_pools_events_are_searched(node: Node, named: str | None) -> None:
    told = document(node)
    told["batch"]["transaction_hash"] = named
    node.mine("0x" + "01" * 32, log("PoolOpened", poolId=POOL, payer=TWO, terms=TERMS, deposit=1), block=10)
    node.most_blocks = 300
    assert verify(node, told).transaction == LANDED
    asked = [params[0] for method, params in node.seen if method == "eth_getLogs"]
    answered = [query for query in asked if int(query["toBlock"], 16) - int(query["fromBlock"], 16) < 300]
    assert len(answered) < 6  # and no further back than where it was found
    assert min(int(query["fromBlock"], 16) for query in answered) > 3_500


TERMS = (TWO, TWO, TWO, 1, 1, 1, 1, 1, 1, 1, b"\0" * 32, b"\0" * 32)


def test_a_search_ends_where_the_pool_began(node: Node) -> None:
    told = document(node, land=False)
    node.views["isSettled"] = [True]  # another batch has this record
    told["batch"]["transaction_hash"] = None
    node.mine("0x" + "01" * 32, log("PoolOpened", poolId=POOL, payer=TWO, terms=TERMS, deposit=1), block=4_900)
    with pytest.raises(NotOnChain, match="not proven"):
        verify(node, told)
    assert node.count("eth_getLogs") == 1


def changed(told: JSON, path: str, value: object) -> JSON:
    *parents, name = path.split(".")
    place = told
    for parent in parents:
        place = place[parent]
    place[name] = value
    return told


HOSTILE: list[tuple[str, object, type[ReceiptRefused], str]] = [
    ("leaf.amount_micros", "8000000", ReceiptMismatch, "root"),
    ("leaf.amount_micros", "-1", ReceiptMismatch, "form"),
    ("leaf.amount_micros", "eight", ReceiptMismatch, "form"),
    ("leaf.provider", TWO, ReceiptMismatch, "root"),
    ("leaf.provider", "agent://x", ReceiptMismatch, "form"),
    ("leaf.seq", 8, ReceiptMismatch, "seq"),
    ("leaf.pool_id", "0x" + OTHER_POOL.hex(), ReceiptMismatch, "pool"),
    ("leaf.payment_id", "0x" + "07" * 32, ReceiptMismatch, "payment"),
    ("leaf.task_hash", "0x" + "07" * 32, ReceiptMismatch, "metadata"),
    ("payment_id", str(UUID(int=7)), ReceiptMismatch, "payment"),
    ("metadata", {"query": "another"}, ReceiptMismatch, "metadata"),
    ("contract", TWO, ReceiptMismatch, "contract"),
    ("root", "0x" + "07" * 32, ReceiptMismatch, "root"),
    ("proof", [], ReceiptMismatch, "root"),
    ("proof", ["0x07"], ReceiptMismatch, "form"),
    ("amount", "1000000.00", ReceiptMismatch, "amount"),
    ("amount_micros", "8000000", ReceiptMismatch, "amount"),
    ("amount", "much", ReceiptMismatch, "form"),
    ("leaf.amount_micros", " 8_000 ", ReceiptMismatch, "form"),
    ("batch.first_seq", 6, ReceiptMismatch, "batch"),
    ("chain_id", 84532, WrongChain, "chain"),
]


@pytest.mark.parametrize(("path", "value", "kind", "step"), HOSTILE)
def test_what_was_changed_is_refused_by_name(
    node: Node, path: str, value: object, kind: type[ReceiptRefused], step: str
) -> None:
    with pytest.raises(kind) as caught:
        verify(node, changed(document(node), path, value))
    assert caught.value.step == step
    assert "secret-of-the-url" not in str(caught.value)


def test_a_forged_tree_of_another_pool_or_root_is_not_on_chain(node: Node) -> None:
    """All of it fits together; only the contract has never heard of it."""
    forged = document(node, amount=9_000, land=False)
    document(node)  # the honest batch, of the same record
    with pytest.raises(NotOnChain):
        verify(node, forged)


def test_the_same_event_of_another_contract_proves_nothing(node: Node) -> None:
    told = document(node, land=False)
    imitation = "0x" + "d0" * 20
    root = bytes.fromhex(told["root"][2:])
    node.mine(
        LANDED,
        log("Credited", address=imitation, poolId=POOL, provider=ONE, amount=8_000, firstSeq=7),
        log("BatchSettled", address=imitation, poolId=POOL, firstSeq=7, count=1, total=8_000, root=root),
    )
    with pytest.raises(NotOnChain):
        verify(node, told)
    node.views["isSettled"] = [True]
    with pytest.raises(NotOnChain):
        verify(node, told)


def test_a_transaction_that_failed_proves_nothing(node: Node) -> None:
    told = document(node)
    node.receipts[LANDED]["status"] = "0x0"
    with pytest.raises(TransactionReverted) as caught:
        verify(node, told)
    assert caught.value.step == "transaction"
    told["batch"]["transaction_hash"] = None
    with pytest.raises(TransactionReverted):  # nor when it is found by its log
        verify(node, told)


def test_a_root_that_promises_more_than_was_credited_proves_nothing(node: Node) -> None:
    told = document(node, credited=7_999)
    with pytest.raises(NotCredited, match="7999"):
        verify(node, told)


def test_a_credit_of_another_batch_in_the_same_transaction_does_not_count(node: Node) -> None:
    told = document(node, credited=1)
    node.receipts[LANDED]["logs"].append(
        log("Credited", poolId=POOL, provider=ONE, amount=8_000, firstSeq=8)
        | {"transactionHash": LANDED, "blockNumber": hex(4_000)}
    )
    with pytest.raises(NotCredited):
        verify(node, told)


def test_a_receipt_of_somebody_elses_payment_is_refused(node: Node) -> None:
    told = document(node)
    proven = verify(node, told, payer=PAYER, provider=ONE, pool="0x" + POOL.hex())
    assert (proven.payer.lower(), proven.provider.lower(), proven.seq) == (PAYER, ONE, 7)
    assert (proven.payment_id, proven.pool_key) == (told["payment_id"], told["pool_key"])
    for step, other in {"payer": TWO, "provider": TWO, "pool": "0x" + OTHER_POOL.hex()}.items():
        with pytest.raises(ReceiptMismatch, match="you expect") as caught:
            verify(node, told, **{step: other})
        assert caught.value.step == step
    for named in ("payer", "provider", "contract"):
        with pytest.raises(Denied, match="not an address"):
            verify(node, told, **{named: "0x1"})


def test_the_record_in_the_transaction_counts(node: Node) -> None:
    told = document(node)
    node.transactions[LANDED] = settle(told["root"], (ONE, 9_000))
    assert verify(node, told).record_micros == 9_000
    for record in ((ONE, 7_999), (TWO, 20_000)):
        node.transactions[LANDED] = settle(told["root"], record)
        with pytest.raises(NotCredited, match="Record 7"):
            verify(node, told)
    node.transactions[LANDED]["to"] = TWO  # another contract's call, which may carry anything
    assert verify(node, told).record_micros is None


def test_payments_are_counted_together(node: Node) -> None:
    """Each of them alone is covered by the credit; both are not."""
    told, logs = batch_of((UUID(int=1), 8_000), (UUID(int=2), 8_000), credited=12_000)
    node.mine(LANDED, *logs)
    node.views["pool"] = [pool(node)]
    both = [Receipt.read(json.dumps(one)) for one in told]
    expected = agentmarket.Expected(contract=CONTRACT)
    for one in both:
        assert agentmarket.verify_all([one], rpc_url=node.url, expected=expected)[0].credited_micros == 12_000
    with pytest.raises(NotCredited, match="16000"):
        agentmarket.verify_all(both, rpc_url=node.url, expected=expected)
    with pytest.raises(ReceiptMismatch, match="claimed 2 times"):
        agentmarket.verify_all([both[0], both[0]], rpc_url=node.url, expected=expected)

    # The same when the provider has another record in the batch, as far as the transaction tells.
    logs[0] = log("Credited", poolId=POOL, provider=ONE, amount=90_000, firstSeq=7)
    node.mine(LANDED, *logs)
    assert len(agentmarket.verify_all(both, rpc_url=node.url, expected=expected)) == 2
    node.transactions[LANDED] = settle(told[0]["root"], (ONE, 12_000), (ONE, 78_000))
    with pytest.raises(NotCredited, match="12000"):
        agentmarket.verify_all(both, rpc_url=node.url, expected=expected)


def test_a_wrong_hint_hides_no_payment(node: Node) -> None:
    told = document(node)
    failed = node.mine("0x" + "77" * 32, status="0x0")
    told["batch"]["transaction_hash"] = failed
    assert verify(node, told).transaction == LANDED


def test_what_the_caller_asks_for_counts(node: Node) -> None:
    told = document(node)
    with pytest.raises(Denied, match="at least 1"):
        verify(node, told, min_confirmations=0)
    with pytest.raises(NotFinal, match="1001"):
        verify(node, told, min_confirmations=1_002)
    with pytest.raises(ReceiptMismatch, match="name the contract") as caught:
        verify(node, told, contract=None)
    assert caught.value.step == "contract"
    node.code.clear()
    with pytest.raises(NotAContract):
        verify(node, told)


def test_a_node_that_says_nothing_is_no_proof_against(node: Node) -> None:
    told = document(node)
    node.dead.add("eth_getTransactionReceipt")
    with pytest.raises(RpcUnavailable) as caught:
        verify(node, told)
    assert "secret-of-the-url" not in str(caught.value)
    assert node.count("eth_getTransactionReceipt") == rpc.ATTEMPTS


def test_no_log_tells_the_url(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    verify(node, document(node))
    assert "secret-of-the-url" not in caplog.text
    httpx2.post(f"{node.url}/asked-by-another", json={"id": 1, "method": "eth_chainId", "params": []})
    assert "asked-by-another" in caplog.text  # what others ask is logged as before


DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000


def test_hostile_json_is_refused_and_does_not_end_the_process(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps(document(node))
    receipt = Receipt.read(text)
    for hostile in (
        DEEP, text.replace('"n": 1.5', f'"n": {DEEP}'), text.replace('"n": 1.5', '"n": NaN'), '{"seq": 8, ' + text[1:],
    ):  # fmt: skip
        with pytest.raises(InvalidReply, match="not JSON"):
            Receipt.read(hostile)
    assert Receipt.read(json.dumps(document(node) | {"note": '[{"[[' * 500}))  # brackets in a text nest nothing
    node.raw = DEEP.encode()
    with pytest.raises(RpcUnavailable):
        receipt.verify(rpc_url=node.url, contract=CONTRACT)
    node.raw = b""
    monkeypatch.setattr(rpc, "MOST", 20)
    with pytest.raises(RpcUnavailable):
        receipt.verify(rpc_url=node.url, contract=CONTRACT)


@pytest.mark.parametrize(
    "url",
    ["http://[abc", "http://host:notaport/k3y", "ftp://x", "", "http://h/\x01k3y", "http://h:99999/k3y", "http:///k3y"],
)
def test_what_is_no_url_is_refused_and_not_repeated(node: Node, url: str) -> None:
    with pytest.raises(Denied) as caught:
        Receipt.read(json.dumps(document(node))).verify(rpc_url=url, contract=CONTRACT)
    assert "k3y" not in str(caught.value)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"data": "0x12"}, {"data": None}, {"blockNumber": None}, {"topics": None}, {"topics": []}, {"topics": ["0x1"]},
        {"removed": True}, {"address": 5}, {"transactionHash": None},
    ],
)  # fmt: skip
def test_an_event_that_is_none_proves_nothing(node: Node, spoilt: JSON) -> None:
    told = document(node)
    for event in node.receipts[LANDED]["logs"]:
        event.update(spoilt)
    with pytest.raises((RpcUnavailable, NotOnChain)):
        verify(node, told)


@pytest.mark.parametrize("answer", ["0x", "0x" + "ff" * 32])
def test_a_contract_of_something_else_proves_nothing(node: Node, answer: str) -> None:
    told = document(node)
    told["batch"]["transaction_hash"] = None
    node._call = lambda message, tag: answer  # type: ignore[method-assign]
    with pytest.raises(NotAContract, match="no escrow"):
        verify(node, told)


def test_both_clients_fetch_receipts(node: Node, market: stub.Market, buyer: SyncClient) -> None:
    told = document(node)
    market.prove = {told["payment_id"]: told}.__getitem__
    receipt = buyer.payment.receipt(told["payment_id"])
    assert receipt.leaf.amount_micros == "8000"

    async def fetch() -> Receipt:
        async with Client(stub.PAYER_KEY, base_url=market.url) as client:
            return await client.payment.receipt(told["payment_id"])

    assert asyncio.run(fetch()) == receipt
    assert receipt.verify(rpc_url=node.url, contract=CONTRACT).block == 4_000
