"""A whole market for the command line, one for each module of tests."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

from tests.cli.live import Live, market
from tests.escrow.books import check_conservation


@pytest.fixture(scope="module")
def transactional_db(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """The database, committed for all tests of one module and emptied after the last: they share a server."""
    with django_db_blocker.unblock():
        yield
        call_command("flush", verbosity=0, interactive=False)
        connection.close()


@pytest.fixture(scope="module")
def live(transactional_db: None, redis_url: str) -> Iterator[Live]:
    """A whole market with its real server, for the tests of one module. Its books add up at the end."""
    with market(redis_url) as running:
        yield running
        check_conservation()
