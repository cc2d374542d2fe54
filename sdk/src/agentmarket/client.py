"""The two clients: one async, one sync, each a few lines over the same verbs (`market`) and steps (`steps`).

How a request is sent is in `shells`; only what the types of the two must say differently is written twice.
"""

import dataclasses
import inspect
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, TypeVar, overload

import httpx2

from agentmarket.answers import Sent
from agentmarket.errors import InvalidRequest
from agentmarket.market import Market
from agentmarket.resources.orders import order
from agentmarket.resources.payments import Payments
from agentmarket.resources.policies import Amount
from agentmarket.resources.sessions import Sessions
from agentmarket.retries import Retries
from agentmarket.settings import Settings, environment_retries, environment_timeout, settings
from agentmarket.shells import LIMITS, HttpAsyncShell, HttpSyncShell

V = TypeVar("V")

Capture: TypeAlias = Literal["on_success"] | None

TIMEOUT = 10.0
RETRIES = 3


class AsyncPayments(Payments[HttpAsyncShell, "Client"]):
    @overload
    async def send(
        self, *, to: str, amount: Amount, currency: str = "USDC", metadata: Mapping[str, Any] | None = None,
        on_success: Callable[[], Awaitable[V]], session: str | None = None, capability: str | None = None,
        key: str | None = None, capture: Capture = None, charge: Callable[[V], Amount] | None = None,
        expires_in_seconds: int | None = None,
    ) -> Sent[V]: ...  # fmt: skip
    @overload
    async def send(
        self, *, to: str, amount: Amount, currency: str = "USDC", metadata: Mapping[str, Any] | None = None,
        on_success: Callable[[], V], session: str | None = None, capability: str | None = None,
        key: str | None = None, capture: Capture = None, charge: Callable[[V], Amount] | None = None,
        expires_in_seconds: int | None = None,
    ) -> Sent[V]: ...  # fmt: skip
    @overload
    async def send(
        self, *, to: str, amount: Amount, currency: str = "USDC", metadata: Mapping[str, Any] | None = None,
        on_success: None = None, session: str | None = None, capability: str | None = None, key: str | None = None,
    ) -> Sent[None]: ...  # fmt: skip
    async def send(self, *, to: str, amount: Amount, **rest: Any) -> Sent[Any]:
        """Pay an agent, then run `on_success` once and give back what it returned as `.value`.

        The same call (session, to, amount, currency, metadata, capability) is the same payment, in any process and after
        any crash: it is charged once, and `.replayed` says that it had been made. Say what is different in `metadata`, or
        give a `key`, to pay again.

        With `capture="on_success"` the amount is held, `on_success` runs, and the hold is captured when it returns and
        released when it raises. `charge` turns what it returned into what it costs, at most `amount`.
        """
        return await self._shell.run(self._orders.deliver(order(to=to, amount=amount, **rest)))


class SyncPayments(Payments[HttpSyncShell, "SyncClient"]):
    @overload
    def send(
        self, *, to: str, amount: Amount, currency: str = "USDC", metadata: Mapping[str, Any] | None = None,
        on_success: Callable[[], V], session: str | None = None, capability: str | None = None,
        key: str | None = None, capture: Capture = None, charge: Callable[[V], Amount] | None = None,
        expires_in_seconds: int | None = None,
    ) -> Sent[V]: ...  # fmt: skip
    @overload
    def send(
        self, *, to: str, amount: Amount, currency: str = "USDC", metadata: Mapping[str, Any] | None = None,
        on_success: None = None, session: str | None = None, capability: str | None = None, key: str | None = None,
    ) -> Sent[None]: ...  # fmt: skip
    def send(self, *, to: str, amount: Amount, **rest: Any) -> Sent[Any]:
        """Pay an agent, then run `on_success` once and give back what it returned as `.value`.

        See the async client's; an async `on_success` is refused before anything is paid.
        """
        if _is_async(rest.get("on_success")):
            raise InvalidRequest(
                "on_success is async: use the async Client, or a plain function.", outcome="not_charged"
            )
        return self._shell.run(self._orders.deliver(order(to=to, amount=amount, **rest)))


