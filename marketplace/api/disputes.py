"""/v1/disputes. Lives here: HTTP only; `escrow.disputes` decides, and a person rules in the admin."""

from uuid import UUID

from escrow import disputes
from escrow.models import Dispute
from marketplace.api import auth, scope, shapes, show
from marketplace.api.bodies import Answer, DisputeIn
from marketplace.api.endpoint import Call, Endpoint, serves
from marketplace.api.pages import matching, page
from marketplace.api.queries import DisputeQuery


class Disputes(Endpoint):
    """Disputes: money that two sides disagree on, until somebody rules or time does."""

    @serves(auth.BUYER, body=DisputeIn, answer=shapes.Dispute, status=201, money=True)
    def post(self, call: Call) -> shapes.Dispute:
        """Dispute an invoice or a payment, with a reason. The money waits until it is ruled."""
        return _show(call, _open(call).pk)

    @serves(auth.ANYONE, query=DisputeQuery, answer=shapes.DisputePage)
    def get(self, call: Call) -> shapes.DisputePage:
        """List disputes: a buyer's own, or those with a provider."""
        rows = matching(scope.disputes(call.actor), call.query, "session_id", "status")
        return shapes.DisputePage(
            **page(rows, call.query, lambda found: [show.dispute(row, call.actor) for row in found])
        )


class OneDispute(Endpoint):
    """One dispute."""

    @serves(auth.ANYONE, answer=shapes.Dispute)
    def get(self, call: Call, dispute_id: UUID) -> shapes.Dispute:
        """Read a dispute, and its ruling."""
        return _show(call, dispute_id)


class Reply(Endpoint):
    """The provider's side."""

    @serves(auth.PROVIDER, body=Answer, answer=shapes.Dispute)
    def post(self, call: Call, dispute_id: UUID) -> shapes.Dispute:
        """Answer a dispute, once. Silence until `answer_by` is ruled for the payer."""
        found = scope.one(scope.disputes(call.actor), dispute_id)
        disputes.answer(dispute=found, answer=call.body.answer, now=call.now)
        return _show(call, dispute_id)


def _open(call: Call) -> Dispute:
    body = call.body
    if body.invoice_id is not None:
        invoice = scope.one(scope.invoices(call.actor), body.invoice_id)
        return disputes.open_for_invoice(invoice=invoice, reason=body.reason, now=call.now)
    payment = scope.one(scope.payments(call.actor), body.payment_id)
    return disputes.open_for_payment(payment=payment, amount_micros=body.amount, reason=body.reason, now=call.now)


def _show(call: Call, dispute_id: UUID) -> shapes.Dispute:
    return show.dispute(scope.one(scope.disputes(call.actor), dispute_id), call.actor)
