"""Natural micro-batching. Lives here: the queues between the door and the database, and what is asked again.

Orders that arrive while one batch commits form the next: no timer, no added wait when idle, and one durable commit for
all of them. An order whose accounts are locked by somebody else moves to a second, patient connection, so that it holds
back nobody. A batch that the database refuses as a whole is asked again order by order, so that one poisoned order fails
alone. Asking again is safe: a key has one effect.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, cast

import asyncpg
from django.utils import timezone

from escrow import crashpoints, verdicts
from escrow.verdicts import UNKNOWN, Opinion, Rulebook
from marketplace.keys import USE_IS_NOTED_EVERY
from marketplace.lane import statement
from marketplace.lane.statement import Connection, Decision, Order

log = logging.getLogger(__name__)

ATTEMPTS: Final = 8
"""How often an order is asked again, for a policy learnt or an account that was busy, before it is given up."""

TIMEOUTS: Final = (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError)
"""The database gave a statement up, and rolled it back: it has had no effect."""
ORDERS_OWN: Final = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.InternalServerError,
    ValueError,
)
"""What one order of a batch can be at fault for. Anything else meets all of them alike, and asking again one by one would
only let each wait for the same outage."""
OUTAGES: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # of a connection that was ended while it was idle, until asyncpg has read its end
    OSError,  # TimeoutError too
)
"""The database is away, or was for a moment. What a lost connection may have done, it did under the same keys."""

Connect = Callable[[], Awaitable[Connection]]


class Full(Exception):
    """More orders wait than may; nothing of this one has been tried."""


class GivenUp(Exception):
    """An order could not be decided: its accounts stayed busy, or its policy kept changing. It has had no effect."""


@dataclass(slots=True, eq=False)
class Waiting:
    """An order and its answer to be."""

    order: Order
    answer: asyncio.Future[tuple[Decision, Opinion]]
    opinion: Opinion = UNKNOWN
    attempts: int = 0


@dataclass(slots=True)
class _Queue:
    """One connection's orders, and the connection."""

    is_patient: bool
    waiting: deque[Waiting] = field(default_factory=deque)
    filled: asyncio.Event = field(default_factory=asyncio.Event)
    connection: Connection | None = None

    def add(self, waiting: Waiting) -> None:
        self.waiting.append(waiting)
        self.filled.set()

    def take(self, most: int) -> list[Waiting]:
        batch = [self.waiting.popleft() for _ in range(min(most, len(self.waiting)))]
        if not self.waiting:
            self.filled.clear()
        return batch


