"""Many deliveries at once. Lives here: a process's threads, and who may have how many of them. What a delivery is, is
`marketplace.deliveries`'.

A sweep hands out what is due and returns: it does not wait for a receiver, so neither the other sweeps of the worker nor the
other endpoints do. An endpoint has a few threads at most, and each for a turn, in which it delivers one message after the
other; all endpoints that fail have half of the threads together, and one each.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import ParamSpec, TypeVar
from uuid import UUID

from django.conf import settings
from django.db import close_old_connections

from marketplace import deliveries
from marketplace.deliveries import Claimed
from marketplace.models import WebhookEndpoint

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


class Threads(ThreadPoolExecutor):
    """Threads whose database connections are looked after, as Django does around a request."""

    def submit(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Have a thread do it."""

        def run() -> T:
            close_old_connections()
            try:
                return call(*args, **kwargs)
            finally:
                close_old_connections()

        return super().submit(run)


class Courier:
    """Hands due deliveries to an executor. One for a process."""

    def __init__(
        self, pool: Executor, *, threads: int, turn: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pool = pool
        self._threads = threads
        self._turn = turn
        self._clock = clock
        self._sweeping = threading.Lock()
        self._counting = threading.Lock()
        self._busy: Counter[UUID] = Counter()
        self._failing: Counter[UUID] = Counter()

    def run(self, *, now: datetime) -> "list[Future[None]]":
        """Fan out, and hand out what is due as far as there are threads; return one task for each thread that was taken."""
        if not self._sweeping.acquire(blocking=False):
            return []  # the sweep before is still at it
        try:
            deliveries.fan_out_due(now=now, limit=settings.SWEEP_LIMIT)
            due = list(deliveries.endpoints_due(now=now, limit=settings.SWEEP_LIMIT))
            due.sort(key=lambda endpoint: endpoint.failing_since is not None)
            return [task for endpoint in due for task in self._hand_out(endpoint, now)]
        finally:
            self._sweeping.release()

    def _hand_out(self, endpoint: WebhookEndpoint, now: datetime) -> "list[Future[None]]":
        room = self._room(endpoint)
        tasks = []
        for claimed in deliveries.claim(endpoint, now=now, limit=room) if room > 0 else ():
            with self._counting:
                self._busy[endpoint.pk] += 1
                self._failing[endpoint.pk] += endpoint.failing_since is not None
            tasks.append(self._pool.submit(self._carry, claimed, now))
        return tasks

    def _room(self, endpoint: WebhookEndpoint) -> int:
        with self._counting:
            free = self._threads - self._busy.total()
            mine = self._busy[endpoint.pk]
            if endpoint.failing_since is None:
                return min(free, settings.WEBHOOK_PER_ENDPOINT - mine)
            return min(free, 1 - mine, self._threads // 2 - self._failing.total())

    def _carry(self, claimed: Claimed, now: datetime) -> None:
        begun = self._clock()
        endpoint = claimed.endpoint
        try:
            while True:
                outcome = deliveries.attempt(claimed)
                taken = self._clock() - begun
                at = now + timedelta(seconds=taken)
                deliveries.record(claimed, outcome, now=at)
                more = (
                    deliveries.claim(endpoint, now=at, limit=1) if outcome.is_delivered and taken < self._turn else []
                )
                if not more:
                    return
                claimed = more[0]
        except Exception:
            log.exception("%s is left for a later sweep", claimed.delivery)
        finally:
            with self._counting:
                _less(self._busy, endpoint.pk)
                if endpoint.failing_since is not None:
                    _less(self._failing, endpoint.pk)


def _less(counter: "Counter[UUID]", of: UUID) -> None:
    counter[of] -= 1
    if counter[of] <= 0:
        del counter[of]
