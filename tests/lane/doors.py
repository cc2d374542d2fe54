"""Both doors of POST /v1/payments, in this process: the lane on a loop of its own, and Django alone."""

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import uuid4

from a2wsgi import WSGIMiddleware
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection, connections, transaction

from escrow.models import Account
from marketplace.lane import statement
from marketplace.lane.batches import Batches
from marketplace.lane.door import App, Door, plain_headers
from tests.marketplace.client import Answer, check_documented

PATH = "/v1/payments"
PATIENCE = 30
"""Seconds after which a test that waits for an answer gives up."""
PAY: dict[str, Any] = {"to": "agent://lint.acme.dev", "amount": "0.012", "metadata": {"file": "a.py"}}


@dataclass
class Asked:
    """A request as bytes. ``headers`` replace those of the same name; None leaves one out, a list sends it twice."""

    key: str = ""
    body: Any = field(default_factory=lambda: dict(PAY))
    idempotency_key: str = ""
    headers: Mapping[str, str | Sequence[str] | None] = field(default_factory=dict)
    query: bytes = b""
    method: str = "POST"
    path: str = PATH

    def scope(self) -> dict[str, Any]:
        """Return it as ASGI has it."""
        usual = {
            "Host": "127.0.0.1:8000",
            "Authorization": f"Bearer {self.key}",
            "Idempotency-Key": self.idempotency_key or str(uuid4()),
            "Content-Type": "application/json",
            "Content-Length": str(len(self.raw)),
        }
        sent: list[tuple[bytes, bytes]] = []
        for name, value in {**usual, **self.headers}.items():
            values = [value] if isinstance(value, str) else value or []
            sent += [(name.lower().encode(), one.encode("latin-1")) for one in values]
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": self.path,
            "raw_path": self.path.encode(),
            "root_path": "",
            "query_string": self.query,
            "headers": sent,
            "client": ("127.0.0.1", 50_000),
            "server": ("127.0.0.1", 8_000),
        }

    @property
    def raw(self) -> bytes:
        """The body's bytes."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class Django:
    """Django's application as ASGI, with nothing in front of it. Counts what it was handed."""

    def __init__(self) -> None:
        self.handed = 0
        self._wsgi = WSGIHandler()
        self._app: Any = WSGIMiddleware(self._call, workers=4)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        self.handed += 1
        await self._app(scope, receive, send)

    def close(self) -> None:
        """End its threads."""
        self._app.executor.shutdown()

    def _call(self, environ: Any, start: Any) -> Any:
        try:
            return self._wsgi(environ, start)
        finally:
            connections.close_all()  # a thread's connection would outlive the tests' database


class Lane:
    """The lane as the server runs it, with a loop of its own, so that a test can use the database beside it."""

    def __init__(self, *, batch_size: int = 256, queue_length: int = 4_096, started: bool = True) -> None:
        self.pids: list[int] = []
        """The database's processes of the lane's connections, in the order in which they were opened."""
        self.attempts = 0
        """How often it has tried to open one."""
        self.batches = Batches(self._connect, batch_size=batch_size, queue_length=queue_length)
        self.django = Django()
        self.door = Door(self.batches, self.django)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._is_started = started

    def __enter__(self) -> Self:
        """Begin to answer."""
        self._thread.start()
        if self._is_started:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the loop, what still waits on it, and its thread."""
        try:
            self.run(self._stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(PATIENCE)
            self._loop.close()
            self.django.close()

    def start(self) -> None:
        """Begin to decide."""

        async def start() -> None:
            self.batches.start()

        self.run(start())

    def run(self, what: Coroutine[Any, Any, Any]) -> Any:
        """Run something on the lane's loop and return what it returns."""
        return self.submit(what).result(PATIENCE)

    def submit(self, what: Coroutine[Any, Any, Any]) -> "Future[Any]":
        """Begin something on the lane's loop."""
        return asyncio.run_coroutine_threadsafe(what, self._loop)

    def ask(self, asked: Asked) -> Answer:
        """Send a request through the lane's door, and wait."""
        return self.begin(asked).result(PATIENCE)

    def begin(self, asked: Asked) -> "Future[Answer]":
        """Send a request through the lane's door."""
        return self.submit(_ask(self.door, asked))

    def ask_all(self, several: Sequence[Asked]) -> list[Answer]:
        """Send requests at once: they all wait before the first of them is decided."""

        async def all_of_them() -> list[Answer]:
            return await asyncio.gather(*(_ask(self.door, asked) for asked in several))

        return list(self.run(all_of_them()))

    def ask_django(self, asked: Asked) -> Answer:
        """Send a request to Django, past the lane."""
        return self.run(_ask(self.django, asked))

    def order(self, asked: Asked) -> statement.Order:
        """Return what the door makes of a request."""
        return self.door._order(plain_headers(asked.scope()), asked.raw)

    def pay(self, key: str, idempotency_key: str = "", **body: Any) -> Answer:
        """Pay through the lane, and see that Django was not needed."""
        before = self.django.handed
        answer = self.ask(Asked(key, {**PAY, **body}, idempotency_key))
        assert self.django.handed == before, answer
        return answer

    async def _stop(self) -> None:
        await self.batches.stop()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _connect(self) -> statement.Connection:
        self.attempts += 1
        opened = await statement.connect()
        self.pids.append(opened.get_server_pid())
        return opened


async def _ask(app: App, asked: Asked) -> Answer:
    incoming = [{"type": "http.request", "body": asked.raw, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        return incoming.pop() if incoming else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    await app(asked.scope(), receive, send)
    return _answer(asked, sent)


def _answer(asked: Asked, sent: Sequence[Any]) -> Answer:
    start = sent[0]
    raw = b"".join(part.get("body", b"") for part in sent[1:])
    headers = {name.decode().title(): value.decode() for name, value in start["headers"]}
    kind = headers.get("Content-Type", "")
    answer = Answer(start["status"], json.loads(raw) if "json" in kind else None, headers, raw)
    if "json" in kind:
        check_documented(asked.method, asked.path, answer)
    return answer


@contextmanager
def locked(*accounts: Account) -> Iterator[None]:
    """Hold accounts locked, as a settlement or a refund does, until the block ends."""
    with transaction.atomic(), connection.cursor() as cursor:
        ids = sorted(account.pk for account in accounts)
        cursor.execute("SELECT 1 FROM escrow_account WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE", [ids])
        yield


def until(holds: Any) -> None:
    """Return as soon as something holds that another process or thread brings about."""
    pause = threading.Event()
    for _ in range(PATIENCE * 100):
        if holds():
            return
        pause.wait(0.01)
    raise TimeoutError("it did not come about")


def waits_for_a_lock(pid: int) -> bool:
    """Return whether a process of the database waits for a lock that another one holds."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT cardinality(pg_blocking_pids(%s)) > 0", [pid])
        return bool(cursor.fetchone()[0])
