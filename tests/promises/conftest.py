"""One real server for the tests of this folder, with nothing behind it but the database; and a market of agents with prices."""

from collections.abc import Iterator
from typing import Any

import pytest

from marketplace import agents
from marketplace.models import Agent, Pricing, Terms
from tests.escrow import books
from tests.lane.servers import Server, serving
from tests.marketplace.conftest import World, make_world

NOWHERE = {"REDIS_URL": "redis://127.0.0.1:9/0", "RPC_URL": "http://127.0.0.1:9"}
"""Nobody listens there: what is answered all the same needs no queue and no chain."""


@pytest.fixture(scope="package")
def server(django_db_setup: None, django_db_blocker: Any) -> Iterator[Server]:
    """One server for all: a database that is emptied between tests does not end it."""
    with django_db_blocker.unblock(), serving(**NOWHERE) as running:
        yield running


@pytest.fixture
def url(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return where the market is; clients find it in the environment."""
    found = f"http://127.0.0.1:{server.port}"
    monkeypatch.setenv("AGENTMARKET_URL", found)
    return found


@pytest.fixture
def market(transactional_db: None, url: str) -> Iterator[World]:
    """Return two buyers and two sellers, committed. The books add up when the test ends."""
    yield make_world()
    books.check_conservation()


def listed(market: World, uri: str, endpoint: str, *, micros: int = 8_000, pricing: str = Pricing.PER_CALL) -> Agent:
    """List one more agent of the first seller."""
    name = uri.removeprefix("agent://").split(".")[0]
    terms = [Terms(capability=name, pricing=Pricing(pricing), price_micros=micros, unit="answer")]
    return agents.register(
        provider=market.one.provider, uri=uri, name=name, endpoint=endpoint, capabilities=[name], terms=terms
    )
