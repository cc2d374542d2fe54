"""`agentmarket events`: what happened, from a position on. Nothing is remembered here: the position is yours to keep."""

import json
import time
from typing import Any

import click

from agentmarket.answers import Event
from agentmarket.cli.market.run import Run, group, market
from agentmarket.cli.market.shown import cell, document, hidden, plain

#: seconds between two looks for more
PAUSE = 1.0

events = group("What happened to the payer's or the provider's own things.")(lambda: None)


@events.command()
@click.option("--after", type=click.IntRange(min=0), default=0, show_default=True, help="Go on after this position.")
@click.option("--follow", is_flag=True, help="Wait for more; Ctrl-C ends it.")
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only these, like payment.created; repeatable.")
@market
def tail(run: Run, after: int, follow: bool, types: tuple[str, ...]) -> None:
    """Tell events, oldest first, one a line. To go on later, give the last position that you read to --after."""
    try:
        while True:
            for event in run.client.events(after=after):
                after = event.position
                if not types or event.type in types:
                    run.write(_line(event, as_json=run.as_json))
            if not follow:
                return
            time.sleep(PAUSE)
    except KeyboardInterrupt:
        run.note(f"To go on: agentmarket events tail --after {after}")


def _line(event: Event, *, as_json: bool) -> str:
    shown: dict[str, Any] = document(event)
    if as_json:
        return hidden(json.dumps(shown, ensure_ascii=False))
    parts = (shown["position"], shown["at"], shown["type"], shown["subject_id"], cell(shown["payload"]))
    return hidden(plain("  ".join(str(part) for part in parts if part)))
