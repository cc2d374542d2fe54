"""A node in memory behind a real HTTP server: it answers JSON-RPC from what a test puts into it, and can stay silent."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID, uuid4

from eth_abi.abi import encode

from escrow import receipts
from escrow.chain import contract, wire
from escrow.chain.abi import codec, type_of
from escrow.chain.merkle import MerkleTree
from escrow.chain.wire import Record

JSON = dict[str, Any]
CONTRACT, ONE, PAYER = "0x" + "c0" * 20, "0x" + "a1" * 20, "0x" + "99" * 20
POOL = b"\x11" * 32
LANDED = "0x" + "e1" * 32


class Refusal(Exception):
    """A JSON-RPC error object."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message, "data": data}


@dataclass
class Node:
    """`views` answer eth_call by function name; `logs` and `receipts` are raw; `dead` methods get no answer."""

    chain_id: int = 8453
    head: int = 5_000
    now: int = 1_800_000_000
    most_blocks: int = 1_000_000
    code: dict[str, str] = field(default_factory=lambda: {CONTRACT: "0x60"})
    views: dict[str, Any] = field(default_factory=dict)
    logs: list[JSON] = field(default_factory=list)
    receipts: dict[str, JSON] = field(default_factory=dict)
    transactions: dict[str, JSON] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    seen: list[tuple[str, list[Any]]] = field(default_factory=list)
    url: str = ""
    #: the bytes of every answer, in the place of what is asked for
    raw: bytes = b""

    def count(self, method: str) -> int:
        return sum(name == method for name, _ in self.seen)

    def mine(self, transaction: str, *logs: JSON, block: int = 4_000, status: str = "0x1") -> str:
        """One transaction with its logs."""
        for log in logs:
            log |= {"transactionHash": transaction, "blockNumber": hex(block)}
        self.logs += logs
        self.receipts[transaction] = {
            "status": status, "blockNumber": hex(block), "gasUsed": "0x5208", "logs": list(logs),
        }  # fmt: skip
        return transaction

    def answer(self, method: str, params: list[Any]) -> Any:
        return getattr(self, f"_{method.partition('_')[2]}")(*params)

    def _chainId(self) -> str:  # noqa: N802
        return hex(self.chain_id)

    def _getBlockByNumber(self, tag: str, full: bool) -> JSON:  # noqa: N802
        return {"number": hex(self.head), "timestamp": hex(self.now), "baseFeePerGas": "0x5"}

    def _getCode(self, address: str, tag: str) -> str:  # noqa: N802
        return self.code.get(address.lower(), "0x")

    def _getTransactionReceipt(self, transaction: str) -> JSON | None:  # noqa: N802
        return self.receipts.get(transaction)

    def _getTransactionByHash(self, transaction: str) -> JSON | None:  # noqa: N802
        return self.transactions.get(transaction)

    def _getLogs(self, query: JSON) -> list[JSON]:  # noqa: N802
        first, last = int(query["fromBlock"], 16), int(query["toBlock"], 16)
        if last - first >= self.most_blocks:
            raise Refusal(-32602, "query exceeds max block range")
        names, pool = query["topics"]
        return [
            log
            for log in self.logs
            if first <= int(log["blockNumber"], 16) <= last and log["topics"][0] in names and log["topics"][1] == pool
        ]

    def _call(self, message: JSON, tag: str) -> str:
        data = bytes.fromhex(message["data"][2:])
        for entry in codec("BudgetPool")._functions:
            if entry.selector == data[:4]:
                value = self.views[entry.name]
                if isinstance(value, Refusal):
                    raise value
                return "0x" + encode([type_of(output) for output in entry.outputs], value).hex()
        raise Refusal(3, "execution reverted", "0x")

    def _estimateGas(self, message: JSON) -> str:  # noqa: N802
        return hex(100_000)

    def _maxPriorityFeePerGas(self) -> str:  # noqa: N802
        return hex(1)

    def _getBalance(self, address: str, tag: str) -> str:  # noqa: N802
        return hex(10**18)

    def _getTransactionCount(self, address: str, tag: str) -> str:  # noqa: N802
        return hex(0)


def log(name: str, *, address: str = CONTRACT, **values: Any) -> JSON:
    """A raw log of the real contract's event."""
    entry = next(entry for entry in codec("BudgetPool").events.values() if entry.name == name)
    topics, rest = ["0x" + entry.topic.hex()], []
    for item in entry.inputs:
        encoded = item.get("indexed")
        if encoded:
            topics.append("0x" + encode([type_of(item)], [values[item["name"]]]).hex())
        else:
            rest.append((type_of(item), values[item["name"]]))
    data = "0x" + encode([kind for kind, _ in rest], [value for _, value in rest]).hex()
    return {"address": address, "topics": topics, "data": data}


