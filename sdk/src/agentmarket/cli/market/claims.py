"""`agentmarket dispute`, `refund` and `approval`: what people and providers have to say about a payment."""

from typing import Any

import click

from agentmarket.cli.market import options
from agentmarket.cli.market.run import Run, group, market

_DISPUTE = (
    "id", "status", "amount", "reason", "payment_id", "invoice_id", "answer", "to_provider", "to_payer", "ruling_reason",
    "answer_by", "rule_by",
)  # fmt: skip
_REFUND = ("id", "status", "amount", "payment_id", "reason", "answer", "created_at", "answered_at")
_APPROVAL = (
    "id", "status", "kind", "amount", "to", "capability", "session_id", "metadata", "reason", "created_at", "expires_at",
    "decided_at",
)  # fmt: skip

dispute = group("Disputes over a payment or an invoice.")(lambda: None)
refund = group("Money back, asked of the provider.")(lambda: None)
approval = group("Payments that wait for a person.")(lambda: None)


@dispute.command("open")
@click.option("--payment", metavar="ID", help="The payment that it is about.")
@click.option("--invoice", metavar="ID", help="Or the invoice.")
@click.option("--amount", metavar="AMOUNT", help="Of a payment: only so much of it.")
@options.reason
@options.key
@market
def open_(run: Run, payment: str | None, invoice: str | None, **given: Any) -> None:
    """Dispute a payment or an invoice: its money waits until it is ruled."""
    if (payment is None) == (invoice is None):
        raise click.UsageError("Name either --payment or --invoice.")
    run.tell(run.client.disputes.open(payment=payment, invoice=invoice, **given), *_DISPUTE)


@dispute.command("show")
@options.id
@market
def show_dispute(run: Run, id: str) -> None:
    """One dispute."""
    run.tell(run.client.disputes.get(id), *_DISPUTE)


@dispute.command("list")
@options.status
@options.session
@options.limit
@market
def list_disputes(run: Run, status: str | None, session: str | None, most: int) -> None:
    """The disputes that this key may see."""
    found = run.client.disputes.list(status=status, session=session)
    run.tell_all(found, "id", "status", "amount", "reason", "answer_by", "rule_by", most=most)


@refund.command("ask")
@click.argument("payment")
@click.option("--amount", metavar="AMOUNT", help="Only so much of it; else all that is left.")
@options.reason
@options.key
@market
def ask(run: Run, payment: str, amount: str | None, reason: str, key: str | None) -> None:
    """Ask the provider to give PAYMENT back."""
    run.tell(run.client.refunds.ask(payment, reason=reason, amount=amount, key=key), *_REFUND)


@refund.command("list")
@options.status
@options.limit
@market
def list_refunds(run: Run, status: str | None, most: int) -> None:
    """The refunds that were asked for."""
    found = run.client.refunds.list(status=status)
    run.tell_all(found, "id", "status", "amount", "payment_id", "reason", "answer", most=most)


@approval.command("list")
@options.status
@options.session
@options.limit
@market
def list_approvals(run: Run, status: str | None, session: str | None, most: int) -> None:
    """What waits for a person, and what was decided."""
    found = run.client.approvals.list(status=status, session=session)
    run.tell_all(found, "id", "status", "kind", "amount", "to", "created_at", "expires_at", most=most)


@approval.command()
@options.id
@market
def approve(run: Run, id: str) -> None:
    """Let it be: the same request then passes. The payer's full key only."""
    run.tell(run.client.approvals.approve(id), *_APPROVAL)


@approval.command()
@options.id
@options.reason
@market
def refuse(run: Run, id: str, reason: str) -> None:
    """Say no: the request is denied for good. The payer's full key only."""
    run.tell(run.client.approvals.refuse(id, reason=reason), *_APPROVAL)
