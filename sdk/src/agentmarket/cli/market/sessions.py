"""`agentmarket session`: budgets with a policy and a key of their own."""

import csv
import io
from pathlib import Path
from typing import Any

import click

from agentmarket.cli.market import options, secrets
from agentmarket.cli.market.run import Run, group, market
from agentmarket.cli.market.shown import document

_SHOWN = (
    "id", "name", "status", "budget", "spent", "held", "delegated", "remaining", "parent_id", "policy_version", "policy",
    "expires_at",
)  # fmt: skip
_LEDGER = ("id", "at", "reason", "amount", "counterparty", "ref")

_budget = click.option("--budget", required=True, metavar="AMOUNT", help="What it may spend: it is set aside at once.")
_name = click.option("--name", help="What people call it.")
_expires_at = click.option("--expires-at", metavar="TIME", help="RFC 3339, like 2026-12-31T12:00:00Z.")

session = group("Budgets with a policy and a key of their own.")(lambda: None)


@session.command()
@_budget
@click.option("--pool", metavar="ID", help="Which pool pays; the only open one needs no name.")
@_name
@_expires_at
@options.policy_options
@secrets.option
@options.key
@market
def create(run: Run, key_file: Path | None, **given: Any) -> None:
    """Open a session. Its key is shown once: give it to the agent that shall spend it."""
    policy = options.policy_of(given)
    secrets.make(run, key_file, lambda: run.client.payment.create_session(policy=policy, **given), *_SHOWN)


@session.command()
@click.argument("parent", metavar="SESSION")
@_budget
@_name
@_expires_at
@options.policy_options
@secrets.option
@options.key
@market
def child(run: Run, parent: str, key_file: Path | None, **given: Any) -> None:
    """Open a session inside SESSION: its budget and its policy are part of the parent's."""
    policy = options.policy_of(given)
    secrets.make(run, key_file, lambda: run.client.sessions.child(parent, policy=policy, **given), *_SHOWN)


@session.command()
@click.argument("session_id", metavar="SESSION")
@click.argument("amount")
@market
def ensure(run: Run, session_id: str, amount: str) -> None:
    """Has SESSION got AMOUNT left? Exit code 0 says yes, 3 no, 2 that it is paused or closed. Nothing is set aside."""
    run.tell(run.client.sessions.ensure(session_id, amount), *_SHOWN)


@session.command()
@click.argument("session_id", metavar="SESSION")
@market
def show(run: Run, session_id: str) -> None:
    """One session: what is left of it, and its policy."""
    run.tell(run.client.sessions.get(session_id), *_SHOWN)


@session.command("list")
@click.option("--status", metavar="open|paused|closed")
@options.limit
@market
def list_(run: Run, status: str | None, most: int) -> None:
    """The payer's sessions."""
    found = run.client.sessions.list(status=status)
    run.tell_all(found, "id", "name", "status", "budget", "spent", "remaining", most=most)


@session.command("top-up")
@click.argument("session_id", metavar="SESSION")
@click.argument("amount")
@options.key
@market
def top_up(run: Run, session_id: str, amount: str, key: str | None) -> None:
    """Give a session AMOUNT more out of its pool. Each run adds it, unless --key says that it is the same."""
    run.tell(run.client.sessions.top_up(session_id, amount=amount, key=key), *_SHOWN)


@session.command()
@click.argument("session_id", metavar="SESSION")
@click.option("--reason", help="Why: it is kept with the session's events.")
@market
def pause(run: Run, session_id: str, reason: str | None) -> None:
    """Let a session spend nothing until it is resumed."""
    run.tell(run.client.sessions.pause(session_id, reason=reason), *_SHOWN)


@session.command()
@click.argument("session_id", metavar="SESSION")
@market
def resume(run: Run, session_id: str) -> None:
    """Let a paused session spend again."""
    run.tell(run.client.sessions.resume(session_id), *_SHOWN)


@session.command()
@click.argument("session_id", metavar="SESSION")
@options.key
@market
def close(run: Run, session_id: str, key: str | None) -> None:
    """End a session; what is left goes back to its pool."""
    run.tell(run.client.sessions.close(session_id, key=key), *_SHOWN)


@session.command()
@click.argument("session_id", metavar="SESSION")
@click.option("--csv", "as_csv", is_flag=True, help="As CSV, all of it, for a spreadsheet.")
@options.limit
@market
def ledger(run: Run, session_id: str, as_csv: bool, most: int) -> None:
    """Every transfer in and out of a session, newest first; amounts are signed as the session sees them."""
    transfers = run.client.sessions.ledger(session_id)
    if as_csv and run.as_json:
        raise click.UsageError("--csv or --json, not both.")
    if not as_csv:
        run.tell_all(transfers, *_LEDGER, most=most)
        return
    run.write(",".join(_LEDGER))
    for transfer in transfers:
        shown, line = document(transfer), io.StringIO()
        csv.writer(line, lineterminator="").writerow([_cell(name, shown[name]) for name in _LEDGER])
        run.write(line.getvalue())


def _cell(name: str, value: Any) -> Any:
    """A spreadsheet runs a text that begins like a formula. An amount is a number, and keeps its sign."""
    risky = name != "amount" and isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if risky else value
