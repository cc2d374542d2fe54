"""The work loop of a seller: take the tasks assigned to the agent, do them, deliver with an invoice."""

import asyncio
import logging
import random
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from agentmarket import errors
from agentmarket.amounts import micros
from agentmarket.answers import Task
from agentmarket.client import Client
from agentmarket.paid import Unserviceable, Work, run

log = logging.getLogger("agentmarket.seller")

#: seconds between looks for work: at once busy, then slower and slower
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
LONGEST_PAUSE_IN_TROUBLE = 30.0
#: how often a task whose function raised is tried again before it is left to its due time
ATTEMPTS = 3
#: how often a delivery that the market does not take is tried again, with the pauses of trouble in between
DELIVERIES = 10
REMEMBERED = 1024


@dataclass(frozen=True)
class PaidTask:
    """One capability that a seller does for an outcome."""

    capability: str
    price: str
    function: Work


class Worker:
    """One agent's loop. It may be killed at any moment: a delivery's key comes from its task, so it is made once."""

    def __init__(self, client: Client, agent: str, offers: dict[str, PaidTask]) -> None:
        self._client, self._agent, self._offers = client, agent, offers
        self._failures: OrderedDict[str, int] = OrderedDict()
        self._left: OrderedDict[str, int] = OrderedDict()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End after the task in hand."""
        self._stopping.set()

    async def work(self) -> None:
        """Until `stop`; trouble with the market makes the pauses longer and ends nothing."""
        pause = SHORTEST_PAUSE
        while not self._stopping.is_set():
            try:
                found = await self.work_once()
                pause = SHORTEST_PAUSE if found else min(pause * 1.3, LONGEST_PAUSE)
            except errors.AgentMarketError as error:
                pause = min(max(pause, 0.5) * 2, LONGEST_PAUSE_IN_TROUBLE)
                log.warning("looking for tasks failed, next look in %.1f s: %s", pause, error)
            await self._rest(pause)

    async def work_once(self) -> int:
        """Do what is assigned now; the number of tasks delivered.

        A task that cannot be delivered holds up none behind it: what the market said to it is raised at the end.
        """
        delivered = 0
        trouble: errors.AgentMarketError | None = None
        async for task in self._client.tasks.list(status="assigned"):
            if self._stopping.is_set():
                break
            if task.agent != self._agent or task.id in self._left:
                continue
            try:
                delivered += await self._attempt(task)
            except errors.AgentMarketError as error:
                trouble = error
                self._count(task, DELIVERIES, f"it could not be delivered: {error}")
        if trouble is not None:
            raise trouble
        return delivered

    async def _attempt(self, task: Task) -> bool:
        offer = self._offers.get(task.capability)
        if offer is None:
            return self._leave(task, f"nothing here does {task.capability!r}")
        if micros(task.budget) < micros(offer.price):
            return self._leave(task, f"its budget of {task.budget} is under the price of {offer.price}")
        try:
            deliverable = await run(offer.function, task)
        except Unserviceable as reason:
            return self._leave(task, str(reason))
        except Exception:
            log.exception("task %s failed", task.id)
            return self._count(task, ATTEMPTS, "its function raised each time")
        return await self._deliver(task, offer, deliverable)

    async def _deliver(self, task: Task, offer: PaidTask, deliverable: Any) -> bool:
        """The key and the invoice's number come from the task, so a second delivery of it is the same one."""
        try:
            await self._client.tasks.submit(
                task.id, deliverable=deliverable, amount=offer.price, number=f"INV-{task.id}", key=f"submit-{task.id}"
            )
        except errors.Conflict as conflict:
            return self._leave(task, f"it is no longer ours to deliver: {conflict}")
        except errors.AgentMarketError as error:
            if error.retryable or isinstance(error, errors.RateLimited | errors.Unavailable | errors.ServerError):
                raise
            return self._leave(task, f"the delivery was refused: {error}")
        return True

    def _count(self, task: Task, most: int, why: str) -> bool:
        """Note one more failure of a task, and leave it alone at the last one."""
        self._failures[task.id] = self._failures.get(task.id, 0) + 1
        _forget(self._failures)
        return self._leave(task, why) if self._failures[task.id] >= most else False

    def _leave(self, task: Task, why: str) -> bool:
        """Leave a task alone: it falls back to its buyer when it is due."""
        log.warning("task %s is left: %s", task.id, why)
        self._failures.pop(task.id, None)
        self._left[task.id] = 0
        _forget(self._left)
        return False

    async def _rest(self, seconds: float) -> None:
        try:
            spread = seconds * (0.75 + random.random() / 2)  # noqa: S311 - no secret
            await asyncio.wait_for(self._stopping.wait(), spread)
        except TimeoutError:
            return


def _forget(noted: OrderedDict[str, int]) -> None:
    while len(noted) > REMEMBERED:
        noted.popitem(last=False)
