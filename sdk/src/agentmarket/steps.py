"""The protocol without I/O: every operation is a generator that yields what it needs and is sent what came of it.

Written once; `client` has the two thin shells (async and sync) that perform the effects below.
"""

import random
import uuid
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from agentmarket import errors, wire
from agentmarket.retries import Retries, may_repeat
from agentmarket.wire import Reply, Request, Silence

T = TypeVar("T")


@dataclass(frozen=True)
class Transmit:
    """Send the request; sent back: a Reply or a Silence."""

    request: Request


@dataclass(frozen=True)
class Pause:
    """Wait; sent back: None."""

    seconds: float


@dataclass(frozen=True)
class ReadClock:
    """Sent back: seconds on a clock that never goes back."""


@dataclass(frozen=True)
class Fulfil:
    """Run the caller's function, awaited where it can be; sent back: what it returned. What it raises is thrown in."""

    function: Callable[[], object]


@dataclass(frozen=True)
class Resolve:
    """Look a host name up; sent back: its addresses as text, none when it has none."""

    host: str


Effect: TypeAlias = Transmit | Pause | ReadClock | Fulfil | Resolve
Steps: TypeAlias = Generator[Effect, Any, T]

#: the answers that are given before the market looks the key up, so they say nothing about an earlier attempt
_SAYS_NOTHING = frozenset({"unauthenticated", "forbidden", "rate_limited"})


def one_key(key: str | None) -> str:
    """The idempotency key of one logical call: the caller's own, or a new one."""
    if key is None:
        return f"am-{uuid.uuid4()}"
    if not 1 <= len(key) <= 255 or not all("!" <= letter <= "~" for letter in key):
        raise errors.InvalidRequest(
            "key must be 1 to 255 visible ASCII characters, without spaces.", outcome="not_charged"
        )
    return key


def exchange(request: Request, retries: Retries) -> Steps[Reply]:
    """Send until there is an answer or the bounds are reached; the key is in the request, the same for each attempt.

    Returns a success, raises the error of a refusal. When money may have moved unseen, the error is OutcomeUnknown.
    """
    doubt = False
    attempt, opening, waited = 0, 0, 0.0
    while True:
        attempt += 1
        outcome: Reply | Silence = yield Transmit(request)
        if isinstance(outcome, Reply) and outcome.ok:
            return outcome
        error = _failure(request, outcome)
        delay = None
        if isinstance(error, errors.PoolOpening):
            opening += 1
            delay = retries.opening_delay(opening, waited=waited, asked=error.retry_after)
            waited += delay or 0.0
        elif may_repeat(request, outcome):
            chance = random.random()  # noqa: S311 - no secret
            delay = retries.delay(attempt - opening, asked=error.retry_after, chance=chance)
        if delay is None:
            raise _verdict(request, error, attempt, doubt=doubt)
        doubt = doubt or _may_have_worked(outcome, error)
        yield Pause(delay)


@dataclass(frozen=True)
class Answered(Generic[T]):
    """An accepted request: its answer, and whether the market had given it before for the same key."""

    answer: T
    replayed: bool


def fetch(request: Request, retries: Retries, read: Callable[[Any], T]) -> Steps[T]:
    """The answer, read. See `answered`."""
    return (yield from answered(request, retries, read)).answer


def answered(request: Request, retries: Retries, read: Callable[[Any], T]) -> Steps[Answered[T]]:
    """The answer, read, and whether it is a repetition. A halted request with a key can go on: `Resumable`.

    When an accepted request has an unreadable answer, the error has its key: repeat with it.
    """
    try:
        reply = yield from exchange(request, retries)
    except errors.Resumable as halted:
        if request.key is not None:
            halted.goes_on(lambda: fetch(request, retries, read))
        raise
    try:
        return Answered(read(wire.read(reply)), reply.replayed)
    except errors.InvalidReply as unreadable:
        unreadable.key = request.key
        unreadable.outcome = "unknown" if request.key else None
        raise


def stating(outcome: errors.Outcome, steps: Steps[T]) -> Steps[T]:
    """The same steps, whose errors say what is known of the money: reading does not change it."""
    try:
        return (yield from steps)
    except errors.AgentMarketError as error:
        error.outcome = error.outcome or outcome
        raise


def wait_for(
    ask: Callable[[], Steps[T]], *, done: Callable[[T], bool], what: str, timeout: float, pause: float = 0.1
) -> Steps[T]:
    """Ask again until `done`, with growing pauses, for `timeout` seconds at most."""
    started = yield ReadClock()
    while True:
        answer = yield from ask()
        if done(answer):
            return answer
        waited = (yield ReadClock()) - started
        if waited >= timeout:
            raise errors.Timeout(
                f"Waited {waited:.1f} s for {what}.",
                retryable=True,
                next_actions=getattr(answer, "next_actions", ()),
            )
        yield Pause(min(pause, timeout - waited))
        pause = min(pause * 1.5, 1.0)


def _failure(request: Request, outcome: Reply | Silence) -> errors.AgentMarketError:
    if isinstance(outcome, Reply):
        return wire.refusal(outcome, key=request.key)
    if outcome.sent:
        return errors.Unavailable(
            f"No answer to {request.method} {request.url}: {outcome.reason}.", retryable=True, key=request.key
        )
    hint = "" if request.foreign else " Is AGENTMARKET_URL right, and the market up?"
    return errors.Unreachable(
        f"Could not connect for {request.method} {request.url}: {outcome.reason}.{hint}",
        retryable=True,
        outcome="not_charged" if request.key else None,
        key=request.key,
    )


def _verdict(
    request: Request, error: errors.AgentMarketError, attempts: int, *, doubt: bool
) -> errors.AgentMarketError:
    """The error to raise: what is known about the money decides."""
    if request.key is None:
        return error
    if not _in_doubt(error, earlier=doubt):
        error.outcome = error.outcome or "not_charged"
        return error
    unknown = errors.OutcomeUnknown(
        f"{request.method} {request.url}: no certain answer in {attempts} attempts (last: {error.detail.rstrip('.')}). "
        f'resume(), or the same call with key="{request.key}", sends it again: it is charged once, however often.',
        status=error.status,
        retryable=True,
        outcome="unknown",
        request_id=error.request_id,
        retry_after=error.retry_after,
        key=request.key,
    )
    unknown.__cause__ = error
    return unknown


def _may_have_worked(outcome: Reply | Silence, error: errors.AgentMarketError) -> bool:
    """If the attempt may have moved money: only a refusal, or no connection at all, says that it did not."""
    if isinstance(outcome, Silence):
        return outcome.sent
    return outcome.status >= 500 and error.outcome != "not_charged"


def _in_doubt(error: errors.AgentMarketError, *, earlier: bool) -> bool:
    """If the last answer leaves the money unknown. An earlier doubt ends only when the market itself states it."""
    if error.status is None:
        return earlier or not isinstance(error, errors.Unreachable)
    unstated = error.outcome is None or error.outcome == "unknown"
    if error.status < 500:
        return earlier and (unstated or error.code in _SAYS_NOTHING)
    return earlier or unstated