def batch_of(*payments: tuple[UUID, int], credited: int) -> tuple[list[JSON], list[JSON]]:
    """Receipts of payments to one provider that share one record, and the logs of their batch."""
    leaves = [
        receipts.leaf(pool_key=POOL, seq=7, payment_id=payment, address=ONE, amount_micros=amount, metadata={})
        for payment, amount in payments
    ]
    tree = MerkleTree(leaves)
    logs = [
        log("Credited", poolId=POOL, provider=ONE, amount=credited, firstSeq=7),
        log("BatchSettled", poolId=POOL, firstSeq=7, count=1, total=credited, root=tree.root),
    ]
    told = [
        document(Node(), payment_id=payment, amount=amount, land=False)
        | {"metadata": {}, "root": "0x" + tree.root.hex(), "proof": ["0x" + word.hex() for word in tree.proof(leaf)]}
        for (payment, amount), leaf in zip(payments, leaves, strict=True)
    ]
    for one, leaf in zip(told, leaves, strict=True):
        one["leaf"]["task_hash"] = "0x" + leaf.task_hash.hex()
    return told, logs


def settle(root: str, *records: tuple[str, int]) -> JSON:
    """The transaction that lands a batch of these records, straight to the contract."""
    packed = wire.encode_batch(7, [Record(provider, amount) for provider, amount in records])
    data = contract.settle(POOL, packed, bytes.fromhex(root[2:]), 9, b"\x33" * 65)
    return {"to": CONTRACT, "input": "0x" + data.hex()}


def pool(node: Node, *, ends_in: int = 0, free: int = 5_000_000) -> tuple[object, ...]:
    """What the contract answers of the one pool."""
    return (PAYER, ONE, node.now + ends_in, False, 60, 1, 1, 1, 3_600, 100, free, 0, 1)


def document(
    node: Node, *, payment_id: UUID | None = None, amount: int = 8_000, credited: int = 20_000, land: bool = True
) -> JSON:
    """An honest receipt, as the API answers it, of one of three payments in a batch that the node has."""
    metadata = {"query": "größe", "n": 1.5}
    ids = [payment_id or uuid4(), uuid4(), uuid4()]
    leaves = [
        receipts.leaf(pool_key=POOL, seq=7, payment_id=payment, address=ONE, amount_micros=amount, metadata=metadata)
        for payment in ids
    ]
    tree = MerkleTree(leaves)
    if land:
        node.mine(
            LANDED,
            log("Credited", poolId=POOL, provider=ONE, amount=credited, firstSeq=7),
            log("BatchSettled", poolId=POOL, firstSeq=7, count=1, total=credited, root=tree.root),
        )
    node.views |= {"isSettled": [land], "pool": [pool(node)]}
    leaf = leaves[0]
    return {
        "payment_id": str(ids[0]),
        "status": "settled",
        "amount": f"{amount / 10**6:.6f}",
        "amount_micros": str(amount),
        "chain_id": node.chain_id,
        "contract": CONTRACT,
        "pool_key": "0x" + POOL.hex(),
        "seq": 7,
        "leaf": {
            "pool_id": "0x" + POOL.hex(),
            "seq": 7,
            "payment_id": "0x" + leaf.payment_id.hex(),
            "provider": ONE,
            "amount_micros": str(amount),
            "task_hash": "0x" + leaf.task_hash.hex(),
        },
        "metadata": metadata,
        "proof": ["0x" + sibling.hex() for sibling in tree.proof(leaf)],
        "root": "0x" + tree.root.hex(),
        "batch": {
            "id": str(uuid4()),
            "first_seq": 7,
            "status": "settled",
            "transaction_hash": LANDED,
            "block_number": 4_000,
        },
    }


def refused(name: str, *arguments: Any) -> Refusal:
    """The contract's own error, as nodes tell it."""
    entry = next(entry for entry in codec("BudgetPool").errors.values() if entry.name == name)
    data = entry.selector + encode([type_of(item) for item in entry.inputs], arguments)
    return Refusal(3, "execution reverted", "0x" + data.hex())


def serve(node: Node) -> Callable[[], None]:
    """Serve until the function that this returns is called."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            node.seen.append((asked["method"], asked["params"]))
            if asked["method"] in node.dead:
                self.close_connection = True
                return
            try:
                document: JSON = {"result": node.answer(asked["method"], asked["params"])}
            except Refusal as refusal:
                document = {"error": refusal.error}
            body = node.raw or json.dumps({"jsonrpc": "2.0", "id": asked["id"], **document}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    node.url = f"http://127.0.0.1:{server.server_address[1]}/secret-of-the-url"

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return stop
