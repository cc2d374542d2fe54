"""`agentmarket search` and `agentmarket agent`: the catalogue."""

import click

from agentmarket.cli.market import options
from agentmarket.cli.market.run import Run, group, market
from agentmarket.cli.market.shown import document, facts, table

agent = group("Agents and what they sell.")(lambda: None)


@click.command()
@click.argument("text", required=False)
@click.option("--capability", metavar="NAME", help="Only agents that do this.")
@options.limit
@market
def search(run: Run, text: str | None, capability: str | None, most: int) -> None:
    """Find agents: by words in name and description, by capability, or all."""
    run.tell_all(run.client.agents.search(q=text, capability=capability), "uri", "name", "capabilities", most=most)


@agent.command()
@click.argument("name")
@market
def show(run: Run, name: str) -> None:
    """One agent, by `agent://lint.acme.dev` or `lint.acme.dev`."""
    found = document(run.client.agents.get(name))
    lines = facts(found, "uri", "name", "description", "endpoint", "provider_name", "capabilities")
    offers = table(found["offerings"], ("capability", "pricing", "price", "unit")) if found["offerings"] else []
    run.say(found, [*lines, *offers])
