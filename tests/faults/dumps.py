"""The tests' database, dumped and restored as an operator does it: with PostgreSQL's own `pg_dump` and `pg_restore`."""

import subprocess
from pathlib import Path

import psycopg
from django.db import connection, connections

from marketplace.management.stack import postgres


def dump(to: Path) -> None:
    """Write the whole database as it is now."""
    _run("pg_dump", "--format=custom", f"--file={to}")


def restore(dumped: Path) -> None:
    """Throw the database away and put an older copy in its place."""
    name = connection.settings_dict["NAME"]
    connections.close_all()
    with psycopg.connect(**_place(), dbname="postgres", autocommit=True) as outside:
        outside.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        outside.execute(f'CREATE DATABASE "{name}"')
    _run("pg_restore", "--exit-on-error", str(dumped))


def _run(program: str, *arguments: str) -> None:
    at, place = postgres._installed() / program, _place()
    url = ["--host", place["host"], "--username", place["user"], "--dbname", connection.settings_dict["NAME"]]
    subprocess.run([at, *url, "--no-password", *arguments], check=True, capture_output=True, timeout=60)


def _place() -> dict[str, str]:
    found = connection.get_connection_params()
    return {name: found[name] for name in ("host", "port", "user") if found.get(name)}
