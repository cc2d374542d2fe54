"""Every test of the money rooms has a contract's address to sign for, and ends with books that add up."""

from collections.abc import Iterator

import pytest
from django.conf import settings

from tests.escrow import books


@pytest.fixture(autouse=True)
def _contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "ESCROW_ADDRESS", "0x" + "11" * 20)


@pytest.fixture(autouse=True)
def _books_add_up(request: pytest.FixtureRequest) -> Iterator[None]:
    needs = request.node.get_closest_marker("django_db")
    if needs:
        request.getfixturevalue("transactional_db" if needs.kwargs.get("transaction") else "db")
    yield
    if needs:
        books.check_conservation()
