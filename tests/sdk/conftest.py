"""A market that can fail, clients of it that do not wait, and a way to run async tests without a plugin."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

import pytest

from agentmarket import Client, Retries, Seller, SyncClient

from . import stub

T = TypeVar("T")
#: as patient as the default, without the waiting
QUICK = Retries(attempts=4, first_delay=0.001, longest_delay=0.002)

Serve = Callable[[Seller], AbstractAsyncContextManager[str]]


@pytest.fixture
def market() -> Iterator[stub.Market]:
    market = stub.Market()
    server = stub.serve(market)
    yield market
    server.shutdown()
    server.server_close()


@pytest.fixture
def buyer(market: stub.Market) -> Iterator[SyncClient]:
    with SyncClient(stub.PAYER_KEY, base_url=market.url, retries=QUICK) as client:
        yield client


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, T]], T]:
    """Run one coroutine to its end."""
    return asyncio.run


def async_buyer(market: stub.Market) -> Client:
    return Client(stub.PAYER_KEY, base_url=market.url, retries=QUICK)


def seller(market: stub.Market, agent: str = "agent://lint.acme.dev", **options: Any) -> Seller:
    return Seller(stub.SELLER_KEY, agent=agent, base_url=market.url, retries=QUICK, **options)


async def asked(market: stub.Market, method: str, ending: str) -> None:
    """Let everything else go on until the market has been asked this."""
    await asyncio.to_thread(market.wait_for, method, ending)


@asynccontextmanager
async def served(seller: Seller) -> AsyncIterator[str]:
    """The seller behind a real server on a free port; gives its URL."""
    urls: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    serving = asyncio.ensure_future(seller.serve(ready=urls.set_result, stop=stop))
    try:
        await asyncio.wait([urls, serving], return_when=asyncio.FIRST_COMPLETED)
        yield (await urls)[0]
    finally:
        stop.set()
        await serving
