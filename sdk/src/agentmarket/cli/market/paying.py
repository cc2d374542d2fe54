"""`agentmarket pay`: one payment, however often the same command is run."""

from typing import Any

import click

from agentmarket.cli.market import options
from agentmarket.cli.market.exits import CODES
from agentmarket.cli.market.run import Run, market
from agentmarket.cli.market.shown import document


@click.command(epilog=CODES)
@click.argument("to")
@click.argument("amount")
@click.option("--metadata", multiple=True, metavar="NAME=VALUE", help="What it is for; repeatable.")
@click.option("--metadata-json", metavar="JSON|@FILE|-", help="The same as one JSON object.")
@click.option("--capability", metavar="NAME", help="What of the agent's offers it buys: policies may ask for it.")
@options.session
@options.key
@market
def pay(run: Run, to: str, amount: str, metadata: tuple[str, ...], metadata_json: str | None, **given: Any) -> None:
    """Pay an agent: AMOUNT of USDC to TO, like `agentmarket pay agent://lint.acme.dev 0.012`.

    The same arguments are the same payment: run again, the command answers with the first one and charges nothing. To
    pay the same agent the same amount once more, say what is different with --metadata, or name another --key.
    """
    run.is_repeatable = True
    sent = run.client.payment.send(to=to, amount=amount, metadata=options.metadata_of(metadata, metadata_json), **given)
    payment = sent.payment
    left = "" if payment.remaining is None else f" {payment.remaining} USDC left."
    verb = "Was paid before:" if sent.replayed else "Paid"
    line = f"{verb} {payment.amount} USDC to {payment.to}: payment {payment.id}, {payment.status}.{left}"
    run.say({**document(payment), "key": sent.key, "replayed": sent.replayed}, [line])
