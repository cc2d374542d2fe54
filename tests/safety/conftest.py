"""The market that other connections see, and the lane in front of it, as in `tests/lane`. Books add up after every test."""

import logging
from collections.abc import Iterator

import pytest

from tests.lane.conftest import lane, market

__all__ = ["lane", "market"]


@pytest.fixture(autouse=True)
def _refusals_are_not_told() -> Iterator[None]:
    """Keep thousands of refusals out of what a failure shows."""
    told = logging.getLogger("django.request")
    before = told.level
    told.setLevel(logging.CRITICAL)
    yield
    told.setLevel(before)
