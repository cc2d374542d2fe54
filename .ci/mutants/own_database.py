"""For pytest under mutmut: each run of the tests gets a database of its own, copied from one that is migrated already.

A mutant may be stopped at any moment, with rows of its own committed: the next one must not meet them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import hypothesis
import psycopg
import pytest
from django.db import connections
from psycopg import sql

MIGRATED = "migrated"

# The same examples for every mutant, as long as they take: a slow machine must not look like a test that noticed.
hypothesis.settings.register_profile("mutants", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("mutants")


def _statement(text: str, **names: str) -> None:
    statement = sql.SQL(text).format(**{key: sql.Identifier(name) for key, name in names.items()})
    with psycopg.connect(os.environ["MUTANTS_SERVER"], autocommit=True) as connection:
        connection.execute(statement)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    # Only a name yet: the database is made when a test first asks for one.
    os.environ["DATABASE_URL"] = urlunsplit(urlsplit(os.environ["MUTANTS_SERVER"])._replace(path=f"/{_name()}"))
    session.config.pluginmanager.register(Copied())


class Copied:
    """Registered late, so that it is asked instead of pytest-django, which would look for migrations every time."""

    @pytest.fixture(scope="session")
    @classmethod
    def django_db_setup(cls, django_db_modify_db_settings: None) -> Iterator[None]:
        _statement("DROP DATABASE IF EXISTS {name} WITH (FORCE)", name=_name())
        _statement("CREATE DATABASE {name} TEMPLATE {migrated} STRATEGY file_copy", name=_name(), migrated=MIGRATED)
        connections.close_all()
        yield
        connections.close_all()
        _statement("DROP DATABASE IF EXISTS {name} WITH (FORCE)", name=_name())


def _name() -> str:
    return f"mutant{os.getpid()}"
