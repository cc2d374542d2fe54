"""`python -m marketplace.server`: the web as every stack runs it. Lives here: the server's options, each with its reason.

uvicorn with uvloop and httptools, because it costs the least of a core for each request: docs/PERFORMANCE.md has the figures.
"""

import argparse
import os
from typing import Any, Final

import uvicorn

OPTIONS: Final[dict[str, Any]] = {
    "loop": "uvloop",
    "http": "httptools",
    "ws": "none",
    "lifespan": "on",  # the lane begins and ends with the server
    "log_config": None,  # Django's own configuration
    "access_log": False,  # a line for each payment costs as much as the payment
    "server_header": False,
    "proxy_headers": False,  # who may be believed is Django's to say (BEHIND_PROXY)
    "backlog": 2_048,  # connections that arrive while a batch is being answered
    "limit_concurrency": 5_000,  # requests and connections; beyond it the server says 503 before it reads
    "timeout_keep_alive": 65,  # seconds; longer than proxies keep a connection, so that they close first
    "timeout_graceful_shutdown": 8,  # seconds to answer what was taken; a payment waits for a lock 5 at most
}


def main() -> None:
    """Serve until told to stop; then take nothing new and answer what was taken."""
    parser = argparse.ArgumentParser(prog="python -m marketplace.server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8_000, help="port to listen on (default: 8000)")
    parser.add_argument("--processes", type=int, default=int(os.environ.get("WEB_PROCESSES", "1")), help="(default: 1)")
    given = parser.parse_args()
    uvicorn.run("marketplace.asgi:application", host=given.host, port=given.port, workers=given.processes, **OPTIONS)


if __name__ == "__main__":
    main()
