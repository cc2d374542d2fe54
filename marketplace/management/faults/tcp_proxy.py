"""A TCP proxy before PostgreSQL or Valkey that fails as it is told. Bytes only: it knows neither's protocol.

| kind | what happens |
| --- | --- |
| refuse | whoever connects is refused, and every connection is cut, until it is cleared |
| blackhole | nothing passes any more, in either direction; what was held passes when it is cleared |
| delay | each piece passes `seconds` later |
| cut_answer | a request that has `after` in it passes; its answer is thrown away and the connection reset: done, not told |
| rst | the next connection to send something is reset before that passes |
"""

import asyncio
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

from marketplace.management.faults.door import Door, cut

PIECE: Final = 64 * 1024
POSTGRES_PORT: Final = 5432
REDIS_PORT: Final = 6379
REQUEST: Final = "request"
ANSWER: Final = "answer"
LONGEST_MARK: Final = 256
"""Bytes of earlier pieces that are looked at: what `after` names may have been cut in two."""


@dataclass(frozen=True)
class Target:
    """Where the real server is: a host and a port, or a socket's path."""

    host: str
    port: int
    path: str = ""


class TcpProxy(Door):
    """Before the server that a DATABASE_URL or a REDIS_URL names; `url` is the same, by way of the proxy.

    `method` of a fault: "request" or "answer" for blackhole and delay in one direction only.
    """

    KINDS = frozenset({"refuse", "blackhole", "delay", "cut_answer", "rst"})

    def __init__(self, url: str) -> None:
        super().__init__()
        self.target, self.url = _through(url, self.port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.target.path:
            behind = await asyncio.open_unix_connection(self.target.path)
        else:
            behind = await asyncio.open_connection(self.target.host, self.target.port)
        passage = _Passage(self, reader, writer, *behind)
        ways = [asyncio.ensure_future(passage.there()), asyncio.ensure_future(passage.back())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            behind[1].close()


class _Passage:
    """One connection through the proxy."""

    def __init__(
        self,
        proxy: TcpProxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        behind_reader: asyncio.StreamReader,
        behind_writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy, self._reader, self._writer = proxy, reader, writer
        self._behind_reader, self._behind_writer = behind_reader, behind_writer
        self._answer_is_lost = False
        self._before = b""

    async def there(self) -> None:
        """From the client to the server."""
        while piece := await self._reader.read(PIECE):
            if await self._meets(REQUEST, piece):
                return
            self._behind_writer.write(piece)
            await self._behind_writer.drain()

    async def back(self) -> None:
        """From the server to the client."""
        while piece := await self._behind_reader.read(PIECE):
            if self._answer_is_lost:
                cut(self._writer)
                return
            await self._meets(ANSWER, piece)
            self._writer.write(piece)
            await self._writer.drain()

    async def _meets(self, direction: str, piece: bytes) -> bool:
        """Wait as the plan says; True when the connection is no more."""
        plan = self._proxy.plan
        before = self._before
        if direction == REQUEST:
            self._before = (before + piece)[-LONGEST_MARK:]
        fault = plan.take(direction)
        if fault is None:
            return False
        if fault.kind == "delay":
            await asyncio.sleep(float(fault.how.get("seconds", 1.0)))
        elif fault.kind == "blackhole":
            await fault.over.wait()
        elif direction == ANSWER:
            plan.give_back(fault)
        elif fault.kind == "rst":
            cut(self._writer)
            return True
        elif _ends_in(before, piece, fault.how.get("after", b"")):
            self._answer_is_lost = True
        else:
            plan.give_back(fault)
        return False


def _ends_in(before: bytes, piece: bytes, mark: bytes) -> bool:
    """Whether a mark ends in this piece; it may have begun in the one before."""
    reach = len(mark) - 1
    return mark in (before[-reach:] if reach > 0 else b"") + piece


def _through(url: str, port: int) -> tuple[Target, str]:
    """Where a service's URL leads, and the same URL by way of a port of this machine."""
    parts = urlsplit(url)
    if parts.scheme == "unix":  # redis-py's: the path is the socket, the query the database
        number = parse_qs(parts.query).get("db", ["0"])[0]
        return Target("", 0, path=unquote(parts.path)), f"redis://127.0.0.1:{port}/{number}"
    login, at, there = parts.netloc.rpartition("@")
    rewritten = urlunsplit(parts._replace(netloc=f"{login}{at}127.0.0.1:{port}"))
    if not parts.scheme.startswith("postgres"):
        return Target(parts.hostname or "127.0.0.1", parts.port or REDIS_PORT), rewritten
    host, number_there = unquote(there.partition(":")[0]), parts.port or POSTGRES_PORT
    if host.startswith("/"):  # libpq's: the host is the folder of the socket
        return Target("", 0, path=f"{host}/.s.PGSQL.{number_there}"), rewritten
    return Target(host or "127.0.0.1", number_there), rewritten
