"""`agentmarket reserves`: what the market holds and owes, and whether what it owes you is in the sum."""

import click

from agentmarket.cli.market.run import Run, market
from agentmarket.cli.market.shown import document, facts, table
from agentmarket.cli.output import usdc


@click.command()
@click.option("--pool", metavar="ID", help="Prove only what is owed in this pool.")
@market
def reserves(run: Run, pool: str | None) -> None:
    """What the contract holds, what is owed, and the proof that what is owed to you is part of it, checked here."""
    proof = run.client.reserves.verify(pool=pool)
    found = document(run.client.reserves.get())
    mine = [
        {"as": item.owed_as, "pool": item.pool_id, "amount": item.amount, "proof": f"{len(item.proof)} steps, holds"}
        for item in proof.items
    ]
    lines = facts(found, "held", "liabilities_total", "difference", "verdict", "block", "contract", "token", "root")
    proven = f"proven to be owed to you: {usdc(proof.micros)}"
    shown = table(mine, ("as", "pool", "amount", "proof")) if mine else []
    run.say({"reserves": found, "proven_micros": str(proof.micros), "proof": document(proof)}, [*lines, *shown, proven])
