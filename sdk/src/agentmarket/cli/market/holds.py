"""`agentmarket hold`: money set aside for a payee, and then captured or released."""

from typing import Any

import click

from agentmarket.cli.market import options
from agentmarket.cli.market.run import Run, group, market

_HOLD = (
    "id", "status", "amount", "captured", "to", "session_id", "capability", "metadata", "payment_id", "remaining",
    "expires_at",
)  # fmt: skip

hold = group("Money set aside for a payee, and then captured or released.")(lambda: None)


@hold.command()
@click.argument("to")
@click.argument("amount")
@click.option("--metadata", multiple=True, metavar="NAME=VALUE", help="What it is for; repeatable.")
@click.option("--metadata-json", metavar="JSON|@FILE|-", help="The same as one JSON object.")
@click.option("--capability", metavar="NAME", help="What of the agent's offers it buys.")
@click.option(
    "--expires-in", "expires_in_seconds", type=click.IntRange(1, 604_800), metavar="SECONDS",
    help="It comes back by itself after so long (900).",
)  # fmt: skip
@options.session
@options.key
@market
def place(run: Run, metadata: tuple[str, ...], metadata_json: str | None, **given: Any) -> None:
    """Set AMOUNT aside for TO. Each run is a hold of its own, unless --key says that it is the same."""
    run.tell(run.client.holds.place(metadata=options.metadata_of(metadata, metadata_json), **given), *_HOLD)


@hold.command()
@options.id
@market
def show(run: Run, id: str) -> None:
    """One hold."""
    run.tell(run.client.holds.get(id), *_HOLD)


@hold.command("list")
@click.option("--status", metavar="held|captured|released")
@options.session
@options.limit
@market
def list_(run: Run, status: str | None, session: str | None, most: int) -> None:
    """The holds that this key may see."""
    found = run.client.holds.list(status=status, session=session)
    run.tell_all(found, "id", "status", "amount", "captured", "to", "expires_at", most=most)


@hold.command()
@options.id
@click.option("--amount", metavar="AMOUNT", help="Only so much of it; the rest comes back.")
@market
def capture(run: Run, id: str, amount: str | None) -> None:
    """Pay the agent what is held. A hold is captured once: to run it again pays nothing more."""
    run.tell(run.client.holds.capture(id, amount=amount), "id", "status", "amount", "to", "session_id", "remaining")


@hold.command()
@options.id
@market
def release(run: Run, id: str) -> None:
    """Give the money back."""
    run.tell(run.client.holds.release(id), *_HOLD)
