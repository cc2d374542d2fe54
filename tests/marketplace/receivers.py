"""A receiver of webhooks on this machine: a real server that keeps what it got and answers as it is told."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from agentmarket import webhooks

Answer = int | Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Receiver:
    """What came, in order; `answer` is a status, or does something with the connection."""

    answer: Answer = 204
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""
    came: threading.Condition = field(default_factory=threading.Condition)

    @property
    def ids(self) -> list[str]:
        """The ids of all messages, repeats too."""
        return [headers["webhook-id"] for headers, _ in self.got]

    def events(self, secret: str | list[str], at: datetime | None = None) -> list[webhooks.WebhookEvent]:
        """Return what came, verified as a receiver would."""
        moment = (at or datetime.now(UTC)).timestamp()
        return [webhooks.verify(body, headers, secret, now=moment) for headers, body in self.got]

    def wait(self, count: int) -> None:
        """Wait until so many messages have come."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.got) >= count, 60), f"{len(self.got)} of {count} came"


@contextmanager
def receiving(answer: Answer = 204, port: int = 0) -> Iterator[Receiver]:
    """Run a receiver."""
    receiver = Receiver(answer)

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with receiver.came:
                receiver.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                receiver.came.notify_all()
            if callable(receiver.answer):
                receiver.answer(self)
                return
            self.send_response(receiver.answer)
            if 300 <= receiver.answer < 400:
                self.send_header("Location", receiver.url)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", port), Door)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    serving.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}/in"
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        serving.join(30)


class Inline(Executor):
    """Does at once what it is given, in the thread that gives it, so that it shares the test's database transaction."""

    def submit(self, call: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Do it."""
        done: Future[Any] = Future()
        done.set_result(call(*args, **kwargs))
        return done
