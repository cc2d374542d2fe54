"""A TCP server in a thread of its own, on a port of this machine that stays ours while nobody may come in.

Lives here: what both proxies share: the thread, the door, the connections, a plan. Not here: what passes through.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from typing import Any, Final, Self

from marketplace.management.faults.plan import ANY, Fault, Plan

PATIENCE_SECONDS: Final = 10.0
"""For the proxy's own thread to do what it was told: it never waits for anything itself."""
BACKLOG: Final = 128


class Door:
    """Start it with `with`. `KINDS` are the faults it can have; "refuse" is every door's own."""

    KINDS: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self._holder = _bound(0)  # bound, and never listening: the port is refused rather than somebody else's
        self.port: int = self._holder.getsockname()[1]
        self.plan = Plan()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"door-{self.port}", daemon=True)
        self._server: asyncio.Server | None = None
        self._guests: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}

    # ------------------------------------------------------------------ from any thread

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._thread.start()
        self._run(self._open())

    def stop(self) -> None:
        """Cut every connection and end the thread."""
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_SECONDS)
        self._loop.close()
        self._holder.close()

    def fault(self, kind: str, *, method: str = ANY, times: int | None = None, **how: Any) -> None:
        """Let this go wrong from now on: `times` times, or until it is cleared."""
        if kind not in self.KINDS:
            raise ValueError(f"{kind!r} is no fault of a {type(self).__name__}: one of {', '.join(sorted(self.KINDS))}")
        self._run(self._begin(Fault(kind, method, times, how)))

    def clear(self, kind: str | None = None) -> None:
        """End the faults of one kind, or all; whoever hangs is let go."""
        self._run(self._clear(kind))

    def met(self, kind: str) -> int:
        """How often a fault of this kind happened."""
        return self.plan.met(kind)

    def wait(self, kind: str, times: int = 1, timeout: float = PATIENCE_SECONDS) -> None:
        """Wait until a fault of this kind has happened so often in all."""
        self.plan.wait(kind, times, timeout)

    def cut_all(self) -> int:
        """Reset every connection there is; return how many there were."""
        return int(self._run(self._cut_all()))

    # ------------------------------------------------------------------ in the proxy's thread

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What passes through one connection."""
        raise NotImplementedError

    async def _begin(self, fault: Fault) -> None:
        if fault.kind == "refuse":
            self._shut()
            self.plan.meet("refuse", 1)
        self.plan.add(fault)

    async def _clear(self, kind: str | None) -> None:
        self.plan.clear(kind)
        if kind in (None, "refuse"):
            await self._open()

    async def _open(self) -> None:
        if self._server is None:
            door = _bound(self.port)
            door.setblocking(False)
            self._server = await asyncio.start_server(self._welcome, sock=door, backlog=BACKLOG)

    def _shut(self) -> None:
        """Refuse whoever comes, and cut whoever is in: a server that is gone has no connections."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._guests):
            cut(writer)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._guests[writer] = asyncio.current_task()
        try:
            await self.serve(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            cut(writer)  # as the one behind us went, so do we
        finally:
            self._guests.pop(writer, None)
            writer.close()

    async def _cut_all(self) -> int:
        guests = list(self._guests)
        for writer in guests:
            cut(writer)
        return len(guests)

    async def _end(self) -> None:
        self.plan.clear()
        self._shut()
        tasks = [task for task in self._guests.values() if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE_SECONDS)


def cut(writer: asyncio.StreamWriter) -> None:
    """Reset a connection: no goodbye, and what was not yet sent is lost."""
    there = writer.get_extra_info("socket")
    if there is not None:
        with contextlib.suppress(OSError):
            there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _bound(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made
