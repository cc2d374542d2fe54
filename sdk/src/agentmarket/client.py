"""The two clients: one async, one sync, each a few lines over the same verbs (`market`) and steps (`steps`).

How a request is sent is in `shells`; only what the types of the two must say differently is written twice.
"""

import dataclasses
import inspect
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import httpx2

from agentmarket.answers import OpenedSession, Sent, Session
from agentmarket.errors import InvalidRequest
from agentmarket.market import Market
from agentmarket.resources.payments import Amount, Payments
from agentmarket.retries import Retries
from agentmarket.settings import Settings, settings
from agentmarket.shells import LIMITS, HttpAsyncShell, HttpSyncShell

T = TypeVar("T")
V = TypeVar("V")

TIMEOUT = 10.0
RETRIES = 3


class AsyncPayments(Payments[HttpAsyncShell]):
    @overload
    async def send(
        self, *, to: str, amount: Amount, currency: str = "USDC", metadata: Mapping[str, Any] | None = None,
        on_success: Callable[[], Awaitable[V]], session: str | None = None, key: str | None = None,
    ) -> Sent[V]: ...  # fmt: skip
    @overload
    async def send(
        self, *, to: str, amount: Amount, currency: str = "USDC", metadata: Mapping[str, Any] | None = None,
        on_success: Callable[[], V], session: str | None = None, key: str | None = None,
    ) -> Sent[V]: ...  # fmt: skip
    @overload
    async def send(
        self, *, to: str, amount: Amount, currency: str = "USDC", metadata: Mapping[str, Any] | None = None,
        on_success: None = None, session: str | None = None, key: str | None = None,
    ) -> Sent[None]: ...  # fmt: skip
    async def send(self, *, to: str, amount: Amount, **rest: Any) -> Sent[Any]:
        """Pay an agent, then run `on_success` once and give back what it returned as `.value`.

        `key` repeats an earlier call without paying twice; `session` names the session for a key that has several.
        Pass `key` when you may cancel the call: with it you can finish, once, what was cancelled.
        """
        return await self._shell.run(self.sending(to=to, amount=amount, **rest))

    async def create_session(
        self,
        *,
        budget: Amount,
        currency: str = "USDC",
        policy: Mapping[str, Any] | None = None,
        pool: str | None = None,
        name: str | None = None,
        expires_at: str | None = None,
        key: str | None = None,
    ) -> "OpenedSession[Client]":
        """Set a budget aside under a policy. It has its own key: `session.client()` spends it and nothing else."""
        steps = self.opening_session(
            budget=budget, currency=currency, policy=policy, pool=pool, name=name, expires_at=expires_at, key=key
        )
        return _opened(await self._shell.run(steps), self._connect)

    def _connect(self, api_key: str) -> "Client":
        return Client.sharing(dataclasses.replace(self._shell.config, api_key=api_key), self._shell.http)


class SyncPayments(Payments[HttpSyncShell]):
    def send(
        self,
        *,
        to: str,
        amount: Amount,
        currency: str = "USDC",
        metadata: Mapping[str, Any] | None = None,
        on_success: Callable[[], V] | None = None,
        session: str | None = None,
        key: str | None = None,
    ) -> Sent[V]:
        """Pay an agent, then run `on_success` once and give back what it returned as `.value`.

        `key` repeats an earlier call without paying twice; `session` names the session for a key that has several.
        An async `on_success` is refused before anything is paid. Pass `key` when you may cancel.
        """
        if _is_async(on_success):
            raise InvalidRequest(
                "on_success is async: use the async Client, or a plain function.", outcome="not_charged"
            )
        steps = self.sending(
            to=to, amount=amount, currency=currency, metadata=metadata, on_success=on_success, session=session, key=key
        )
        return self._shell.run(steps)

    def create_session(
        self,
        *,
        budget: Amount,
        currency: str = "USDC",
        policy: Mapping[str, Any] | None = None,
        pool: str | None = None,
        name: str | None = None,
        expires_at: str | None = None,
        key: str | None = None,
    ) -> "OpenedSession[SyncClient]":
        """Set a budget aside under a policy. It has its own key: `session.client()` spends it and nothing else."""
        steps = self.opening_session(
            budget=budget, currency=currency, policy=policy, pool=pool, name=name, expires_at=expires_at, key=key
        )
        return _opened(self._shell.run(steps), self._connect)

    def _connect(self, api_key: str) -> "SyncClient":
        return SyncClient.sharing(dataclasses.replace(self._shell.config, api_key=api_key), self._shell.http)


class Client(Market[HttpAsyncShell]):
    """The async client. `async with Client() as client`, or `await client.aclose()` at the end.

    `timeout` is seconds for one whole attempt; `retries` how often one is repeated (or a `Retries` with its own bounds).
    """

    payment: AsyncPayments

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

    def _start(self, config: Settings, http: httpx2.AsyncClient, *, owned: bool) -> None:
        shell = HttpAsyncShell(config, http)
        super().__init__(shell)
        self.payment = AsyncPayments(shell)
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

    def _start(self, config: Settings, http: httpx2.Client, *, owned: bool) -> None:
        shell = HttpSyncShell(config, http)
        super().__init__(shell)
        self.payment = SyncPayments(shell)
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


def _opened(session: Session, connect: Callable[[str], T]) -> OpenedSession[T]:
    known = {item.name: getattr(session, item.name) for item in dataclasses.fields(session)}
    return OpenedSession(**known, connect=connect)
