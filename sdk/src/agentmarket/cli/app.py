"""The command `agentmarket`: what its commands are called, and how a mistake in calling one ends.

What the commands do is in `market` (they ask the market) and `ways_out` (they need a node, and no market).
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

import agentmarket
from agentmarket.cli.lazy import LazyGroup
from agentmarket.cli.market.shown import hidden

_MARKET = "agentmarket.cli.market"
COMMANDS = {
    "pay": (f"{_MARKET}.paying:pay", "Pay an agent; the same arguments are the same payment."),
    "session": (f"{_MARKET}.sessions:session", "Budgets with a policy and a key: create, list, top up, pause, close."),
    "policy": (f"{_MARKET}.policies:policy", "Try a policy before it counts, and change one."),
    "hold": (f"{_MARKET}.holds:hold", "Set money aside for a payee, and capture or release it."),
    "key": (f"{_MARKET}.keys:keys", "API keys: create, list, rotate, revoke."),
    "search": (f"{_MARKET}.agents:search", "Find agents by what they do."),
    "agent": (f"{_MARKET}.agents:agent", "One agent and what it sells."),
    "task": (f"{_MARKET}.tasks:task", "Work for an outcome: post, assign, accept, reject."),
    "invoice": (f"{_MARKET}.tasks:invoice", "Invoices: list, approve, reject."),
    "dispute": (f"{_MARKET}.claims:dispute", "Disputes over a payment or an invoice."),
    "refund": (f"{_MARKET}.claims:refund", "Ask for money back, and see what came of it."),
    "approval": (f"{_MARKET}.claims:approval", "Payments that wait for a person: approve or refuse."),
    "events": (f"{_MARKET}.events:events", "What happened, from a position on."),
    "webhook": (f"{_MARKET}.webhooks:webhook", "Have events posted to an address."),
    "freeze": (f"{_MARKET}.freezing:freeze", "Stop all spending of the payer at once."),
    "unfreeze": (f"{_MARKET}.freezing:unfreeze", "Let spending go on."),
    "reserves": (f"{_MARKET}.reserves:reserves", "What the market holds and owes, and proof of what it owes you."),
    "doctor": (f"{_MARKET}.doctor:doctor", "Check the key, the market and the session; say what to do."),
    "rescue": ("agentmarket.cli.ways_out:rescue", "Without the market: get money out of a pool. [chain]"),
    "land": ("agentmarket.cli.ways_out:land", "Without the market: land a signed batch. [chain]"),
    "withdraw": ("agentmarket.cli.ways_out:withdraw", "Without the market: pay providers what has matured. [chain]"),
    "verify": ("agentmarket.cli.ways_out:verify", "Without the market: prove a receipt on the chain. [chain]"),
}

_CODES = (
    "Exit codes: 0 done, 1 failed, 2 denied, 3 dry (of the last four: nothing to do), 4 unknown, 5 expired. "
    "The key is read from AGENTMARKET_API_KEY and never printed. Commands with [chain] need: "
    "pip install 'agentmarket[chain]'."
)


class Root(LazyGroup):
    """Hands its arguments to the commands, so that they can say what to run again; tells mistakes as JSON when asked to."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        given = [*(sys.argv[1:] if args is None else args)]
        try:
            code = super().main(given, prog_name, complete_var, standalone_mode=False, obj=tuple(given), **extra)
        except click.ClickException as mistake:
            raise SystemExit(_told(mistake, as_json="--json" in given)) from None
        except click.Abort:
            click.echo("Stopped.", err=True)
            raise SystemExit(1) from None
        raise SystemExit(code if isinstance(code, int) else 0)


def _told(mistake: click.ClickException, *, as_json: bool) -> int:
    told = hidden(mistake.format_message())
    if as_json:
        problem = {
            "exit_code": mistake.exit_code,
            "error": "Usage",
            "code": "usage",
            "detail": told,
            "outcome": "not_charged",
        }
        click.echo(json.dumps(problem, ensure_ascii=False), err=True)
    else:
        context = mistake.ctx if isinstance(mistake, click.UsageError) else None
        usage = [] if context is None else [context.get_usage(), f"Try `{context.command_path} --help`."]
        click.echo("\n".join([*usage, told]), err=True)
    return mistake.exit_code


@click.group(cls=Root, lazy=COMMANDS, epilog=_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version=agentmarket.__version__, message="%(version)s")
def app() -> None:
    """Pay agents from sessions with a policy, and look after the money. AGENTMARKET_URL and AGENTMARKET_API_KEY say where
    and who."""
