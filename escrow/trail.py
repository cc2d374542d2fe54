"""What happens now, on whose behalf: the request that asked for it, and the chain action and the task it is about.

Lives here: three context variables that the log's lines and the outbox read. Nobody decides anything by them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

HEADER: Final = "request_id"
"""Under which a message to a worker carries the id."""
_request: Final[ContextVar[str]] = ContextVar("request_id", default="")
_action: Final[ContextVar[int | None]] = ContextVar("action_id", default=None)
_task: Final[ContextVar[str]] = ContextVar("task", default="")


def request_id() -> str:
    """Return the id of the request that this goes back to; empty for what a clock has started."""
    return _request.get()


def action_id() -> int | None:
    """Return the chain action that is being worked on."""
    return _action.get()


def task() -> str:
    """Return the name of the task that a worker is at."""
    return _task.get()


def start(*, request: str = "", task: str = "") -> None:
    """Begin anew, with what is known of where this comes from: a thread of a worker does one thing after the other."""
    _request.set(request)
    _action.set(None)
    _task.set(task)


@contextmanager
def follow(request: str, *, action: int | None = None) -> Iterator[None]:
    """Have everything inside go back to a request, and be about a chain action."""
    asked, about = _request.set(request), _action.set(action)
    try:
        yield
    finally:
        _action.reset(about)
        _request.reset(asked)
