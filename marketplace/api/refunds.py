"""/v1/refunds. Lives here: HTTP only; `escrow.refunds` decides. A provider gives back without being asked at a payment."""

from uuid import UUID

from escrow import refunds
from marketplace.api import auth, refund_shapes, scope, show_refunds
from marketplace.api.bodies import Reason
from marketplace.api.endpoint import Call, Endpoint, serves
from marketplace.api.pages import matching, page
from marketplace.api.refund_shapes import RefundIn, RefundPage, RefundQuery


class Refunds(Endpoint):
    """Refunds: payments, or parts of them, that go back or are asked for."""

    @serves(auth.BUYER, body=RefundIn, answer=refund_shapes.Refund, status=201, money=True)
    def post(self, call: Call) -> refund_shapes.Refund:
        """Ask the provider for a payment, or a part of it.

        No money moves until it grants that. Silence until `answer_by` lapses the request. A dispute need not wait for it.
        """
        payment = scope.one(scope.payments(call.actor), call.body.payment_id)
        asked = refunds.ask(payment=payment, amount_micros=call.body.amount, reason=call.body.reason, now=call.now)
        return _show(call, asked.pk)

    @serves(auth.ANYONE, query=RefundQuery, answer=RefundPage)
    def get(self, call: Call) -> RefundPage:
        """List refunds: those of a buyer's payments, or of the payments to a provider."""
        rows = matching(scope.refunds(call.actor), call.query, "session_id", "payment_id", "status")
        return RefundPage(
            **page(rows, call.query, lambda found: [show_refunds.refund(row, call.actor) for row in found])
        )


class OneRefund(Endpoint):
    """One refund."""

    @serves(auth.ANYONE, answer=refund_shapes.Refund)
    def get(self, call: Call, refund_id: UUID) -> refund_shapes.Refund:
        """Read a refund, and what became of it."""
        return _show(call, refund_id)


class Grant(Endpoint):
    """The provider's yes."""

    @serves(auth.PROVIDER, answer=refund_shapes.Refund, money=True)
    def post(self, call: Call, refund_id: UUID) -> refund_shapes.Refund:
        """Give back what was asked for.

        What has landed is paid out of what the same pool owes you and has not settled; when that is too little,
        `would_allow` says how much can go back now.
        """
        refunds.grant(refund=scope.one(scope.refunds(call.actor), refund_id), now=call.now)
        return _show(call, refund_id)


class Decline(Endpoint):
    """The provider's no."""

    @serves(auth.PROVIDER, body=Reason, answer=refund_shapes.Refund, money=True)
    def post(self, call: Call, refund_id: UUID) -> refund_shapes.Refund:
        """Say no, with a reason. The buyer can dispute the payment."""
        found = scope.one(scope.refunds(call.actor), refund_id)
        refunds.decline(refund=found, reason=call.body.reason, now=call.now)
        return _show(call, refund_id)


def _show(call: Call, refund_id: UUID) -> refund_shapes.Refund:
    return show_refunds.refund(scope.one(scope.refunds(call.actor), refund_id), call.actor)
