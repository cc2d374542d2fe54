"""A JSON-RPC proxy before a node that fails, and lies, as it is told.

| kind | what happens |
| --- | --- |
| refuse | whoever connects is refused, and every connection is cut, until it is cleared |
| hang | no answer until it is cleared, then the connection is reset; the node is not asked |
| status | an HTTP `status` (503) and no JSON; the node is not asked |
| error | a JSON-RPC error with `code` (-32000) and `message`; the node is not asked |
| garbage | a page instead of JSON; the node is not asked |
| reset | the connection is reset; the node is not asked |
| drop_response | the node is asked, and its answer thrown away with the connection |
| dup | the node is asked twice, and the first answer passed on |
| swallow | the hash of a sent chain transaction, as if it was taken; the node is not asked |
| nonce | the true count and `by` (1) more |
| receipt | it `says` "null", "success" (in a block there is not) or "flip" (the other status) |
| logs | all but the one at `without` (-1, the last) |
| stale | the chain as it was at block `at`, or when the fault began |

Between an honest answer and the node stands one rule that real nodes have and anvil has not: who replaces a waiting chain
transaction pays a tenth more on both fees.
"""

import asyncio
import json
from collections import Counter
from typing import Any, Final, Self
from urllib.parse import urlsplit

from eth_utils.crypto import keccak

from escrow.chain import raw
from marketplace.management.faults import lies
from marketplace.management.faults.door import Door, cut
from marketplace.management.faults.plan import Fault

REPLACEMENT_PERCENT: Final = 10
"""What geth asks for (its price bump); anvil is content with one wei."""
UNDERPRICED: Final = {"code": -32000, "message": "replacement transaction underpriced"}
OWN_METHOD: Final = {
    "swallow": "eth_sendRawTransaction",
    "dup": "eth_sendRawTransaction",
    "nonce": "eth_getTransactionCount",
    "receipt": "eth_getTransactionReceipt",
    "logs": "eth_getLogs",
}
"""The method that such a fault is for, when none is named."""

Request = dict[str, Any]
Reply = tuple[int, bytes]


