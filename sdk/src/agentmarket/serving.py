"""Run sellers under granian in this very program: several in one event loop, each on its own port, no second program.

Optional: `Seller.app` runs under any ASGI server. Only this module knows granian, and only when it is asked to serve.
"""

import asyncio
import contextlib
import importlib
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agentmarket.asgi import App

#: seconds for a server to listen
START_TIMEOUT = 15.0


@dataclass(frozen=True)
class Listener:
    """One app and where it listens. Port 0 takes a free one."""

    app: App
    host: str = "127.0.0.1"
    port: int = 0


async def serve(
    listeners: Sequence[Listener],
    *,
    ready: Callable[[list[str]], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve until `stop` is set, or SIGINT or SIGTERM comes; `ready` gets the URLs, in order, once all answer."""
    stop = stop or asyncio.Event()
    with contextlib.ExitStack() as reserved, _signals(stop):
        places = [_reserve(listener, reserved) for listener in listeners]
        servers = [_server(listener.app, host, port) for listener, (host, port) in zip(listeners, places, strict=True)]
        running = [asyncio.ensure_future(server.serve()) for server in servers]
        try:
            await asyncio.wait_for(asyncio.gather(*(_listening(*place) for place in places)), START_TIMEOUT)
            if ready is not None:
                ready([f"http://{host}:{port}" for host, port in places])
            stopped = asyncio.ensure_future(stop.wait())
            await asyncio.wait([stopped, *running], return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
        finally:
            for server in servers:
                server.stop()
            await asyncio.gather(*running)


def _server(app: App, host: str, port: int) -> Any:
    # Here and not above: buyers never serve, and granian is not among what this package needs.
    try:
        embed = importlib.import_module("granian.server.embed")
    except ImportError:
        raise RuntimeError(
            "Serving needs granian: pip install 'agentmarket[serve]', or run Seller.app under your own ASGI server."
        ) from None
    constants = importlib.import_module("granian.constants")
    return embed.Server(
        app,
        address=host,
        port=port,
        interface=constants.Interfaces.ASGI,
        http=constants.HTTPModes.http1,
        websockets=False,
        log_enabled=False,
    )


def _reserve(listener: Listener, reserved: contextlib.ExitStack) -> tuple[str, int]:
    """The port to listen on. On Linux a free one stays bound (not listening) for granian to share, so none takes it."""
    if listener.port:
        return listener.host, listener.port
    holder = reserved.enter_context(socket.socket())
    if sys.platform == "linux":
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.bind((listener.host, 0))
    port: int = holder.getsockname()[1]
    if sys.platform != "linux":
        holder.close()
    return listener.host, port


async def _listening(host: str, port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Any:
    """SIGINT and SIGTERM ask to stop, where this loop may say so (not in a thread, not on Windows)."""
    loop = asyncio.get_running_loop()
    taken = []
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, stop.set)
            taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            loop.remove_signal_handler(number)
