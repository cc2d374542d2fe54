"""`agentmarket task` and `agentmarket invoice`: work that is paid by its outcome."""

from typing import Any

import click

from agentmarket.cli.market import options
from agentmarket.cli.market.run import Run, group, market

_TASK = (
    "id", "title", "status", "capability", "budget", "agent", "session_id", "brief", "deliverable", "invoice_id", "due_at",
    "review_by", "reason",
)  # fmt: skip
_INVOICE = (
    "id", "number", "status", "amount", "approved_amount", "agent", "task_id", "memo", "reason", "payment_id", "dispute_id",
    "review_by",
)  # fmt: skip

task = group("Work that is paid by its outcome.")(lambda: None)
invoice = group("Invoices of providers.")(lambda: None)


@task.command()
@click.argument("title")
@click.option("--capability", required=True, metavar="NAME", help="What an agent has to be able to do.")
@click.option("--budget", required=True, metavar="AMOUNT", help="What it may cost.")
@click.option("--brief", metavar="JSON|@FILE|-", help="What is to be done, as one JSON object.")
@click.option("--agent", metavar="AGENT", help="Assign it at once: the budget is held from then on.")
@click.option("--due-in", "due_in_seconds", type=click.IntRange(min=1), metavar="SECONDS", help="When it is due.")
@options.session
@options.key
@market
def post(run: Run, brief: str | None, **given: Any) -> None:
    """Post a task. Each run posts one, unless --key says that it is the same."""
    run.tell(run.client.tasks.post(brief=options.read_json(brief, "--brief") or {}, **given), *_TASK)


@task.command("show")
@options.id
@market
def show_task(run: Run, id: str) -> None:
    """One task, with what was delivered."""
    run.tell(run.client.tasks.get(id), *_TASK)


@task.command("list")
@options.status
@options.session
@options.limit
@market
def list_tasks(run: Run, status: str | None, session: str | None, most: int) -> None:
    """The tasks that this key may see."""
    found = run.client.tasks.list(status=status, session=session)
    run.tell_all(found, "id", "title", "status", "capability", "budget", "agent", most=most)


@task.command()
@options.id
@click.argument("agent")
@options.key
@market
def assign(run: Run, id: str, agent: str, key: str | None) -> None:
    """Give a task to AGENT; its budget is held from then on."""
    run.tell(run.client.tasks.assign(id, agent=agent, key=key), *_TASK)


@task.command()
@options.id
@options.key
@market
def accept(run: Run, id: str, key: str | None) -> None:
    """Take what was delivered: its invoice is paid, the rest of the hold comes back."""
    run.tell(run.client.tasks.accept(id, key=key), *_TASK)


@task.command("reject")
@options.id
@options.reason
@options.key
@market
def reject_task(run: Run, id: str, reason: str, key: str | None) -> None:
    """Refuse what was delivered."""
    run.tell(run.client.tasks.reject(id, reason=reason, key=key), *_TASK)


@task.command()
@options.id
@options.key
@market
def cancel(run: Run, id: str, key: str | None) -> None:
    """Take a task back; what was held for it comes back."""
    run.tell(run.client.tasks.cancel(id, key=key), *_TASK)


@invoice.command("list")
@options.status
@options.session
@options.limit
@market
def list_invoices(run: Run, status: str | None, session: str | None, most: int) -> None:
    """The invoices that this key may see."""
    found = run.client.invoices.list(status=status, session=session)
    run.tell_all(found, "id", "number", "status", "amount", "agent", "review_by", most=most)


@invoice.command("show")
@options.id
@market
def show_invoice(run: Run, id: str) -> None:
    """One invoice."""
    run.tell(run.client.invoices.get(id), *_INVOICE)


@invoice.command()
@options.id
@options.key
@market
def approve(run: Run, id: str, key: str | None) -> None:
    """Pay an invoice."""
    run.tell(run.client.invoices.approve(id, key=key), *_INVOICE)


@invoice.command("reject")
@options.id
@options.reason
@options.key
@market
def reject_invoice(run: Run, id: str, reason: str, key: str | None) -> None:
    """Refuse an invoice; the provider withdraws it, or it becomes a dispute."""
    run.tell(run.client.invoices.reject(id, reason=reason, key=key), *_INVOICE)
