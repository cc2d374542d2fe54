"""Run sellers under uvicorn in this very program: several in one event loop, each on its own port, no second program.

Optional: `Seller.app` runs under any ASGI server. Only this module knows uvicorn, and only when it is asked to serve.
"""

import asyncio
import contextlib
import importlib
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agentmarket.asgi import App

#: seconds for a server to listen
START_TIMEOUT = 15.0
#: seconds a connection without a call is kept; longer than proxies and clients keep one, so that they close first
KEEP_ALIVE = 65


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
    """Serve until `stop` is set, or SIGINT or SIGTERM comes; `ready` gets the URLs, in order, once all answer.

    Raises OSError when an address is taken, RuntimeError when uvicorn is not installed, TimeoutError when no server listens.
    """
    stop = stop or asyncio.Event()
    with contextlib.ExitStack() as bound, _signals(stop):
        sockets = [bound.enter_context(_bound(listener)) for listener in listeners]
        servers = [_server(listener.app) for listener in listeners]
        running = [asyncio.ensure_future(one.serve(sockets=[at])) for one, at in zip(servers, sockets, strict=True)]
        urls = [_url(at) for at in sockets]
        try:
            await asyncio.wait_for(asyncio.gather(*(server.is_listening.wait() for server in servers)), START_TIMEOUT)
            if ready is not None:
                ready(urls)
            stopped = asyncio.ensure_future(stop.wait())
            await asyncio.wait([stopped, *running], return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
        finally:
            for server in servers:
                server.should_exit = True
            await asyncio.gather(*running)


def _server(app: App) -> Any:
    # Here and not above: buyers never serve, and uvicorn is not among what this package needs.
    try:
        uvicorn = importlib.import_module("uvicorn")
    except ImportError:
        raise RuntimeError(
            "Serving needs uvicorn: pip install 'agentmarket[serve]', or run Seller.app under your own ASGI server."
        ) from None

    class Server(uvicorn.Server):  # type: ignore[misc, name-defined]
        """One of several in a loop: it leaves the program's signals alone, and says when it listens."""

        is_listening = asyncio.Event()

        def capture_signals(self) -> Any:
            return contextlib.nullcontext()

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets=sockets)
            self.is_listening.set()

    config = uvicorn.Config(
        app,
        interface="asgi3",  # a bound method is nothing that it would guess right
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=None,  # a call that was paid for is answered: each has its own time limit
    )
    return Server(config)


def _bound(listener: Listener) -> socket.socket:
    family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
    is_any = listener.host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((listener.host, listener.port), family=family, dualstack_ipv6=is_any)


def _url(at: socket.socket) -> str:
    host, port = at.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


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
