"""Every test of the money rooms ends with books that add up."""

from collections.abc import Iterator

import pytest

from tests.escrow import books


@pytest.fixture(autouse=True)
def _books_add_up(request: pytest.FixtureRequest) -> Iterator[None]:
    needs = {"db", "transactional_db"} & set(request.fixturenames) or request.node.get_closest_marker("django_db")
    if needs:
        request.getfixturevalue("transactional_db" if "transactional_db" in request.fixturenames else "db")
    yield
    if needs:
        books.check_conservation()
