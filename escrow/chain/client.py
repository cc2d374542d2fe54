"""One node, asked over JSON-RPC: every answer typed, every failure one of three (errors.py).

Lives here: transport through web3's HTTP provider with our own session (a timeout on every request, no proxies or
credentials from the environment, no redirects, no retries), and the meaning of a node's answers.
Not here: which nonce, whether to send again, how deep is final (the relay's and the indexer's).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import requests
from eth_abi.exceptions import DecodingError
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from web3 import HTTPProvider
from web3.types import RPCEndpoint

from escrow.chain.abi import error_codec
from escrow.chain.errors import ChainRefused, ChainReverted, ChainUnavailable
from escrow.chain.events import PoolEvent, decode_log, topics
from escrow.chain.outcomes import SendOutcome, SendResult, classify

T = TypeVar("T")
BlockTag = int | str  # a number, or "latest", "safe", "finalized", "pending", "earliest"


@dataclass(frozen=True)
class Block:
    number: int
    hash: str
    parent_hash: str
    timestamp: int
    base_fee: int


@dataclass(frozen=True)
class Fees:
    """Wei per gas. `max_fee` leaves room for the base fee to double."""

    base_fee: int
    tip: int
    max_fee: int


@dataclass(frozen=True)
class Receipt:
    """`ok` is False for a reverted chain transaction. `events` are the pool events among its logs."""

    transaction_hash: str
    ok: bool
    block_number: int
    block_hash: str
    gas_used: int
    effective_gas_price: int
    contract_address: str | None
    events: tuple[PoolEvent, ...]


@dataclass(frozen=True)
class Transaction:
    """`block_number` and `block_hash` are None while it is pending."""

    hash: str
    from_: str
    to: str | None
    nonce: int
    data: bytes
    max_fee_per_gas: int
    max_priority_fee_per_gas: int
    block_number: int | None
    block_hash: str | None


class ChainClient:
    """A node at `rpc_url`. `timeout` is seconds for connecting and again for each read. Safe to share by threads."""

    def __init__(self, rpc_url: str, timeout: float = 10.0) -> None:
        session = requests.Session()
        session.trust_env = False
        session.max_redirects = 0
        self._provider = HTTPProvider(
            rpc_url, request_kwargs={"timeout": timeout}, session=session, exception_retry_configuration=None
        )
        self._chain_id: int | None = None

    # ------------------------------------------------------------------ transport

    def request(self, method: str, params: Sequence[Any] = ()) -> Any:
        """One JSON-RPC call; raises ChainUnavailable, ChainReverted or ChainRefused."""
        try:
            response: Any = self._provider.make_request(RPCEndpoint(method), list(params))
        except (requests.RequestException, OSError, ValueError) as error:
            # The text of such an error may hold the URL, and the URL a secret: only its kind is told.
            raise ChainUnavailable(f"{method}: {type(error).__name__}") from None
        if not isinstance(response, Mapping):
            raise ChainUnavailable(f"{method}: the answer is no JSON object")
        error_object = response.get("error")
        if error_object is not None:
            raise _error_of(method, error_object)
        if "result" not in response:
            raise ChainUnavailable(f"{method}: the answer has neither result nor error")
        return response["result"]

    # ------------------------------------------------------------------ the chain

    def chain_id(self) -> int:
        """Asked once: a node does not change its chain."""
        if self._chain_id is None:
            self._chain_id = self._integer("eth_chainId", ())
        return self._chain_id

    def block(self, which: BlockTag = "latest") -> Block | None:
        """None when the node has no such block (yet)."""
        found = self.request("eth_getBlockByNumber", (_tag(which), False))
        return None if found is None else _shaped("eth_getBlockByNumber", _block, found)

    def block_by_hash(self, block_hash: str) -> Block | None:
        """None when the node does not know it; a block that left the canonical chain may still be known."""
        found = self.request("eth_getBlockByHash", (block_hash, False))
        return None if found is None else _shaped("eth_getBlockByHash", _block, found)

    def fees(self) -> Fees:
        """Base fee of the latest block and the node's suggested tip."""
        latest = self.block("latest")
        if latest is None:
            raise ChainUnavailable("eth_getBlockByNumber: no latest block")
        tip = self._integer("eth_maxPriorityFeePerGas", ())
        return Fees(base_fee=latest.base_fee, tip=tip, max_fee=2 * latest.base_fee + tip)

    def balance(self, address: str, block: BlockTag = "latest") -> int:
        """Wei."""
        return self._integer("eth_getBalance", (address, _tag(block)))

    def nonce(self, address: str, block: BlockTag = "latest") -> int:
        """For checking only; nonces are allocated from our own table."""
        return self._integer("eth_getTransactionCount", (address, _tag(block)))

    # ------------------------------------------------------------------ calls and chain transactions

    def call(self, to: str, data: bytes, block: BlockTag = "latest", from_: str | None = None) -> bytes:
        """What a read-only call returns; raises ChainReverted with the contract's own reason."""
        fields = {"to": to, "data": "0x" + data.hex()} | ({"from": from_} if from_ else {})
        returned = self.request("eth_call", (fields, _tag(block)))
        return _shaped("eth_call", _bytes, returned)

    def estimate_gas(self, from_: str, to: str | None, data: bytes, value: int = 0) -> int:
        """Raises ChainReverted when the chain transaction would revert now."""
        fields = {"from": from_, "data": "0x" + data.hex(), "value": hex(value)} | ({"to": to} if to else {})
        return self._integer("eth_estimateGas", (fields,))

    def send_raw(self, raw: bytes) -> SendResult:
        """Broadcast signed bytes. Never raises for the network's sake: not knowing is an outcome, `UNKNOWN`."""
        transaction_hash = "0x" + keccak(raw).hex()
        try:
            self.request("eth_sendRawTransaction", ("0x" + raw.hex(),))
        except ChainUnavailable as error:
            return SendResult(SendOutcome.UNKNOWN, transaction_hash, str(error))
        except ChainReverted as error:
            return SendResult(SendOutcome.REFUSED, transaction_hash, str(error))
        except ChainRefused as error:
            return SendResult(classify(error.message), transaction_hash, error.message)
        return SendResult(SendOutcome.OK, transaction_hash, "")

    def receipt(self, transaction_hash: str) -> Receipt | None:
        """None while it is not mined, and again when a reorganisation undid it."""
        found = self.request("eth_getTransactionReceipt", (transaction_hash,))
        return None if found is None else _shaped("eth_getTransactionReceipt", _receipt, found)

    def transaction(self, transaction_hash: str) -> Transaction | None:
        """None when the node knows no such chain transaction, pending or mined."""
        found = self.request("eth_getTransactionByHash", (transaction_hash,))
        return None if found is None else _shaped("eth_getTransactionByHash", _transaction, found)

    # ------------------------------------------------------------------ logs

    def logs(self, address: str, from_block: BlockTag, to_block: BlockTag) -> list[PoolEvent]:
        """The pool events of `address` in a closed range of blocks, in chain order."""
        return self._logs({"fromBlock": _tag(from_block), "toBlock": _tag(to_block)}, address)

    def logs_of_block(self, address: str, block_hash: str) -> list[PoolEvent]:
        """The same of exactly one block, by hash: refused by the node if the block is not known any more."""
        return self._logs({"blockHash": block_hash}, address)

    def _logs(self, where: dict[str, str], address: str) -> list[PoolEvent]:
        found = self.request("eth_getLogs", ({**where, "address": address, "topics": [topics()]},))
        return _shaped("eth_getLogs", _events, found)

    def _integer(self, method: str, params: Sequence[Any]) -> int:
        return _shaped(method, _int, self.request(method, params))