class RpcProxy(Door):
    """Before the node at `upstream`, http only. `url` is where to ask; `upstream` may change when the node moves."""

    KINDS = frozenset(
        {"refuse", "hang", "status", "error", "garbage", "reset", "drop_response", "dup", "swallow", "stale"}
        | {"nonce", "receipt", "logs"}
    )

    def __init__(self, upstream: str) -> None:
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}"
        self.upstream = upstream
        self.calls: Counter[str] = Counter()
        """Requests by method, whatever became of them."""
        self.taken: dict[tuple[str, int], raw.Said] = {}
        """By sender and nonce, what the node was given last."""

    def fault(self, kind: str, *, method: str | None = None, times: int | None = None, **how: Any) -> None:
        """Let this go wrong from now on: `times` times, or until it is cleared."""
        super().fault(kind, method=method or OWN_METHOD.get(kind, "*"), times=times, **how)

    async def _begin(self, fault: Fault) -> None:
        if fault.kind == "stale" and "at" not in fault.how:
            async with Upstream(self.upstream) as node:
                fault.how = {**fault.how, "at": await node.head()}
        await super()._begin(fault)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with Upstream(self.upstream) as node:
            while body := await _body(reader):
                reply = await self._reply(node, body)
                if reply is None:
                    cut(writer)
                    return
                writer.write(_http(*reply))
                await writer.drain()

    async def _reply(self, node: "Upstream", body: bytes) -> Reply | None:
        """What is answered; None is a reset connection."""
        request = json.loads(body)
        if not isinstance(request, dict):  # several at once: nothing here asks so, and nothing goes wrong with them
            return await node.post(body)
        self.calls[request["method"]] += 1
        fault = self.plan.take(request["method"])
        if fault is None:
            return await self._honest(node, request)
        if fault.kind in ("hang", "reset"):
            if fault.kind == "hang":
                await fault.over.wait()
            return None
        instead = self._instead(fault, request)
        if instead is not None:
            return instead
        if fault.kind in ("drop_response", "dup"):
            reply = await self._honest(node, request)
            if fault.kind == "dup":
                await self._honest(node, request)
                return reply
            return None
        return await self._lie(node, fault, request)

    def _instead(self, fault: Fault, request: Request) -> Reply | None:
        """What is answered without asking the node."""
        how = fault.how
        if fault.kind == "status":
            return int(how.get("status", 503)), b"busy"
        if fault.kind == "garbage":
            return 200, b"<html>busy</html>"
        if fault.kind == "error":
            said = {"code": how.get("code", -32000), "message": how.get("message", "internal error")}
            return _json(request, error=said)
        if fault.kind == "swallow":
            return _json(request, result="0x" + keccak(hexstr=request["params"][0]).hex())
        return None

    async def _lie(self, node: "Upstream", fault: Fault, request: Request) -> Reply | None:
        how = fault.how
        if fault.kind == "stale":
            at = int(how["at"])
            status, body = await self._honest(node, lies.asked_as_of(request, at))
            return status, json.dumps(lies.answered_as_of(request, json.loads(body), at)).encode()
        status, body = await self._honest(node, request)
        answer, lie = json.loads(body), None
        if fault.kind == "nonce":
            lie = lies.nonce(answer, by=int(how.get("by", 1)))
        elif fault.kind == "receipt":
            hash_, head = request["params"][0], await node.head()
            lie = lies.receipt(answer, says=str(how.get("says", "null")), transaction_hash=hash_, head=head)
        elif fault.kind == "logs":
            lie = lies.logs(answer, without=int(how.get("without", -1)))
        if lie is None:
            self.plan.give_back(fault)
            return status, body
        return status, json.dumps(lie).encode()

    async def _honest(self, node: "Upstream", request: Request) -> Reply:
        """The node's own answer, or a refusal that another kind of node would have given."""
        if request["method"] != "eth_sendRawTransaction":
            return await node.post(json.dumps(request).encode())
        try:
            said = raw.read(bytes.fromhex(request["params"][0][2:]))
        except ValueError:
            return await node.post(json.dumps(request).encode())
        place = (said.from_, said.nonce)
        before = self.taken.get(place)
        if (
            before is not None
            and before.hash != said.hash
            and not _replaces(said, before)
            and await node.waits(before.hash)
        ):
            return _json(request, error=UNDERPRICED)
        status, body = await node.post(json.dumps(request).encode())
        if "result" in json.loads(body):
            self.taken[place] = said
        return status, body


class Upstream:
    """One connection to the node, opened when it is needed and again when the node closed it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._streams is not None:
            self._streams[1].close()

    async def post(self, body: bytes) -> Reply:
        if self._streams is None or self._streams[0].at_eof():
            await self.__aexit__()
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        head = f"POST / HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        line = await reader.readline()
        answer = await _body(reader, first=line)
        return int(line.split()[1]), answer

    async def ask(self, method: str, *params: Any) -> Any:
        _, body = await self.post(json.dumps({"jsonrpc": "2.0", "id": 0, "method": method, "params": params}).encode())
        return json.loads(body).get("result")

    async def head(self) -> int:
        return int(await self.ask("eth_blockNumber"), 16)

    async def waits(self, transaction_hash: str) -> bool:
        """Whether it is in the node's pool, and not mined."""
        found = await self.ask("eth_getTransactionByHash", transaction_hash)
        return found is not None and found.get("blockNumber") is None


def _replaces(new: raw.Said, old: raw.Said) -> bool:
    def enough(offered: int, before: int) -> bool:
        return offered > before and offered * 100 >= before * (100 + REPLACEMENT_PERCENT)

    return enough(new.max_fee_per_gas, old.max_fee_per_gas) and enough(
        new.max_priority_fee_per_gas, old.max_priority_fee_per_gas
    )


def _json(request: Request, **content: Any) -> Reply:
    return 200, json.dumps({"jsonrpc": "2.0", "id": request.get("id"), **content}).encode()


def _http(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} .\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _body(reader: asyncio.StreamReader, first: bytes = b"") -> bytes:
    """The body of the next message; empty when the other side has gone."""
    line, length = first or await reader.readline(), 0
    if not line:
        return b""
    while line := (await reader.readline()).strip():
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
    return await reader.readexactly(length)
