"""What is to go wrong, how often, and how often it did. Lives here: the list. Not here: what each kind does (the proxies).

Everything here is used by one thread, the proxy's, but for `wait`.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

ANY: Final = "*"


@dataclass(eq=False)
class Fault:
    """One kind of fault for one method, `left` times more; None is until it is cleared. `how` is the kind's own."""

    kind: str
    method: str
    left: int | None
    how: Mapping[str, Any]
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is cleared: whoever it holds is let go."""


class Plan:
    """Faults in the order they were asked for: the first that fits is the one that happens."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._met: Counter[str] = Counter()
        self._told = threading.Condition()

    def add(self, fault: Fault) -> None:
        self._faults.append(fault)

    def take(self, method: str) -> Fault | None:
        """The fault that this request meets; it is counted as met."""
        found = next((f for f in self._faults if f.method in (ANY, method) and f.left != 0), None)
        if found is not None:
            if found.left is not None:
                found.left -= 1
            self.meet(found.kind, 1)
        return found

    def give_back(self, fault: Fault) -> None:
        """It found nothing to spoil in this answer: the next one may meet it."""
        if fault.left is not None:
            fault.left += 1
        self.meet(fault.kind, -1)

    def clear(self, kind: str | None = None) -> None:
        for fault in [f for f in self._faults if kind in (None, f.kind)]:
            self._faults.remove(fault)
            fault.left = 0
            fault.over.set()

    def meet(self, kind: str, times: int) -> None:
        with self._told:
            self._met[kind] += times
            self._told.notify_all()

    def met(self, kind: str) -> int:
        """How often a fault of this kind happened. From any thread."""
        with self._told:
            return self._met[kind]

    def wait(self, kind: str, times: int, timeout: float) -> None:
        """Return once a fault of this kind has happened so often; raise TimeoutError. From any thread but the proxy's."""
        with self._told:
            if not self._told.wait_for(lambda: self._met[kind] >= times, timeout):
                raise TimeoutError(f"{kind} happened {self._met[kind]} times in {timeout} s, not {times}")
