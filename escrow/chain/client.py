"""The chain, asked over JSON-RPC: every answer typed, every failure one of a few (errors.py).

Lives here: the questions, and which of them two nodes must answer alike. Not here: which node is asked (nodes.py), what
an answer means (answers.py), which nonce, whether to send again, how deep is final enough (the relay's and the indexer's).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from eth_utils.crypto import keccak

from escrow.chain import answers
from escrow.chain.answers import Block, Fees, Receipt, Tiers, Transaction
from escrow.chain.errors import ChainRefused, ChainReverted, ChainUnavailable, ChainUnconfirmed
from escrow.chain.events import PoolEvent, topics
from escrow.chain.nodes import Node, Nodes
from escrow.chain.outcomes import SendOutcome, SendResult, classify, most_knowing

__all__ = ["Block", "BlockTag", "ChainClient", "Fees", "Receipt", "Tiers", "Transaction", "newest_from"]

T = TypeVar("T")
BlockTag = int | str  # a number, or "latest", "safe", "finalized", "pending", "earliest"
FINALITY_TAGS = ("safe", "finalized")
RESENT = 1_000  # hashes of which is remembered who took them


class ChainClient:
    """The nodes at `rpc_url`, one or several separated by commas. Safe to share by threads.

    `timeout` is seconds for connecting and again for each read, at each node. `finality` is the node's tag "finalized"
    or "safe", or how many blocks make a block final, itself included. With `chain_id`, nodes of other chains are not used.
    """

    def __init__(
        self,
        rpc_url: str,
        timeout: float = 10.0,
        *,
        finality: int | str = 1,
        chain_id: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if finality not in FINALITY_TAGS and not (isinstance(finality, int) and finality >= 1):
            raise ValueError(f"finality is {finality!r}, and must be one of {FINALITY_TAGS} or a number of blocks")
        self._nodes = Nodes(rpc_url, timeout, chain_id=chain_id, clock=clock)
        self._finality = finality
        self._chain_id: int | None = None
        self._taken: dict[str, set[int]] = {}

    def request(self, method: str, params: Sequence[Any] = ()) -> Any:
        """One JSON-RPC call; raises ChainUnavailable, ChainReverted or ChainRefused."""
        return self._nodes.ask(lambda node: node.request(method, params))

    def _ask(self, method: str, params: Sequence[Any], reader: Callable[[Any], T]) -> T:
        return self._nodes.ask(_question(method, params, reader))

    # ------------------------------------------------------------------ the chain

    def expect_chain(self, chain_id: int) -> None:
        """From now on use no node of another chain."""
        self._nodes.chain_id = chain_id

    def chain_id(self) -> int:
        """Asked once: a node does not change its chain. From then on only nodes of this chain are used."""
        if self._chain_id is None:
            self._chain_id = self._ask("eth_chainId", (), answers.integer)
            if self._nodes.chain_id is None and len(self._nodes.all) > 1:
                self.expect_chain(self._chain_id)
        return self._chain_id

    def block(self, which: BlockTag = "latest") -> Block | None:
        """None when the node has no such block (yet)."""
        return self._nodes.ask(_block(which))

    def block_by_hash(self, block_hash: str) -> Block | None:
        """None when the node does not know it; a block that left the canonical chain may still be known."""
        return self._ask("eth_getBlockByHash", (block_hash, False), answers.optional(answers.block))

    def tiers(self) -> Tiers:
        """How far the chain is, as one node sees it, and how much of it is safe and final, as two do where there are two.

        While only one of several answers, no block but the first is: what another calls final may be its newest block.
        """
        seen = self._nodes.hear(self._tiers, 2)
        if self._is_one_of_several(seen):
            first = self._nodes.ask(lambda node: _existing(node, 0))
            return Tiers(latest=seen[0].latest, safe=first, final=first)
        return _lowest(seen)

    def agreed_tiers(self) -> Tiers:
        """The same; raises ChainUnconfirmed while only one of several nodes answers."""
        seen = self._nodes.hear(self._tiers, 2)
        if self._is_one_of_several(seen):
            raise ChainUnconfirmed("what is final: two nodes must say so, and one answered")
        return _lowest(seen)

    def _is_one_of_several(self, answers: Sequence[object]) -> bool:
        return len(answers) < min(2, len(self._nodes.all))

    def _tiers(self, node: Node) -> Tiers:
        if isinstance(self._finality, int):
            latest = _existing(node, "latest")
            depth = max(latest.number - self._finality + 1, 0)
            final = latest if depth == latest.number else _existing(node, depth)
            return Tiers(latest=latest, safe=final, final=final)
        # The deepest first: each of the others can only have moved on meanwhile.
        final = _existing(node, self._finality)
        safe = final if self._finality == "safe" else _existing(node, "safe")
        latest = _existing(node, "latest")
        if not final.number <= safe.number <= latest.number:
            raise ChainUnavailable(f"final, safe and latest are {final.number}, {safe.number} and {latest.number}")
        return Tiers(latest=latest, safe=safe, final=final)

    def fees(self) -> Fees:
        """Base fee of the latest block and the node's suggested tip."""

        def ask(node: Node) -> Fees:
            base_fee = _existing(node, "latest").base_fee
            tip = _question("eth_maxPriorityFeePerGas", (), answers.integer)(node)
            return Fees(base_fee=base_fee, tip=tip, max_fee=2 * base_fee + tip)

        return self._nodes.ask(ask)

    def balance(self, address: str, block: BlockTag = "latest") -> int:
        """Wei."""
        return self._ask("eth_getBalance", (address, _tag(block)), answers.integer)

    def nonce(self, address: str, block: BlockTag = "latest") -> int:
        """For checking only; nonces are allocated from our own table."""
        return self._ask("eth_getTransactionCount", (address, _tag(block)), answers.integer)

    # ------------------------------------------------------------------ what two nodes must say alike

    def agreed_block(self, number: int) -> Block | None:
        """None when the nodes have no such block (yet). As all of these: raises ChainDisagreement when no two agree."""
        return self._nodes.agree(f"block {number}", _block(number), lambda block: block and block.hash)

    def agreed_logs(self, address: str, first: int, last: int) -> list[PoolEvent]:
        """The pool events of a closed range of blocks, in chain order.

        The hash of the last block must agree as well: a node that is not there yet finds no logs, and calls that an answer.
        """

        def ask(node: Node) -> tuple[str | None, list[PoolEvent]]:
            found = _logs(address, {"fromBlock": _tag(first), "toBlock": _tag(last)})(node)
            end = _block(last)(node)
            return (end.hash if end else None), found

        end, events = self._nodes.agree(f"logs of blocks {first} to {last}", ask, repr)
        if end is None:
            raise ChainUnavailable(f"eth_getLogs: there is no block {last} yet")
        return events

    def agreed_receipt(self, transaction_hash: str, *, seen: Receipt | None = None) -> Receipt | None:
        """None when no node has one: a single node that has none may be lying, or behind.

        With `seen`, what a node has said just now: the only node there is would say it again, and is not asked.
        """
        if seen is not None and len(self._nodes.all) == 1:
            return seen

        def essence(receipt: Receipt | None) -> object:
            return receipt and (receipt.ok, receipt.block_number, receipt.block_hash, repr(receipt.events))

        question = _receipt(transaction_hash)
        return self._nodes.agree(f"the receipt of {transaction_hash}", question, essence)

    def agreed_nonce(self, address: str, block: int) -> int:
        """To decide that a nonce is used by somebody else: one node's word stops no signer."""
        question = _question("eth_getTransactionCount", (address, _tag(block)), answers.integer)
        return self._nodes.agree(f"the nonce of {address}", question, lambda nonce: nonce)

    # ------------------------------------------------------------------ calls and chain transactions

    def call(self, to: str, data: bytes, block: BlockTag = "latest", from_: str | None = None) -> bytes:
        """What a read-only call returns; raises ChainReverted with the contract's own reason."""
        fields = {"to": to, "data": "0x" + data.hex()} | ({"from": from_} if from_ else {})
        return self._ask("eth_call", (fields, _tag(block)), answers.octets)

    def estimate_gas(self, from_: str, to: str | None, data: bytes, value: int = 0) -> int:
        """Raises ChainReverted when the chain transaction would revert now."""
        fields = {"from": from_, "data": "0x" + data.hex(), "value": hex(value)} | ({"to": to} if to else {})
        return self._ask("eth_estimateGas", (fields,), answers.integer)

    def send_raw(self, raw: bytes) -> SendResult:
        """Broadcast signed bytes to one node after the other until one has them; the most knowing answer counts.

        Never raises for the network's sake: not knowing is an outcome, `UNKNOWN`. Bytes that come again after a node took
        them were not passed on by it: that node is asked last.
        """
        transaction_hash = "0x" + keccak(raw).hex()
        taken = self._taken.get(transaction_hash, set())
        results = []
        for node in sorted(self._nodes.order(), key=lambda node: node.number in taken):
            result = self._send(node, raw, transaction_hash)
            if result.outcome in (SendOutcome.OK, SendOutcome.ALREADY_KNOWN):
                self._remember(transaction_hash, taken | {node.number})
                return result
            results.append(result)
        return most_knowing(results)

    def _send(self, node: Node, raw: bytes, transaction_hash: str) -> SendResult:
        try:
            self._nodes.put(node, lambda node: node.request("eth_sendRawTransaction", ("0x" + raw.hex(),)))
        except ChainUnavailable as error:
            return SendResult(SendOutcome.UNKNOWN, transaction_hash, str(error))
        except ChainReverted as error:
            return SendResult(SendOutcome.REFUSED, transaction_hash, str(error))
        except ChainRefused as error:
            return SendResult(classify(error.message), transaction_hash, error.message)
        return SendResult(SendOutcome.OK, transaction_hash, "")

    def _remember(self, transaction_hash: str, numbers: set[int]) -> None:
        if len(numbers) == len(self._nodes.all):
            numbers = set()  # all of them: from the start again
        self._taken[transaction_hash] = numbers
        for old in list(self._taken)[:-RESENT]:
            self._taken.pop(old, None)

    def receipt(self, transaction_hash: str) -> Receipt | None:
        """None while it is not mined, and again when a reorganisation undid it."""
        return self._nodes.ask(_receipt(transaction_hash))

    def transaction(self, transaction_hash: str) -> Transaction | None:
        """None when the node knows no such chain transaction, pending or mined."""
        return self._ask("eth_getTransactionByHash", (transaction_hash,), answers.optional(answers.transaction))

    # ------------------------------------------------------------------ logs

    def logs(self, address: str, from_block: BlockTag, to_block: BlockTag) -> list[PoolEvent]:
        """The pool events of `address` in a closed range of blocks, in chain order."""
        return self._nodes.ask(_logs(address, {"fromBlock": _tag(from_block), "toBlock": _tag(to_block)}))

    def logs_of_block(self, address: str, block_hash: str) -> list[PoolEvent]:
        """The same of exactly one block, by hash: refused by the node if the block is not known any more."""
        return self._nodes.ask(_logs(address, {"blockHash": block_hash}))


