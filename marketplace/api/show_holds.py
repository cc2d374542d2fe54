"""From holds to their shape, and what makes sense next with one."""

from datetime import datetime

from escrow.models import Hold
from marketplace.api import actions, hold_shapes
from marketplace.api.auth import Actor
from marketplace.api.show import provider_id
from marketplace.api.ways_on import Action, get, post


def hold(row: Hold, actor: Actor, now: datetime) -> hold_shapes.Hold:
    """Show a hold as it is now."""
    return hold_shapes.Hold.model_validate(
        {
            "id": row.pk,
            "session_id": row.session_id,
            "to": row.to,
            "agent": row.to,
            "provider_id": provider_id(row.party),
            "amount": row.amount_micros,
            "captured": row.payment.amount_micros if row.payment else 0,
            "status": row.status,
            "metadata": row.metadata,
            "capability": row.capability or None,
            "expires_at": row.expires_at,
            "payment_id": row.payment_id,
            "remaining": row.session.account.balance_micros if actor.is_buyer else None,
            "created_at": row.created_at,
            "next_actions": _next(row, actor, now),
        }
    )


def _next(row: Hold, actor: Actor, now: datetime) -> list[Action]:
    """A buyer captures in time, or releases; the provider can give up. What belongs to a task has its next steps there."""
    path = f"/v1/holds/{row.pk}"
    if row.payment_id is not None:
        return [get(f"/v1/payments/{row.payment_id}", "See what became of what was captured.")]
    if row.status != Hold.Status.HELD or row.expires_at is None:
        return []
    offers = [post(f"{path}/release", "Give it back.")]
    if actor.is_buyer and now < row.expires_at:
        offers.insert(0, post(f"{path}/capture", "Pay it, or an amount of it, because the call succeeded."))
    return actions.of(actor, offers)