class Batches:
    """The lane's orders on their way to the database and back."""

    def __init__(self, connect: Connect, *, batch_size: int, queue_length: int) -> None:
        """``connect`` opens a connection in autocommit mode."""
        self._connect = connect
        self._batch_size = batch_size
        self._queue_length = queue_length
        self._rules = Rulebook()
        self._eager, self._patient = _Queue(is_patient=False), _Queue(is_patient=True)
        self._runners: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to decide, on the running loop."""
        self._runners = [asyncio.create_task(self._run(queue)) for queue in (self._eager, self._patient)]

    async def stop(self) -> None:
        """Stop. The server has waited for every answer before, so nothing is under way any more."""
        for runner in self._runners:
            runner.cancel()
            with suppress(asyncio.CancelledError):
                await runner
        for queue in (self._eager, self._patient):
            if queue.connection is not None:
                queue.connection.terminate()

    async def decide(self, order: Order) -> tuple[Decision, Opinion]:
        """Return what became of an order, once that is durable, and what the pure rules said of it.

        Raises Full, GivenUp, one of TIMEOUTS when it has had no effect, or one of OUTAGES when nothing is known of it. The
        same key may be sent again after each.
        """
        if len(self._eager.waiting) + len(self._patient.waiting) >= self._queue_length:
            raise Full
        waiting = Waiting(order, asyncio.get_running_loop().create_future())
        self._eager.add(waiting)
        return await waiting.answer

    async def _run(self, queue: _Queue) -> None:
        while True:
            await queue.filled.wait()
            batch = queue.take(self._batch_size)
            try:
                await self._ask(queue, batch)
            except Exception as fault:
                if not isinstance(fault, (*TIMEOUTS, *OUTAGES)):
                    log.exception("a batch of %s orders failed", len(batch))
                _fail(batch, fault)

    async def _ask(self, queue: _Queue, batch: Sequence[Waiting]) -> None:
        now = timezone.now()
        for waiting in batch:
            if waiting.opinion is UNKNOWN and waiting.order.session_id is not None:
                waiting.opinion = self._opinion(waiting.order, now)
        try:
            decisions, unnoted = await self._execute(queue, batch, is_patient=queue.is_patient)
        except TIMEOUTS:
            # A lock or a slow database is no single order's fault: each would only wait once more, one after the other.
            if not queue.is_patient:
                raise
            decisions, unnoted = await self._execute(queue, batch, is_patient=False)
            for waiting in batch:
                waiting.attempts = ATTEMPTS  # who is busy still is given up
        except ORDERS_OWN as fault:
            if len(batch) == 1:
                raise
            log.warning("a batch of %s orders is asked again one by one: %s", len(batch), type(fault).__name__)
            for waiting in batch:
                await self._ask_alone(queue, waiting)
            return
        for waiting, decision in zip(batch, decisions, strict=True):
            try:
                self._settle(waiting, decision)
            except Exception as fault:  # what one order cannot bear is not the others' answer: theirs are committed
                log.exception("an order cannot be answered")
                _fail([waiting], fault)
        if unnoted and queue.connection is not None:
            with suppress(asyncpg.PostgresError, *OUTAGES):  # the next use is noted again
                await statement.note_use(queue.connection, unnoted, every=USE_IS_NOTED_EVERY)

    def _opinion(self, order: Order, now: datetime) -> Opinion:
        session_id = cast("str", order.session_id)
        return self._rules.opinion(session_id, to=order.to, capability=order.capability or None, now=now)

    async def _ask_alone(self, queue: _Queue, waiting: Waiting) -> None:
        try:
            await self._ask(queue, [waiting])
        except Exception as fault:  # noqa: BLE001 - as above
            log.warning("an order failed alone: %s", type(fault).__name__)
            _fail([waiting], fault)

    async def _execute(
        self, queue: _Queue, batch: Sequence[Waiting], *, is_patient: bool
    ) -> tuple[list[Decision], set[str]]:
        orders, opinions = [waiting.order for waiting in batch], [waiting.opinion for waiting in batch]
        for is_last in (False, True):
            if queue.connection is None or queue.connection.is_closed():
                queue.connection = await self._open()
            try:
                decided = await statement.decide(
                    queue.connection, orders, opinions, patient=is_patient, note_every=USE_IS_NOTED_EVERY
                )
            except TIMEOUTS:
                raise
            except OUTAGES as fault:
                queue.connection.terminate()
                if is_last or isinstance(fault, TimeoutError):
                    raise
            else:
                crashpoints.reach("send.committed")
                return decided
        raise AssertionError("the second time returns or raises")

    async def _open(self) -> Connection:
        try:
            return await self._connect()
        except asyncpg.PostgresError as refusal:  # whatever its reason is, no order is at fault
            raise asyncpg.CannotConnectNowError(str(refusal)) from refusal

    def _settle(self, waiting: Waiting, decision: Decision) -> None:
        verdict, order = decision.verdict, waiting.order
        if decision.admitted and verdict.outcome in (verdicts.BUSY, verdicts.STALE):
            waiting.attempts += 1
            if waiting.attempts >= ATTEMPTS:
                _fail([waiting], GivenUp())
            elif verdict.outcome == verdicts.BUSY:
                self._patient.add(waiting)
            else:
                order.session_id = session_id = cast("str", decision.session_id)
                self._rules.learn(session_id, verdict.facts)
                waiting.opinion = self._opinion(order, cast("datetime", verdict.at))
                self._eager.add(waiting)
        elif not waiting.answer.done():
            waiting.answer.set_result((decision, waiting.opinion))


def _fail(batch: Sequence[Waiting], fault: Exception) -> None:
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_exception(fault)
