"""`agentmarket webhook`: where events are posted to. Verifying what comes is `agentmarket.webhooks`'."""

from pathlib import Path
from typing import Any

import click

from agentmarket.cli.market import options, secrets
from agentmarket.cli.market.run import Run, group, market

_SHOWN = (
    "id", "url", "status", "events", "description", "reason", "position", "pending", "dead", "failing_since",
    "previous_secret_until",
)  # fmt: skip
_DELIVERY = (
    "id",
    "webhook_id",
    "type",
    "status",
    "position",
    "attempts",
    "next_attempt_at",
    "last_status",
    "last_error",
)

webhook = group("Where events are posted to.")(lambda: None)


@webhook.command()
@click.argument("address", metavar="URL")
@click.option("--type", "events", multiple=True, metavar="TYPE", help="Only these, like payment.created; repeatable.")
@click.option("--description", help="What people read about it.")
@secrets.option
@options.key
@market
def create(run: Run, address: str, events: tuple[str, ...], key_file: Path | None, **given: Any) -> None:
    """Have events posted to URL. The secret that signs them is shown once."""
    wanted = list(events) or None
    secrets.make(
        run, key_file, lambda: run.client.webhooks.create(url=address, events=wanted, **given), *_SHOWN, field="secret"
    )


@webhook.command("list")
@options.limit
@market
def list_(run: Run, most: int) -> None:
    """Every webhook."""
    run.tell_all(run.client.webhooks.list(), "id", "url", "status", "events", "pending", "dead", most=most)


@webhook.command()
@options.id
@market
def show(run: Run, id: str) -> None:
    """One webhook, and how far it is."""
    run.tell(run.client.webhooks.get(id), *_SHOWN)


@webhook.command()
@options.id
@market
def delete(run: Run, id: str) -> None:
    """Delete a webhook with its deliveries."""
    run.tell(run.client.webhooks.delete(id), *_SHOWN)


@webhook.command("rotate-secret")
@options.id
@click.option("--overlap", type=click.IntRange(0, 604_800), help="Seconds that messages have the old signature too.")
@secrets.option
@options.key
@market
def rotate_secret(run: Run, id: str, overlap: int | None, key: str | None, key_file: Path | None) -> None:
    """A new secret; until the overlap ends messages are signed with the old one, too."""
    secrets.make(
        run,
        key_file,
        lambda: run.client.webhooks.rotate_secret(id, overlap_seconds=overlap, key=key),
        *_SHOWN,
        field="secret",
    )


@webhook.command()
@options.id
@market
def test(run: Run, id: str) -> None:
    """Have a `webhook.test` posted to it."""
    run.tell(run.client.webhooks.test(id), *_DELIVERY)


@webhook.command()
@options.id
@options.status
@options.limit
@market
def deliveries(run: Run, id: str, status: str | None, most: int) -> None:
    """What was posted to it, and what was answered."""
    found = run.client.webhooks.deliveries(id, status=status)
    run.tell_all(found, "webhook_id", "type", "status", "attempts", "last_status", "last_error", most=most)


@webhook.command()
@options.id
@click.option("--after", type=click.IntRange(min=0), metavar="POSITION", help="Every event after this one.")
@market
def replay(run: Run, id: str, after: int | None) -> None:
    """Try what was not delivered once more, now."""
    run.tell(run.client.webhooks.replay(id, after=after), *_SHOWN)
