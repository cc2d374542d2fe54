"""A proxy that fails as networks do, between a client and a server that does not know: lost, late and broken replies.

For tests of clients in this process and of others (`proxying(url)` gives one whose `url` any program may be given). What a
real market does behind it is real.
"""

import http.client
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

#: `drop`: the request goes through, its reply does not. `reset`: the request does not go through, the connection breaks.
#: `hold`: the request goes through, its reply waits for `let_go`. A number: the same, for so many seconds
Fault = Literal["drop", "reset", "hold"] | float

PATIENCE = 60.0
_NOT_PASSED_ON = frozenset(
    {"connection", "transfer-encoding", "keep-alive", "host", "content-length", "date", "server"}
)


@dataclass
class Proxy:
    """`faults` says what befalls which request: the first is 1, and only those with `method` are counted."""

    upstream: str
    faults: dict[int, Fault] = field(default_factory=dict)
    method: str = "POST"
    url: str = ""
    #: the status of each counted request's reply as the server gave it, by its number
    answered: dict[int, int] = field(default_factory=dict)
    let_go: threading.Event = field(default_factory=threading.Event)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    #: how many were counted so far
    count: int = 0

    def drop_next(self, times: int = 1) -> None:
        """Lose the replies of the next requests."""
        self.faults.update({self.count + number: "drop" for number in range(1, times + 1)})

    def wait_answered(self, number: int) -> int:
        """Wait until the server has answered the request of that number, whatever became of the reply."""
        with self._changed:
            assert self._changed.wait_for(lambda: number in self.answered, PATIENCE), f"request {number} never came"
            return self.answered[number]

    def take(self, method: str) -> tuple[int, Fault | None]:
        """The number of a request, and what befalls it; 0 for one that is not counted."""
        with self._changed:
            if method != self.method:
                return 0, None
            self.count += 1
            return self.count, self.faults.get(self.count)

    def note(self, number: int, status: int) -> None:
        with self._changed:
            if number:
                self.answered[number] = status
            self._changed.notify_all()


@contextmanager
def proxying(upstream: str, **options: Any) -> Iterator[Proxy]:
    """A proxy before a server until the block ends."""
    proxy = Proxy(upstream, **options)
    server = _Server(("127.0.0.1", 0), type("Door", (_Door,), {"proxy": proxy}))
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    serving.start()
    try:
        yield proxy
    finally:
        proxy.let_go.set()
        server.shutdown()
        server.server_close()
        serving.join()


class _Door(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: ClassVar[Proxy]

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        number, fault = self.proxy.take(self.command)
        if fault == "reset":
            self._reset()
            return
        status, headers, answer = self._ask(body)
        self.proxy.note(number, status)
        if fault == "drop":
            self._reset()
            return
        if fault is not None:
            self.proxy.let_go.wait(PATIENCE if fault == "hold" else float(fault))
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in _NOT_PASSED_ON:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        place = urlsplit(self.proxy.upstream)
        wire = http.client.HTTPConnection(place.hostname or "", place.port or 80, timeout=PATIENCE)
        passed = {name: value for name, value in self.headers.items() if name.lower() not in _NOT_PASSED_ON}
        try:
            wire.request(self.command, self.path, body or None, passed)
            answer = wire.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            wire.close()

    def _reset(self) -> None:
        """Break the connection as a network does: with a reset, not with a polite end."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except (OSError, ValueError):
            return

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - the names that http.server calls


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def shutdown_request(self, request: Any) -> None:
        try:
            super().shutdown_request(request)
        except OSError:
            return
