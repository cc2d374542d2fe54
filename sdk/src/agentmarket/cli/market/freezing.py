"""`agentmarket freeze` and `unfreeze`: stop all spending of a payer at once."""

import click

from agentmarket.cli.market import options
from agentmarket.cli.market.run import Run, market

_SHOWN = ("frozen", "pools", "sessions")


@click.command()
@options.reason
@market
def freeze(run: Run, reason: str) -> None:
    """Stop every session of the payer from spending, now. The payer's full key only."""
    run.tell(run.client.freeze(reason=reason), *_SHOWN)


@click.command()
@market
def unfreeze(run: Run) -> None:
    """Let the payer's sessions spend again."""
    run.tell(run.client.unfreeze(), *_SHOWN)
