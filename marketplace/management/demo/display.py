"""How a demo looks: bars while it runs, tables of what came of it, and what to try next."""

from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from marketplace.management.demo.play import Played
from marketplace.management.stack.stack import Urls

WIDTH: Final = 140
"""Of a page that is no terminal."""
STAGES: Final = {
    "calls": "agents are paid per file",
    "refund": "a call that fails is refunded",
    "brief": "a brief is written, invoiced, approved",
    "dispute": "an empty one is rejected, disputed",
    "ruling": "answered, and ruled",
    "settle": "debts land on chain",
    "pay out": "providers are paid out",
    "close": "the rest goes back to the payer",
}
_NEXT: Final = """
[bold]The market stays open[/] until Ctrl-C.
  Admin   {admin}   user [bold]{user}[/], password [bold]{password}[/]
  API     {docs}
  Chain   {rpc}
  Logs    {logs}

[bold]Try[/]
  curl -s {web}/v1/pools -H 'Authorization: Bearer {key}'
  curl -s {rpc} -H 'Content-Type: application/json' \\
    -d '{{"jsonrpc": "2.0", "id": 1, "method": "eth_getTransactionReceipt", "params": ["{tx_hash}"]}}'
  make dev      to buy and sell with keys of your own
"""


class Bars:
    """A bar for each stage, from the moment that the stage begins. A context manager."""

    def __init__(self, console: Console) -> None:
        """Draw on a console; one that is no terminal gets a line for each stage that ends."""
        self._console = console
        self._progress = Progress(
            TextColumn("  {task.description:<40}"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn(),
            console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._done: set[str] = set()

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Leave the bars as they are."""
        self._progress.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how much of a stage is done."""
        text = STAGES.get(stage, stage)
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(text, total=total)
        self._progress.update(self._tasks[stage], completed=done, total=total)
        if done == total and stage not in self._done:
            self._done.add(stage)
            if not self._console.is_terminal:
                self._console.print(f"  {text}: {done}/{total}")


def show(document: dict[str, Any], console: Console) -> None:
    """Print the whole report."""
    code, payments = document["code"], document["payments"]
    console.print(f"\n[bold]{code['files']} files of {code['path']}: {code['findings']} findings[/]\n")
    for table in (_providers(document), _money(document), _actions(document), _costs(document)):
        console.print(table)
        console.print()
    console.print(
        f"[bold]{payments['count']} micropayments[/], {payments['amount']} USDC: p50 {payments['p50_ms']:.1f} ms, "
        f"p95 {payments['p95_ms']:.1f} ms; the three of one file, one after the other, "
        f"{document['three_payments_ms']:.1f} ms"
    )
    for refund in document["refunds"]:
        console.print(f"Refunded: {refund['amount']} USDC from {refund['from']}: {refund['reason']}")
    for dispute in document["disputes"]:
        console.print(
            f"Disputed: {dispute['amount']} USDC. {dispute['reason']} Ruled by {dispute['ruled_by']}: "
            f"{dispute['to_provider']} to the provider, {dispute['to_payer']} back to the payer"
        )
    pool, verdict = document["pool"], "yes" if document["reconciled"] else "NO"
    console.print(
        f"Refund {pool['refunded']} + providers {pool['paid_out']} + fees {pool['fees']} = deposit {pool['deposited']}: "
        f"{'yes' if pool['adds_up'] else 'NO'}"
    )
    books = document["books"]
    console.print(f"[bold]books equal chain: {verdict}[/] (block {books['block']}, {books['compared']} sums compared)")
    for problem in document["problems"]:
        console.print(f"[bold red]{problem}[/]")
    console.print(f"The brief: [bold]{document['brief']}[/]")


def invite(document: dict[str, Any], played: Played, urls: Urls, logs: object, console: Console) -> None:
    """Say where everything is while the market stays open."""
    text = _NEXT.format(
        admin=urls.admin,
        user=played.admin,
        password=played.password,
        docs=urls.docs,
        rpc=urls.rpc,
        web=urls.web,
        logs=logs,
        key=played.buyer.payer_key,
        tx_hash=document["settlements"][0]["tx_hash"] if document["settlements"] else "0x",
    )
    console.print(text, soft_wrap=True)


def _table(title: str, *columns: str, text: int = 1) -> Table:
    """Return a table whose first columns are text and whose others are numbers."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < text else "right", overflow="fold")
    return table


def _providers(document: dict[str, Any]) -> Table:
    table = _table("Who was paid what (USDC)", "agent", "calls", "invoices", "rulings", "gross", "fee", "on chain")
    for one in document["providers"]:
        counts = (str(one[name]) for name in ("calls", "invoices", "rulings"))
        table.add_row(one["agent"], *counts, one["gross"], one["fee"], one["balance"])
    return table


def _money(document: dict[str, Any]) -> Table:
    table = _table("The pool (USDC)", "", "amount")
    pool = document["pool"]
    for name in ("deposited", "spent", "refunded", "fees"):
        table.add_row(name, pool[name])
    return table


def _actions(document: dict[str, Any]) -> Table:
    contract = f"{document['contract']} on chain {document['chain_id']}"
    table = _table(f"On chain: {contract}", "what", "hash", "status", "block", "gas", text=3)
    for action in document["chain_actions"]:
        many = f" ({action['payments']} payments)" if "payments" in action else ""
        row = (action["tx_hash"], action["status"], str(action["block"]), f"{action['gas_used'] or 0:,}")
        table.add_row(action["kind"] + many, *row)
    return table


def _costs(document: dict[str, Any]) -> Table:
    costs = document["cost_per_payment"]
    assumed = costs["assumed"]
    title = f"Gas a payment (assumed: {assumed['gas_gwei']} gwei, {assumed['eth_dollars']} dollars an ether)"
    table = _table(title, "", "gas", "dollars")
    for name, text in (
        ("settlement_only", "its share of the settlement"),
        ("everything_on_chain", "its share of everything on chain"),
        ("one_transfer_each", "one ERC-3009 transfer each, measured"),
    ):
        table.add_row(text, f"{costs[name]['gas']:,.0f}", costs[name]["dollars"])
    return table
