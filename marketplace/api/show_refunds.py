"""From refunds to their shape, and what makes sense next with one."""

from typing import Final

from escrow.models import Payment, Refund
from marketplace.api import actions, refund_shapes
from marketplace.api.auth import Actor
from marketplace.api.show import provider_id
from marketplace.api.ways_on import Action, get, post

DECLINED: Final = {"reason": "It was delivered as asked for."}
"""A reason that can be sent as it is; whoever has a better one says that."""


def refund(row: Refund, actor: Actor) -> refund_shapes.Refund:
    """Show a refund as it is now."""
    return refund_shapes.Refund.model_validate(
        {
            "id": row.pk,
            "payment_id": row.payment_id,
            "session_id": row.session_id,
            "provider_id": provider_id(row.party),
            "amount": row.amount_micros,
            "status": row.status,
            "reason": row.reason,
            "answer": row.answer,
            "answer_by": row.answer_by,
            "created_at": row.created_at,
            "answered_at": row.answered_at,
            "next_actions": _next(row, actor),
        }
    )


def _next(row: Refund, actor: Actor) -> list[Action]:
    """A request is the provider's to answer. Its payer need not wait for that: what is settled can be disputed only so long."""
    path, payment = f"/v1/refunds/{row.pk}", get(f"/v1/payments/{row.payment_id}", "See what is left of it.")
    if row.status == Refund.Status.PAID:
        return [payment]
    if not actor.is_buyer:
        if row.status != Refund.Status.REQUESTED:
            return [payment]
        offers = [post(f"{path}/grant", "Give it back."), post(f"{path}/decline", "Say no, and why.", body=DECLINED)]
        return actions.of(actor, [*offers, payment])
    offers = [payment]
    if row.payment.status in (Payment.Status.PAYABLE, Payment.Status.SETTLED):
        offers.append(actions.dispute_of(payment_id=row.payment_id))
    return actions.of(actor, offers)
