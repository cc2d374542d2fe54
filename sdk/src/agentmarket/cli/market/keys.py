"""`agentmarket key`: API keys. A key is shown where it is made, once, and nowhere else."""

from pathlib import Path
from typing import Any

import click

from agentmarket.cli.market import options, secrets
from agentmarket.cli.market.run import Run, group, market

_SHOWN = ("id", "key_id", "name", "scope", "session_id", "read_only", "ceiling", "expires_at", "revoked_at")

keys = group("API keys: shown once, where they are made.")(lambda: None)


@keys.command()
@click.option("--scope", type=click.Choice(["payer", "session", "provider"]), help="Else what the session or key says.")
@options.session
@click.option("--read-only", is_flag=True, help="It can look, and spend nothing.")
@click.option("--ceiling", metavar="AMOUNT", help="It spends a session of its own inside --session, of this much.")
@click.option("--name", help="What people call it.")
@click.option("--expires-at", metavar="TIME", help="RFC 3339, like 2026-12-31T12:00:00Z.")
@secrets.option
@options.key
@market
def create(run: Run, key_file: Path | None, read_only: bool, **given: Any) -> None:
    """Make a key. Each run makes one, unless --key says that it is the same."""
    secrets.make(run, key_file, lambda: run.client.keys.create(read_only=read_only or None, **given), *_SHOWN)


@keys.command("list")
@options.limit
@market
def list_(run: Run, most: int) -> None:
    """The keys, revoked ones too; never their text."""
    columns = ("id", "key_id", "name", "scope", "read_only", "expires_at", "revoked_at", "last_used_at")
    run.tell_all(run.client.keys.list(), *columns, most=most)


@keys.command()
@options.id
@click.option("--overlap", type=click.IntRange(0, 604_800), help="Seconds that the old one still works (3600).")
@secrets.option
@options.key
@market
def rotate(run: Run, id: str, overlap: int | None, key: str | None, key_file: Path | None) -> None:
    """Put a new key in the place of one; the old one works until the overlap ends."""
    secrets.make(run, key_file, lambda: run.client.keys.rotate(id, overlap_seconds=overlap, key=key), *_SHOWN)


@keys.command()
@options.id
@market
def revoke(run: Run, id: str) -> None:
    """Revoke a key at once: by its `id`, not by its text."""
    run.tell(run.client.keys.revoke(id), *_SHOWN)
