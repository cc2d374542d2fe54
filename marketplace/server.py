"""`python -m marketplace.server`: the web as every stack runs it. Lives here: the server's options, each with its reason.

uvicorn with uvloop and httptools, because it costs the least of a core for each request: docs/PERFORMANCE.md has the figures.
"""

import argparse
import os
import signal
import socket
import sys
from tempfile import TemporaryDirectory
from typing import Any, Final

import uvicorn
from uvicorn.supervisors import Multiprocess

OPTIONS: Final[dict[str, Any]] = {
    "loop": "uvloop",
    "http": "httptools",
    "ws": "none",
    "lifespan": "on",  # the lane begins and ends with the server
    "log_config": None,  # Django's own configuration
    "access_log": False,  # a line for each payment would say what its row says
    "server_header": False,
    "proxy_headers": False,  # who may be believed is Django's to say (BEHIND_PROXY)
    "backlog": 2_048,  # connections that arrive while a batch is being answered
    "limit_concurrency": 5_000,  # requests and connections; beyond it the server says 503 before it reads
    "timeout_keep_alive": 65,  # seconds; longer than proxies keep a connection, so that they close first
    "timeout_graceful_shutdown": 8,  # seconds to answer what was taken: a lock is waited for 5; what is cut keeps its key
}


def listening(host: str, port: int, *, is_shared: bool) -> socket.socket:
    """Return a socket bound to an address. Shared: somebody else who holds the port, and does not listen, may keep it."""
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_shared:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    found.bind((host, port))
    found.set_inheritable(True)
    return found


def main() -> int:
    """Serve until told to stop; then take nothing new and answer what was taken."""
    parser = argparse.ArgumentParser(prog="python -m marketplace.server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8_000, help="port to listen on (default: 8000)")
    parser.add_argument("--share-port", action="store_true", help="take a port that the starting program holds for us")
    parser.add_argument("--processes", type=int, default=int(os.environ.get("WEB_PROCESSES") or 1), help="(default: 1)")
    given = parser.parse_args()
    config = uvicorn.Config("marketplace.asgi:application", workers=given.processes, **OPTIONS)
    try:
        sockets = [listening(given.host, given.port, is_shared=given.share_port)]
    except OSError as error:
        sys.stderr.write(f"Cannot listen on {given.host}:{given.port}: {error.strerror}. Choose another --port.\n")
        return 1
    server = uvicorn.Server(config)
    # uvicorn stops in good order, then raises the signal again: a stop that was asked for is no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    if given.processes > 1:
        with TemporaryDirectory(prefix="market-meters-") as together:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = together  # /metrics is of all processes, whichever answers
            Multiprocess(config, sockets).run()
    else:
        server.run(sockets=sockets)
    return 0


if __name__ == "__main__":
    sys.exit(main())
