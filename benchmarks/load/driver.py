"""Sending and counting. Closed loop: a connection sends when it has its answer. Open loop: requests arrive at a fixed rate.

In an open loop a latency begins when the request was due, not when a connection was free to send it: a server that stands
still for a second is late for everything that should have come in that second.
"""

import asyncio
import time
from array import array
from collections import Counter, deque
from typing import Any, Final
from urllib.parse import urlsplit

from benchmarks.load import figures, ticks, wire
from benchmarks.load.plan import Plan

GRACE_SECONDS: Final = 15.0
"""How long answers are waited for after the last request was sent."""
RECONNECTS: Final = 200
"""Connections that may be opened again in one run; a server that is gone ends it."""
PAID: Final = b"201"
FAULT: Final = b"500"
clock: Final = time.perf_counter


class Connection(asyncio.Protocol):
    """One kept-alive connection with at most one request in flight."""

    __slots__ = ("began", "driver", "number", "received", "refunding", "transport")

    def __init__(self, driver: "Driver") -> None:
        """Wait to be connected."""
        self.driver = driver
        self.number: int | None = None
        self.began = 0.0
        self.refunding = False
        self.received = b""
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer; when it is whole, count it and send the next request."""
        if self.received:
            data = self.received + data
        try:
            found = wire.extent(data)
        except wire.Unreadable as error:
            self.driver.fail(self, f"unreadable: {error}")
            self.transport.close()
            return
        if found is None or len(data) < found[1]:
            self.received = data
            return
        self.received = b""
        self.driver.answered(self, data[9:12], data[found[0] : found[1]])

    def connection_lost(self, exc: Exception | None) -> None:
        """Count what was in flight as unanswered, and connect again."""
        self.driver.lost(self)


class Driver:
    """One run of a plan."""

    def __init__(self, plan: Plan, loop: asyncio.AbstractEventLoop) -> None:
        """Write every request's text once."""
        self.plan = plan
        self.loop = loop
        self.templates = [wire.payment(plan, caller) for caller in plan.callers]
        self.done: asyncio.Future[None] = loop.create_future()
        self.latencies, self.refund_latencies, self.paid_at = array("d"), array("d"), array("d")
        self.codes: Counter[str] = Counter()
        self.refund_codes: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.numbers: list[int] = []
        self.unanswered: list[int] = []
        self.idle: list[Connection] = []
        self.connections: set[Connection] = set()
        self.pending: deque[tuple[int, float]] = deque()
        self.refunds: deque[tuple[int, bytes]] = deque()
        self.issued = self.refused = self.in_flight = self.reconnects = self.connecting = 0
        self.began = self.ended = self.late = self.cpu = self.began_at = 0.0
        self.refund_debt = 0.0
        of_rate = plan.longest * plan.rate if plan.rate else None
        self.total = min((limit for limit in (plan.count, of_rate) if limit is not None), default=None)

    async def run(self) -> None:
        """Connect, send everything, and wait for the answers."""
        await asyncio.gather(*(self._connect() for _ in range(self.plan.connections)))
        if not self.connections:
            raise ConnectionError(f"nothing listens at {self.plan.url}")
        self.cpu, self.began_at = time.process_time(), time.time()
        self.began = self.ended = clock()
        if self.plan.rate:
            with ticks.ticking(self.loop, 1 / self.plan.rate, self._arrive):
                self._arrive()
                await self._finish()
        else:
            for connection in tuple(self.connections):
                self.feed(connection, clock())
            await self._finish()
        for connection in tuple(self.connections):
            if connection.number is not None:
                self.fail(connection, "no answer in time")
            connection.transport.abort()
        for _ in self.pending:
            self.errors["never sent"] += 1

    def answered(self, connection: Connection, status: bytes, body: bytes) -> None:
        """Count an answer, and give the connection its next request."""
        now = self.ended = clock()
        number, connection.number = connection.number, None
        if number is None:
            self.errors["an answer that nobody asked for"] += 1
            return
        self.in_flight -= 1
        if connection.refunding:
            self.refund_codes["200" if status == b"200" else wire.code_of(status, body)] += 1
            self.refund_latencies.append(now - connection.began)
        elif status == PAID:
            self.latencies.append(now - connection.began)
            self.paid_at.append(now)
            if self.plan.keep_numbers:
                self.numbers.append(number)
            if self.plan.refund_share:
                self._owe_refund(number, body)
        else:
            self.codes[wire.code_of(status, body)] += 1
            self.refused += status < FAULT
        if status >= FAULT:
            self.errors[f"status {status.decode()}"] += 1
        self.feed(connection, now)

    def feed(self, connection: Connection, now: float) -> None:
        """Send the next request over a free connection, or let it wait, or end the run."""
        if self.refunds:
            number, request = self.refunds.popleft()
            self._send(connection, number, request, now, refunding=True)
        elif self.pending:
            number, due = self.pending.popleft()
            self._pay(connection, number, due)
        elif self.plan.rate is None and not self._over(now):
            self.issued += 1
            self._pay(connection, self.plan.first + self.issued - 1, now)
        else:
            self.idle.append(connection)
            if not self.in_flight and self._over(now) and not self.done.done():
                self.done.set_result(None)

    def fail(self, connection: Connection, why: str) -> None:
        """Count a request that got no answer."""
        self.errors[why] += 1
        if connection.number is not None:
            if self.plan.keep_numbers and not connection.refunding:
                self.unanswered.append(connection.number)
            connection.number = None
            self.in_flight -= 1

    def lost(self, connection: Connection) -> None:
        """Forget a connection that is gone; open another while the run goes on."""
        self.connections.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        if connection.number is not None:
            self.fail(connection, "connection lost")
        if self.done.done():
            return
        if self.reconnects < RECONNECTS:
            self.reconnects += 1
            self.connecting += 1
            self.loop.create_task(self._replace())
        elif not self.connections and not self.connecting:
            self.errors["server gone"] += 1
            self.done.set_result(None)

    def result(self) -> dict[str, object]:
        """Return what was seen, as a JSON document."""
        duration = max(self.ended - self.began, 1e-9)
        paid = len(self.latencies)
        errors = dict(self.errors)
        document: dict[str, object] = {
            "sent": self.issued,
            "paid": paid,
            "rate": round(paid / duration, 1),
            "codes": {"201": paid, **self.codes},
            "refused": self.refused,
            "errors": sum(errors.values()),
            "errors_by_kind": errors,
            **figures.summary(self.latencies),
            "histogram": figures.histogram(self.latencies),
            "duration_s": round(duration, 4),
            "began_at": self.began_at,
            "timeline": figures.timeline(at - self.began for at in self.paid_at),
            "driver_cpu_s": round(time.process_time() - self.cpu, 3),
            "driver_late_ms": round(self.late * 1_000, 3),
        }
        if self.plan.refund_share:
            document["refunds"] = {"codes": dict(self.refund_codes), **figures.summary(self.refund_latencies)}
        if self.plan.keep_numbers:
            document |= {"numbers": self.numbers, "unanswered": self.unanswered}
        return document

    def _over(self, now: float) -> bool:
        """Return whether nothing more is sent."""
        if self.total is not None and self.issued >= int(self.total):
            return True
        return now - self.began >= self.plan.longest

    def _arrive(self) -> None:
        """Take every request that is due by now, each with the time at which it was due."""
        rate, now = float(self.plan.rate or 1), clock()
        due = min(int((now - self.began) * rate) + 1, int(self.total or 0))
        if self.issued < due:
            self.late = max(self.late, now - self.began - self.issued / rate)
        while self.issued < due:
            number, when = self.plan.first + self.issued, self.began + self.issued / rate
            self.issued += 1
            if self.idle:
                self._pay(self.idle.pop(), number, when)
            else:
                self.pending.append((number, when))

    def _pay(self, connection: Connection, number: int, began: float) -> None:
        template = self.templates[number % len(self.templates)]
        self._send(connection, number, template.request(number), began)

    def _send(
        self, connection: Connection, number: int, request: bytes, began: float, *, refunding: bool = False
    ) -> None:
        connection.number, connection.began, connection.refunding = number, began, refunding
        self.in_flight += 1
        connection.transport.write(request)

    def _owe_refund(self, number: int, body: bytes) -> None:
        """Give back every so manieth payment: no chance in it, so that two runs do the same."""
        self.refund_debt += self.plan.refund_share
        if self.refund_debt >= 1:
            self.refund_debt -= 1
            caller = self.plan.callers[number % len(self.plan.callers)]
            self.refunds.append((number, wire.refund(self.plan, caller, body, number)))

    async def _finish(self) -> None:
        try:
            await asyncio.wait_for(self.done, self.plan.longest + GRACE_SECONDS)
        except TimeoutError:
            self.errors["run cut short"] += 1

    async def _connect(self) -> None:
        where = urlsplit(self.plan.url)
        host, port = where.hostname or "127.0.0.1", where.port or 80
        try:
            _, connection = await self.loop.create_connection(lambda: Connection(self), host, port)
        except OSError:
            return
        self.connections.add(connection)
        if self.plan.rate:
            self.idle.append(connection)

    async def _replace(self) -> None:
        """Open a connection again, and put it to work."""
        await asyncio.sleep(0.05)
        before = set(self.connections)
        await self._connect()
        self.connecting -= 1
        fresh = self.connections - before
        for connection in fresh:
            if connection in self.idle:
                self.idle.remove(connection)
            self.feed(connection, clock())
        if not fresh and not self.connections and not self.connecting and not self.done.done():
            self.errors["server gone"] += 1
            self.done.set_result(None)