# ---------------------------------------------------------------------- questions to one node


def _question(method: str, params: Sequence[Any], reader: Callable[[Any], T]) -> Callable[[Node], T]:
    return lambda node: answers.shaped(method, reader, node.request(method, params))


def _block(which: BlockTag) -> Callable[[Node], Block | None]:
    return _question("eth_getBlockByNumber", (_tag(which), False), answers.optional(answers.block))


def _existing(node: Node, which: BlockTag) -> Block:
    try:
        found = _block(which)(node)
    except ChainRefused:  # geth's way to say that nothing is final yet
        found = None
    if found is None:
        raise ChainUnavailable(f"eth_getBlockByNumber: no block {which}")
    return found


def newest_from(client: ChainClient, block: int) -> int:
    """Return the number of the newest block, whose state every node has; nodes forget older ones.

    Raises ChainUnavailable when the node is before a block that the answer must count.
    """
    newest = client.tiers().latest.number
    if newest < block:
        raise ChainUnavailable(f"the node is at block {newest}, before block {block}")
    return newest


def _lowest(seen: Sequence[Tiers]) -> Tiers:
    """The newest block of the first, and of the deeper ones those that all have."""
    safe, final = min((one.safe for one in seen), key=_number), min((one.final for one in seen), key=_number)
    return Tiers(latest=seen[0].latest, safe=safe, final=final)


def _number(block: Block) -> int:
    return block.number


def _receipt(transaction_hash: str) -> Callable[[Node], Receipt | None]:
    return _question("eth_getTransactionReceipt", (transaction_hash,), answers.optional(answers.receipt))


def _logs(address: str, where: dict[str, str]) -> Callable[[Node], list[PoolEvent]]:
    return _question("eth_getLogs", ({**where, "address": address, "topics": [topics()]},), answers.events)


def _tag(block: BlockTag) -> str:
    return hex(block) if isinstance(block, int) else block
