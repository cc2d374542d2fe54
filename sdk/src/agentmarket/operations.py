"""How a verb is written once and reads naturally in both clients.

`@operation` turns a generator method into `await client.x.verb(...)` on the async client and `client.x.verb(...)` on
the sync one; `@listing` does the same for iterators (`async for`, `for`) that fetch page after page. The types follow.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeAlias, TypeVar, cast, overload

from agentmarket import wire
from agentmarket.decode import Answer, decode
from agentmarket.errors import InvalidReply
from agentmarket.retries import Retries
from agentmarket.steps import Steps, fetch, one_key
from agentmarket.wire import Request

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A", bound=Answer)


@dataclass(frozen=True)
class Listing(Generic[A]):
    """Where a list starts and how one of its items is read."""

    request: Request
    kind: type[A]
    #: the query parameter that carries the place to go on from
    place: str = "cursor"


@dataclass(frozen=True)
class Page(Generic[A]):
    items: tuple[A, ...]
    next: str | None


class Shell:
    """What performs steps. The two kinds are told apart by type, so that a verb knows what it returns."""

    retries: Retries
    #: where the market is
    base_url: str


class AsyncShell(Shell, ABC):
    @abstractmethod
    async def run(self, steps: Steps[T]) -> T: ...

    @abstractmethod
    def pages(self, listing: Listing[A]) -> AsyncIterator[A]: ...


class SyncShell(Shell, ABC):
    @abstractmethod
    def run(self, steps: Steps[T]) -> T: ...

    @abstractmethod
    def pages(self, listing: Listing[A]) -> Iterator[A]: ...


S_co = TypeVar("S_co", bound=Shell, covariant=True)
O_co = TypeVar("O_co", covariant=True)


class HasShell(Protocol[S_co]):
    """What has verbs: it knows what performs them."""

    @property
    def shell(self) -> S_co: ...


class HasOwner(Protocol[O_co]):
    """What has verbs because a client answered it: `OpenedSession`."""

    @property
    def owner(self) -> O_co: ...


class Owner(Protocol):
    """A client, as far as an answer with verbs of its own needs one."""

    @property
    def shell(self) -> Shell: ...

    def connect(self, api_key: str) -> Self: ...


C = TypeVar("C", bound=Owner)


IsAsync: TypeAlias = HasShell[AsyncShell] | HasOwner[HasShell[AsyncShell]]
IsSync: TypeAlias = HasShell[SyncShell] | HasOwner[HasShell[SyncShell]]


class Resource(Generic[S_co]):
    """The base of everything that has verbs: it knows the shell that performs them."""

    def __init__(self, shell: S_co) -> None:
        self._shell = shell

    @property
    def shell(self) -> S_co:
        return self._shell

    def _fetch(self, kind: type[A], request: Request) -> Steps[A]:
        return fetch(request, self._shell.retries, lambda document: decode(kind, document))

    def _get(self, kind: type[A], path: str, **query: object) -> Steps[A]:
        return self._fetch(kind, wire.get(path, **query))

    def _post(self, kind: type[A], path: str, body: dict[str, Any] | None = None) -> Steps[A]:
        """A POST that moves no money and is not repeated after silence."""
        return self._fetch(kind, wire.post(path, body))

    def _leave(self, kind: type[A], path: str, body: dict[str, Any] | None = None) -> Steps[A]:
        """A POST that leaves a thing in a state and moves no money: repeating it leaves it there."""
        return self._fetch(kind, wire.post(path, body, repeatable=True))

    def _move(self, kind: type[A], path: str, body: dict[str, Any] | None = None, *, key: str | None) -> Steps[A]:
        """A POST that moves money: one idempotency key, whatever happens."""
        return self._fetch(kind, wire.post(path, body, key=one_key(key)))


class operation(Generic[P, T]):  # noqa: N801 - a decorator
    """A verb. See the module."""

    def __init__(self, build: Callable[Concatenate[Any, P], Steps[T]]) -> None:
        self._build = build
        functools.update_wrapper(cast("Callable[..., Any]", self), build)

    def steps(self, resource: object, *args: P.args, **kwargs: P.kwargs) -> Steps[T]:
        """The verb's steps, for another verb to take."""
        return self._build(resource, *args, **kwargs)

    @overload
    def __get__(self, resource: None, owner: type) -> Self: ...
    @overload
    def __get__(self, resource: IsAsync, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, resource: IsSync, owner: type) -> Callable[P, T]: ...
    def __get__(self, resource: Any, owner: type) -> Any:
        if resource is None:
            return self

        @functools.wraps(self._build)
        def verb(*args: P.args, **kwargs: P.kwargs) -> Any:
            return resource.shell.run(self._build(resource, *args, **kwargs))

        return verb


class listing(Generic[P, A]):  # noqa: N801 - a decorator
    """A verb that answers many. See the module."""

    def __init__(self, build: Callable[Concatenate[Any, P], Listing[A]]) -> None:
        self._build = build
        functools.update_wrapper(cast("Callable[..., Any]", self), build)

    def starts(self, resource: object, *args: P.args, **kwargs: P.kwargs) -> Listing[A]:
        """Where the list starts, for another verb to take."""
        return self._build(resource, *args, **kwargs)

    @overload
    def __get__(self, resource: None, owner: type) -> Self: ...
    @overload
    def __get__(self, resource: IsAsync, owner: type) -> Callable[P, AsyncIterator[A]]: ...
    @overload
    def __get__(self, resource: IsSync, owner: type) -> Callable[P, Iterator[A]]: ...
    def __get__(self, resource: Any, owner: type) -> Any:
        if resource is None:
            return self

        @functools.wraps(self._build)
        def verb(*args: P.args, **kwargs: P.kwargs) -> Any:
            return resource.shell.pages(self._build(resource, *args, **kwargs))

        return verb


def page(listing: Listing[A], retries: Retries, *, after: str | None) -> Steps[Page[A]]:
    """One page of a list. `next` is None on the last, and when the market only repeats the place it was asked for."""
    request = listing.request
    if after is not None:
        query = tuple(pair for pair in request.query if pair[0] != listing.place)
        request = replace(request, query=(*query, (listing.place, after)))
    return fetch(request, retries, lambda document: _page(listing, document, after))


def _page(listing: Listing[A], document: Any, after: str | None) -> Page[A]:
    if not isinstance(document, dict) or not isinstance(document.get("items"), list):
        raise InvalidReply("The market's answer is not a list with items.")
    items = tuple(decode(listing.kind, item) for item in document["items"])
    following = document.get("next")
    ended = following is None or not items or str(following) == after
    return Page(items, None if ended else str(following))
