"""/v1/invoices. Lives here: HTTP only; `escrow.invoices` and `marketplace.tasks` decide."""

from uuid import UUID

from escrow import invoices
from escrow.models import Invoice
from marketplace import tasks
from marketplace.api import auth, scope, shapes, show
from marketplace.api.bodies import InvoiceIn, Reason
from marketplace.api.endpoint import Call, Endpoint, serves
from marketplace.api.pages import matching, page
from marketplace.api.queries import InvoiceQuery


class Invoices(Endpoint):
    """Invoices: a provider's claims on held money."""

    @serves(auth.PROVIDER, body=InvoiceIn, answer=shapes.Invoice, status=201, money=True)
    def post(self, call: Call) -> shapes.Invoice:
        """Invoice a session, for a task of yours in it or for what you have agreed on with its owner.

        Without a task the money is set aside at once; the session's policy has to name the agent among its allowed
        recipients, and a wildcard is not enough.
        """
        body = call.body
        invoice = tasks.bill(
            provider=call.actor.provider,
            session_id=body.session_id,
            agent_uri=body.agent,
            amount_micros=body.amount,
            number=body.number,
            memo=body.memo or "",
            task_id=body.task_id,
            now=call.now,
        )
        return _show(call, invoice.pk)

    @serves(auth.ANYONE, query=InvoiceQuery, answer=shapes.InvoicePage)
    def get(self, call: Call) -> shapes.InvoicePage:
        """List invoices: those to a buyer, or those of a provider."""
        rows = matching(scope.invoices(call.actor), call.query, "session_id", "status")
        return shapes.InvoicePage(
            **page(rows, call.query, lambda found: [show.invoice(row, call.actor) for row in found])
        )


class OneInvoice(Endpoint):
    """One invoice."""

    @serves(auth.ANYONE, answer=shapes.Invoice)
    def get(self, call: Call, invoice_id: UUID) -> shapes.Invoice:
        """Read an invoice."""
        return _show(call, invoice_id)


class Approve(Endpoint):
    """The buyer's yes."""

    @serves(auth.BUYER, answer=shapes.Invoice, money=True)
    def post(self, call: Call, invoice_id: UUID) -> shapes.Invoice:
        """Approve an invoice: its amount is owed to the provider, the rest of the hold comes back."""
        invoices.approve(invoice=_find(call, invoice_id), now=call.now)
        return _show(call, invoice_id)


class Reject(Endpoint):
    """The buyer's no."""

    @serves(auth.BUYER, body=Reason, answer=shapes.Invoice, money=True)
    def post(self, call: Call, invoice_id: UUID) -> shapes.Invoice:
        """Refuse an invoice, with a reason. The money stays on hold; if both stay silent a dispute opens."""
        invoices.reject(invoice=_find(call, invoice_id), reason=call.body.reason, now=call.now)
        return _show(call, invoice_id)


class Withdraw(Endpoint):
    """The provider gives up."""

    @serves(auth.PROVIDER, answer=shapes.Invoice, money=True)
    def post(self, call: Call, invoice_id: UUID) -> shapes.Invoice:
        """Give an invoice up: all that was held for it goes back to the session."""
        invoices.withdraw(invoice=_find(call, invoice_id), now=call.now)
        return _show(call, invoice_id)


def _find(call: Call, invoice_id: UUID) -> Invoice:
    return scope.one(scope.invoices(call.actor), invoice_id)


def _show(call: Call, invoice_id: UUID) -> shapes.Invoice:
    return show.invoice(_find(call, invoice_id), call.actor)
