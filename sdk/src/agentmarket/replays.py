"""The same payment with the same request gets the same response, and the work behind it is done once.

Bounded, and in this process alone: after a restart the market still binds a payment to its request, so the work may be
done again for the payment that paid for it, never for another request.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agentmarket.asgi import Response


class OtherRequest(Exception):
    """This payment already paid for another request."""


@dataclass(frozen=True)
class Served:
    """A response, and whether it may be given again (a final one) or must be worked out anew (a passing failure)."""

    response: Response
    final: bool


class Replays:
    def __init__(self, *, entries: int = 1024, size: int = 16 * 1024 * 1024) -> None:
        self._most_entries, self._most_bytes = entries, size
        self._bytes = 0
        self._kept: OrderedDict[str, tuple[str, Response]] = OrderedDict()
        self._under_way: dict[str, tuple[str, asyncio.Task[Served]]] = {}

    async def once(self, payment_id: str, request_hash: str, serve: Callable[[], Awaitable[Served]]) -> Response:
        """The kept response, the one being worked out, or a new one. Raises OtherRequest for another request.

        The work runs to its end even when the one who asked goes away: it is paid for, and may be asked for again.
        """
        if payment_id in self._kept:
            known_hash, response = self._kept[payment_id]
            _same(known_hash, request_hash)
            self._kept.move_to_end(payment_id)
            return response
        if payment_id not in self._under_way:
            task = asyncio.ensure_future(self._serve(payment_id, request_hash, serve))
            self._under_way[payment_id] = (request_hash, task)
        known_hash, task = self._under_way[payment_id]
        _same(known_hash, request_hash)
        return (await asyncio.shield(task)).response

    async def settle(self) -> None:
        """Wait for the work that is under way."""
        await asyncio.gather(*(task for _, task in self._under_way.values()), return_exceptions=True)

    async def _serve(self, payment_id: str, request_hash: str, serve: Callable[[], Awaitable[Served]]) -> Served:
        try:
            served = await serve()
            if served.final:
                self._keep(payment_id, request_hash, served.response)
            return served
        finally:
            del self._under_way[payment_id]

    def _keep(self, payment_id: str, request_hash: str, response: Response) -> None:
        self._kept[payment_id] = (request_hash, response)
        self._bytes += len(response.body)
        while self._kept and (len(self._kept) > self._most_entries or self._bytes > self._most_bytes):
            _, (_, oldest) = self._kept.popitem(last=False)
            self._bytes -= len(oldest.body)


def _same(known_hash: str, request_hash: str) -> None:
    if known_hash != request_hash:
        raise OtherRequest
