"""Servers of one test run, each started when the first test asks for it. Nothing is shared with another run.

`DATABASE_URL`, `REDIS_URL` and `RPC_URL` name servers to use instead. Tests that commit for real (`transactional_db`)
are cleaned up past the triggers that refuse to delete money.
"""

import os
from collections.abc import Iterator

import dj_database_url
import pytest
from django.db import connections
from django.db.backends.postgresql.operations import DatabaseOperations

from marketplace.api import rates
from marketplace.celery import app as celery_app
from marketplace.management.stack import anvil, postgres, valkey
from marketplace.management.stack.home import Home
from marketplace.management.stack.supervisor import Supervisor

celery_app.conf.broker_url = "memory://"  # a nudge goes nowhere: tests call the workers themselves


@pytest.fixture(scope="session")
def supervisor() -> Iterator[Supervisor]:
    """Own the servers of this run."""
    with Home() as home:
        owner = Supervisor(home)
        try:
            yield owner
        finally:
            owner.close()


@pytest.fixture(scope="session")
def database_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a PostgreSQL 18 for this run; the tests' database is made inside it."""
    given = os.environ.get("DATABASE_URL")
    return given or postgres.start(request.getfixturevalue("supervisor"), durable=False)


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a Valkey for this run."""
    return os.environ.get("REDIS_URL") or valkey.start(request.getfixturevalue("supervisor"))


@pytest.fixture(scope="session")
def rpc_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a local chain for this run, which mines each transaction as it arrives."""
    return os.environ.get("RPC_URL") or anvil.start(request.getfixturevalue("supervisor"))


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    database_url: str,
    django_db_modify_db_settings_parallel_suffix: None,  # a pytest-xdist worker has a database of its own
) -> None:
    """Point Django at this run's PostgreSQL before pytest-django makes the tests' database."""
    place = dj_database_url.parse(database_url)
    connections.settings["default"].update({key: place[key] for key in ("NAME", "USER", "PASSWORD", "HOST", "PORT")})


@pytest.fixture(autouse=True)
def _no_quota_is_used() -> None:
    """Let every test begin with whole quotas: they are counted in this process, by address too."""
    rates.forget()


@pytest.fixture(scope="session", autouse=True)
def _flush_past_triggers() -> Iterator[None]:
    """Let the clean-up after a `transactional_db` test truncate tables whose triggers refuse it, as superuser."""
    plain = DatabaseOperations.sql_flush

    def sql_flush(self: DatabaseOperations, *args: object, **kwargs: object) -> list[str]:
        statements = plain(self, *args, **kwargs)
        return ["SET LOCAL session_replication_role = replica", *statements] if statements else []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DatabaseOperations, "sql_flush", sql_flush)
        yield
