"""A market that other connections see, and the lane in front of it. Every test ends with books that add up."""

from collections.abc import Iterator

import pytest

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
