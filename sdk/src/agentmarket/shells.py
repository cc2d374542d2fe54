"""The two shells perform the effects of `steps` (send, wait, look up, run a function), decide nothing."""

import asyncio
import inspect
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any, TypeVar, cast

import httpx2

from agentmarket.decode import Answer
from agentmarket.errors import Resumable
from agentmarket.operations import AsyncShell, Listing, SyncShell, page
from agentmarket.settings import Settings
from agentmarket.steps import Effect, Fulfil, Pause, Resolve, Steps, Transmit
from agentmarket.wire import Reply, Request, Silence

T = TypeVar("T")
A = TypeVar("A", bound=Answer)

LIMITS = httpx2.Limits(max_connections=100, max_keepalive_connections=50, keepalive_expiry=30.0)

#: the failures before a byte of the request could leave
_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)

#: seconds over an attempt's own timeout, so that what knows more (no connection was made) is heard first
GRACE = 0.25


class HttpAsyncShell(AsyncShell):
    def __init__(self, config: Settings, http: httpx2.AsyncClient) -> None:
        self.config, self.http, self.retries, self.base_url = config, http, config.retries, config.base_url

    async def run(self, steps: Steps[T]) -> T:
        advance: Callable[[], Effect] = partial(next, steps)
        key: str | None = None
        try:
            while True:
                effect = advance()
                key = _key_of(effect) or key
                try:
                    outcome = await self._perform(effect)
                except Exception as raised:  # noqa: BLE001 - the steps decide what it means
                    advance = partial(steps.throw, raised)
                else:
                    advance = partial(steps.send, outcome)
        except StopIteration as end:
            return cast("T", end.value)
        except BaseException as ended:
            _prepare(ended, self.run, key)
            raise
        finally:
            steps.close()

    async def pages(self, listing: Listing[A]) -> AsyncIterator[A]:
        after: str | None = None
        while True:
            found = await self.run(page(listing, self.retries, after=after))
            for item in found.items:
                yield item
            if (after := found.next) is None:
                return

    async def _perform(self, effect: Effect) -> object:
        if isinstance(effect, Transmit):
            return await self._transmit(effect.request)
        if isinstance(effect, Pause):
            await asyncio.sleep(effect.seconds)
            return None
        if isinstance(effect, Fulfil):
            value = effect.function()
            return await value if inspect.isawaitable(value) else value
        if isinstance(effect, Resolve):
            return await asyncio.to_thread(_addresses, effect.host)
        return time.monotonic()

    async def _transmit(self, request: Request) -> Reply | Silence:
        seconds = _longest(self.config, request)
        try:
            async with asyncio.timeout(seconds), self.http.stream(**_arguments(self.config, request)) as response:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > self.config.longest_reply:
                        return _too_long(self.config)
                return _reply(response, bytes(body))
        except TimeoutError:
            return _too_slow(seconds)
        except (httpx2.RequestError, httpx2.InvalidURL) as failure:
            return _silence(failure)


class HttpSyncShell(SyncShell):
    def __init__(self, config: Settings, http: httpx2.Client) -> None:
        self.config, self.http, self.retries, self.base_url = config, http, config.retries, config.base_url

    def run(self, steps: Steps[T]) -> T:
        advance: Callable[[], Effect] = partial(next, steps)
        key: str | None = None
        try:
            while True:
                effect = advance()
                key = _key_of(effect) or key
                try:
                    outcome = self._perform(effect)
                except Exception as raised:  # noqa: BLE001 - the steps decide what it means
                    advance = partial(steps.throw, raised)
                else:
                    advance = partial(steps.send, outcome)
        except StopIteration as end:
            return cast("T", end.value)
        except BaseException as ended:
            _prepare(ended, self.run, key)
            raise
        finally:
            steps.close()

    def pages(self, listing: Listing[A]) -> Iterator[A]:
        after: str | None = None
        while True:
            found = self.run(page(listing, self.retries, after=after))
            yield from found.items
            if (after := found.next) is None:
                return

    def _perform(self, effect: Effect) -> object:
        if isinstance(effect, Transmit):
            return self._transmit(effect.request)
        if isinstance(effect, Pause):
            time.sleep(effect.seconds)
            return None
        if isinstance(effect, Fulfil):
            return _not_awaitable(effect.function())
        if isinstance(effect, Resolve):
            return _addresses(effect.host)
        return time.monotonic()

    def _transmit(self, request: Request) -> Reply | Silence:
        seconds = _longest(self.config, request)
        ends = time.monotonic() + seconds
        try:
            with self.http.stream(**_arguments(self.config, request)) as response:
                body = bytearray()
                for chunk in response.iter_bytes():
                    if time.monotonic() > ends:
                        return _too_slow(seconds)
                    body += chunk
                    if len(body) > self.config.longest_reply:
                        return _too_long(self.config)
                return _reply(response, bytes(body))
        except (httpx2.RequestError, httpx2.InvalidURL) as failure:
            return _silence(failure)


def _arguments(config: Settings, request: Request) -> dict[str, Any]:
    headers = request.all_headers()
    if not request.foreign:
        headers["Authorization"] = f"Bearer {config.api_key}"
    return {
        "method": request.method,
        "url": request.url if request.foreign else config.base_url + request.url,
        "params": list(request.query) or None,
        "content": request.body,
        "headers": headers,
        "timeout": request.timeout or config.timeout,
    }


def _reply(response: httpx2.Response, body: bytes) -> Reply:
    return Reply(response.status_code, {name.lower(): value for name, value in response.headers.items()}, body)


def _silence(failure: Exception) -> Silence:
    reason = str(failure) or type(failure).__name__
    return Silence(reason, sent=not isinstance(failure, (*_UNSENT, httpx2.InvalidURL)))


def _addresses(host: str) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(str(place[0]) for *_, place in found)


def _key_of(effect: Effect) -> str | None:
    return effect.request.key if isinstance(effect, Transmit) else None


def _prepare(ended: BaseException, run: Callable[[Any], Any], key: str | None) -> None:
    """Let a halted call go on here, and give what interrupts a request that moves money the key that finishes it."""
    if isinstance(ended, Resumable):
        ended.performed_by(run)
    elif key is not None and not isinstance(ended, Exception):
        ended.add_note(f'Money may have moved: make the same call with key="{key}", and it is charged once.')


def _longest(config: Settings, request: Request) -> float:
    """Seconds for a whole attempt: the timeouts of HTTP are per read, and a drip would never end."""
    return (request.timeout or config.timeout) + GRACE


def _too_slow(seconds: float) -> Silence:
    return Silence(f"no whole answer in {seconds:g} seconds", sent=True)


def _too_long(config: Settings) -> Silence:
    return Silence(f"the answer is longer than {config.longest_reply} bytes", sent=True)


def _not_awaitable(value: object) -> object:
    if not inspect.isawaitable(value):
        return value
    if inspect.iscoroutine(value):
        value.close()
    raise TypeError("on_success returned an awaitable: use the async Client, or a plain function")