# ---------------------------------------------------------------------- the meaning of answers


def _tag(block: BlockTag) -> str:
    return hex(block) if isinstance(block, int) else block


def _error_of(method: str, error: Any) -> Exception:
    if not isinstance(error, Mapping):
        return ChainRefused(method, 0, str(error))
    message, code, returned = str(error.get("message", "")), error.get("code", 0), error.get("data")
    if isinstance(returned, str) and returned.startswith("0x") and len(returned) > 2:
        try:
            decoded = error_codec().error(bytes.fromhex(returned[2:]))
        except ValueError:
            decoded = None
        return ChainReverted(*(decoded or ("", {})), detail=message)
    if code == 3 or "execution reverted" in message:
        return ChainReverted("", {}, detail=message)
    return ChainRefused(method, code if isinstance(code, int) else 0, message)


def _shaped(method: str, reader: Callable[[Any], T], answer: Any) -> T:
    """Read an answer; one of another shape than the protocol's is as good as none."""
    try:
        return reader(answer)
    except (KeyError, TypeError, ValueError, AttributeError, DecodingError) as error:
        raise ChainUnavailable(f"{method}: malformed answer ({type(error).__name__})") from None


def _int(answer: Any) -> int:
    return int(answer, 16)


def _bytes(answer: Any) -> bytes:
    return bytes.fromhex(answer[2:])


def _events(answer: Any) -> list[PoolEvent]:
    decoded = [event for log in answer if not log.get("removed") and (event := decode_log(log)) is not None]
    return sorted(decoded, key=lambda event: event.place)


def _block(answer: Any) -> Block:
    return Block(
        number=_int(answer["number"]),
        hash=answer["hash"],
        parent_hash=answer["parentHash"],
        timestamp=_int(answer["timestamp"]),
        base_fee=_int(answer.get("baseFeePerGas") or "0x0"),
    )


def _receipt(answer: Any) -> Receipt:
    created = answer.get("contractAddress")
    return Receipt(
        transaction_hash=answer["transactionHash"],
        ok=_int(answer["status"]) == 1,
        block_number=_int(answer["blockNumber"]),
        block_hash=answer["blockHash"],
        gas_used=_int(answer["gasUsed"]),
        effective_gas_price=_int(answer.get("effectiveGasPrice") or "0x0"),
        contract_address=to_checksum_address(created) if created else None,
        events=tuple(_events(answer["logs"])),
    )


def _transaction(answer: Any) -> Transaction:
    price = answer.get("gasPrice") or "0x0"
    mined = answer.get("blockNumber")
    return Transaction(
        hash=answer["hash"],
        from_=to_checksum_address(answer["from"]),
        to=to_checksum_address(answer["to"]) if answer.get("to") else None,
        nonce=_int(answer["nonce"]),
        data=_bytes(answer["input"]),
        max_fee_per_gas=_int(answer.get("maxFeePerGas") or price),
        max_priority_fee_per_gas=_int(answer.get("maxPriorityFeePerGas") or price),
        block_number=_int(mined) if mined else None,
        block_hash=answer.get("blockHash") if mined else None,
    )
