"""A market that other connections see, and the lane in front of it. Every test ends with books that add up."""

from collections.abc import Iterator
from typing import Any

import pytest

from marketplace.lane import statement
from tests.escrow import books
from tests.lane.doors import Lane
from tests.marketplace.conftest import World, make_world


@pytest.fixture
def market(transactional_db: None) -> Iterator[World]:
    """Return two buyers and two sellers, committed."""
    yield make_world()
    books.check_conservation()


@pytest.fixture
def lane(market: World) -> Iterator[Lane]:
    """Return the lane, running in this process."""
    with Lane() as running:
        yield running


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, int]]:
    """Return what the database is asked, as it is asked: whether patiently, and how many orders."""
    asked: list[tuple[bool, int]] = []
    decide = statement.decide

    async def noted(connection: Any, orders: Any, *rest: Any, patient: bool, **more: Any) -> Any:
        asked.append((patient, len(orders)))
        return await decide(connection, orders, *rest, patient=patient, **more)

    monkeypatch.setattr(statement, "decide", noted)
    return asked