class Client(Market[HttpAsyncShell]):
    """The async client. `async with Client() as client`, or `await client.aclose()` at the end.

    `timeout` is seconds for one whole attempt; `retries` how often one is repeated (or a `Retries` with its own bounds).
    """

    payment: AsyncPayments
    sessions: "Sessions[HttpAsyncShell, Client]"

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        timeout: float = TIMEOUT,
        retries: int | Retries = RETRIES,
    ) -> None:
        config = settings(api_key, base_url, timeout, retries)
        self._start(config, httpx2.AsyncClient(timeout=timeout, limits=LIMITS), owned=True)

    @classmethod
    def sharing(cls, config: Settings, http: httpx2.AsyncClient) -> Self:
        """Another client over the same connections, which it does not close."""
        client = cls.__new__(cls)
        client._start(config, http, owned=False)  # noqa: SLF001 - an instance of this class
        return client

    @classmethod
    def from_env(cls) -> Self:
        """From AGENTMARKET_API_KEY, AGENTMARKET_URL, AGENTMARKET_TIMEOUT (seconds) and AGENTMARKET_RETRIES.

        Only the first has to be set. Raises Unauthenticated and InvalidRequest, naming the variable that is at fault.
        """
        return cls(timeout=environment_timeout(TIMEOUT), retries=environment_retries(RETRIES))

    def connect(self, api_key: str) -> Self:
        """A client for another key, over the same connections, which it does not close."""
        return type(self).sharing(dataclasses.replace(self._config, api_key=api_key), self._http)

    def _start(self, config: Settings, http: httpx2.AsyncClient, *, owned: bool) -> None:
        shell = HttpAsyncShell(config, http)
        super().__init__(shell)
        self.payment = AsyncPayments(shell, self)
        self.sessions = Sessions(shell, self)
        self._config, self._http, self._owned = config, http, owned

    async def aclose(self) -> None:
        if self._owned:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"Client({self._config.shown_key}, base_url={self._config.base_url!r})"


class SyncClient(Market[HttpSyncShell]):
    """The sync client: the same verbs, no `await`. `with SyncClient() as client`, or `client.close()` at the end."""

    payment: SyncPayments
    sessions: "Sessions[HttpSyncShell, SyncClient]"

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        timeout: float = TIMEOUT,
        retries: int | Retries = RETRIES,
    ) -> None:
        config = settings(api_key, base_url, timeout, retries)
        self._start(config, httpx2.Client(timeout=timeout, limits=LIMITS), owned=True)

    @classmethod
    def sharing(cls, config: Settings, http: httpx2.Client) -> Self:
        """Another client over the same connections, which it does not close."""
        client = cls.__new__(cls)
        client._start(config, http, owned=False)  # noqa: SLF001 - an instance of this class
        return client

    @classmethod
    def from_env(cls) -> Self:
        """From AGENTMARKET_API_KEY, AGENTMARKET_URL, AGENTMARKET_TIMEOUT (seconds) and AGENTMARKET_RETRIES.

        Only the first has to be set. Raises Unauthenticated and InvalidRequest, naming the variable that is at fault.
        """
        return cls(timeout=environment_timeout(TIMEOUT), retries=environment_retries(RETRIES))

    def connect(self, api_key: str) -> Self:
        """A client for another key, over the same connections, which it does not close."""
        return type(self).sharing(dataclasses.replace(self._config, api_key=api_key), self._http)

    def _start(self, config: Settings, http: httpx2.Client, *, owned: bool) -> None:
        shell = HttpSyncShell(config, http)
        super().__init__(shell)
        self.payment = SyncPayments(shell, self)
        self.sessions = Sessions(shell, self)
        self._config, self._http, self._owned = config, http, owned

    def close(self) -> None:
        if self._owned:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SyncClient({self._config.shown_key}, base_url={self._config.base_url!r})"


def _is_async(function: object) -> bool:
    return any(map(inspect.iscoroutinefunction, (function, getattr(type(function), "__call__", None))))  # noqa: B004
