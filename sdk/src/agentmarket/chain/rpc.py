"""A node, asked over JSON-RPC: reads that are repeated, sends that are not, and log searches in bounded chunks.

Numbers are ints, bytes are bytes, hashes and addresses `0x` strings. The URL may hold a secret: no error and no log repeats it.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2

from agentmarket.chain import extra
from agentmarket.chain.errors import Denied, NotAContract, RpcRefused, RpcUnavailable
from agentmarket.chain.forms import are_logs, is_number
from agentmarket.chain.refusals import reverted

#: seconds for each part of an answer, seconds for all of it, and its bytes
TIMEOUT, TOTAL, MOST = 15.0, 60.0, 64 * 1024 * 1024
#: how often a read is asked before the node counts as unavailable, and the pause that doubles in between
ATTEMPTS, FIRST_PAUSE = 4, 0.25
#: blocks asked for at once; public nodes refuse more than some thousands; and the answers after which to ask for more
CHUNK, GROW = 2_000, 8

#: told how far a search is: first block, last block, logs found so far
Progress = Callable[[int, int, int], None]
Topics = Sequence[str | Sequence[str] | None]


@dataclass(frozen=True)
class Block:
    """`timestamp` is seconds; `base_fee` wei for each gas."""

    number: int
    timestamp: int
    base_fee: int


_asking: ContextVar[bool] = ContextVar("asking", default=False)


def _keep_secret(record: logging.LogRecord) -> bool:
    """The HTTP client logs each request with its URL: not ours."""
    return not _asking.get()


logging.getLogger("httpx2").addFilter(_keep_secret)


def silent(first: int, last: int, found: int) -> None:
    """A progress that tells nobody."""


class _TooSlow(RpcUnavailable):
    """The node did not answer in time."""


class Rpc:
    """A node at `url`. Close it with `with`, or `close()`."""

    def __init__(self, url: str, *, timeout: float = TIMEOUT, chunk: int = CHUNK) -> None:
        self.host, self._url, self._chunk = _host(url), url, chunk
        self._http = httpx2.Client(timeout=timeout, follow_redirects=False)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Rpc({self.host!r})"

    # reads

    def chain_id(self) -> int:
        return self._number("eth_chainId")

    def head(self) -> Block:
        """The latest block."""
        found = self._read("eth_getBlockByNumber", "latest", False)
        try:
            return Block(
                int(found["number"], 16), int(found["timestamp"], 16), int(found.get("baseFeePerGas", "0x0"), 16)
            )
        except (TypeError, KeyError, ValueError):
            raise self._unusable("eth_getBlockByNumber") from None

    def must_be_contract(self, address: str) -> None:
        """Raises NotAContract when the chain has no code there."""
        if self._bytes("eth_getCode", address, "latest") == b"":
            raise NotAContract(f"Nothing is deployed at {address} on this chain: check the contract and the RPC URL.")

    def call(self, to: str, data: bytes, *, sender: str | None = None) -> bytes:
        """What the contract answers now. Raises Reverted when it refuses."""
        return self._bytes("eth_call", _message(to, data, sender), "latest")

    def estimate_gas(self, sender: str, to: str, data: bytes) -> int:
        """Gas units. Raises Reverted for what would revert."""
        return self._number("eth_estimateGas", _message(to, data, sender))

    def tip(self) -> int:
        """Wei for each gas that the node suggests on top of the base fee."""
        return self._number("eth_maxPriorityFeePerGas")

    def balance(self, address: str) -> int:
        """Wei."""
        return self._number("eth_getBalance", address, "latest")

    def nonce(self, address: str) -> int:
        """The next nonce, transactions that wait included."""
        return self._number("eth_getTransactionCount", address, "pending")

    def receipt(self, transaction: str) -> Mapping[str, Any] | None:
        """The receipt as the node tells it; None while there is none."""
        found = self._read("eth_getTransactionReceipt", transaction)
        if found is None:
            return None
        if not (isinstance(found, Mapping) and found.get("status") in ("0x0", "0x1")):
            raise self._unusable("eth_getTransactionReceipt")
        numbers = (found.get("blockNumber"), found.get("gasUsed"), found.get("effectiveGasPrice", "0x0"))
        if not (all(map(is_number, numbers)) and are_logs(found.get("logs"))):
            raise self._unusable("eth_getTransactionReceipt")
        return found

    def transaction(self, transaction: str) -> Mapping[str, Any] | None:
        """A transaction as the node tells it, `input` as bytes; None when it knows none."""
        found = self._read("eth_getTransactionByHash", transaction)
        try:
            return None if found is None else {**found, "input": bytes.fromhex(found["input"].removeprefix("0x"))}
        except (AttributeError, KeyError, TypeError, ValueError):
            raise self._unusable("eth_getTransactionByHash") from None

    def logs_backwards(
        self, address: str, topics: Topics, *, newest: int, oldest: int = 0, progress: Progress = silent
    ) -> Iterator[list[Mapping[str, Any]]]:
        """Raw logs of one address, newest chunk first, each chunk in the chain's order. Stop iterating to stop asking.

        A chunk that the node finds too large, or takes too long for, is halved, down to a single block; after some that
        it answers, the next is twice as large again.
        """
        last, chunk, found, slow, good = newest, self._chunk, 0, 0, 0
        while last >= oldest:
            first = max(oldest, last - chunk + 1)
            try:
                logs = self._logs(address, topics, first, last)
            except (RpcRefused, _TooSlow) as refused:
                slow = slow + 1 if isinstance(refused, _TooSlow) else 0
                if first == last or slow == ATTEMPTS:
                    raise
                chunk, good = (last - first + 1) // 2, 0
                continue
            slow, good = 0, good + 1
            if good == GROW:
                chunk, good = min(2 * chunk, self._chunk), 0
            found += len(logs)
            progress(first, last, found)
            yield logs
            last = first - 1

    # sends

    def send_raw(self, raw: bytes) -> None:
        """Broadcast once, and once only. Raises RpcRefused when the node says no, RpcUnavailable when it says nothing."""
        self._ask("eth_sendRawTransaction", ("0x" + raw.hex(),))

    # the wire

    def _logs(self, address: str, topics: Topics, first: int, last: int) -> list[Mapping[str, Any]]:
        query = {"address": address, "topics": list(topics), "fromBlock": hex(first), "toBlock": hex(last)}
        found = self._read("eth_getLogs", query)
        if not are_logs(found):
            raise self._unusable("eth_getLogs")
        # What was asked for is checked, so that a careless node cannot slip in another contract's events.
        return [log for log in found if log["address"].lower() == address.lower()]

    def _number(self, method: str, *params: Any) -> int:
        try:
            return int(self._read(method, *params), 16)
        except (TypeError, ValueError):
            raise self._unusable(method) from None

    def _bytes(self, method: str, *params: Any) -> bytes:
        try:
            return bytes.fromhex(self._read(method, *params).removeprefix("0x"))
        except (AttributeError, ValueError):
            raise self._unusable(method) from None

    def _read(self, method: str, *params: Any) -> Any:
        """One read, repeated while the node is not there."""
        for attempt in range(ATTEMPTS - 1):
            try:
                return self._ask(method, params)
            except RpcUnavailable as unavailable:
                if method == "eth_getLogs" and isinstance(unavailable, _TooSlow):
                    raise  # the same question takes as long again: a smaller one is asked
                time.sleep(FIRST_PAUSE * 2**attempt)
        return self._ask(method, params)

    def _ask(self, method: str, params: Sequence[Any]) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        asking = _asking.set(True)
        try:
            status, content = self._post(body)
            document = extra.bounded(content, most=MOST)
        except httpx2.ReadTimeout:
            raise _TooSlow(f"{self.host}: {method}: ReadTimeout.") from None
        except (httpx2.HTTPError, ValueError, OSError) as error:
            raise RpcUnavailable(f"{self.host}: {method}: {type(error).__name__}.") from None
        finally:
            _asking.reset(asking)
        if isinstance(document, Mapping):
            if document.get("error") is not None:
                raise _refusal(method, document["error"], busy=status == httpx2.codes.TOO_MANY_REQUESTS)
            if "result" in document:
                return document["result"]
        raise RpcUnavailable(f"{self.host}: {method}: status {status}, and no JSON-RPC answer.")

    def _post(self, body: Mapping[str, Any]) -> tuple[int, bytes]:
        """Status and content, within MOST bytes and TOTAL seconds: a node may send a byte now and then for ever."""
        started, content = time.monotonic(), bytearray()
        with self._http.stream("POST", self._url, json=body) as response:
            for piece in response.iter_bytes():
                content += piece
                if len(content) > MOST or time.monotonic() - started > TOTAL:
                    raise httpx2.ReadTimeout("too long")
            return response.status_code, bytes(content)

    def _unusable(self, method: str) -> RpcUnavailable:
        return RpcUnavailable(f"{self.host}: {method}: the answer is of another form than JSON-RPC promises.")


def _host(url: str) -> str:
    """The host of an RPC URL. Raises Denied for what is none, and does not repeat it."""
    try:
        parts, read = urlsplit(url), httpx2.URL(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and read.host:
            return parts.hostname
    except (ValueError, httpx2.InvalidURL):
        pass
    raise Denied("The RPC URL is not one: it looks like https://host/….")


def _message(to: str, data: bytes, sender: str | None) -> dict[str, str]:
    message = {"to": to, "data": "0x" + data.hex()}
    return message if sender is None else {**message, "from": sender}


def _refusal(method: str, error: Any, *, busy: bool) -> RpcRefused | RpcUnavailable:
    code = error.get("code") if isinstance(error, Mapping) else None
    message = str(error.get("message", error) if isinstance(error, Mapping) else error)[:300]
    data = _data(error.get("data")) if isinstance(error, Mapping) else None
    # EIP-1474: limit exceeded. For logs it is the question that is too large.
    if busy or (code == -32005 and method != "eth_getLogs"):
        return RpcUnavailable(f"{method}: {message}")
    if data is not None and method in ("eth_call", "eth_estimateGas"):
        return reverted(data)
    if code == 3 or "revert" in message:
        return reverted(b"")
    return RpcRefused(f"The node refuses {method}: {message}", rpc_code=code if isinstance(code, int) else None)


def _data(data: Any) -> bytes | None:
    """Revert data as nodes tell it: a hex string, or an object that holds one."""
    if isinstance(data, Mapping):
        data = data.get("data") or data.get("result")
    try:
        return bytes.fromhex(data[2:]) if isinstance(data, str) and data.startswith("0x") else None
    except ValueError:
        return None
