"""Which refusals are an answer. Lives here: the few that a history may get, by name. Any other refusal is a fault."""

from typing import Final

from escrow.errors import EscrowError, InvalidAmount, InvalidInput, NotRefundable, StateConflict
from escrow.models import Payment, Pool

HALTED: Final = ("pool", "frozen")
UNREFUNDABLE: Final = (("payment", Payment.Status.SETTLING), ("payment", Payment.Status.REFUNDED))
"""On its way in a batch, or gone back as a whole."""


def is_halt(pool: Pool, facts: object) -> bool:
    """Whether this is the refusal of a pool whose early deposit has left the chain, and it is such a pool."""
    said = facts if isinstance(facts, dict) else {}
    if (said.get("subject"), said.get("state")) != HALTED:
        return False
    return Pool.objects.filter(pk=pool.pk, unbacked_at__isnull=False).exists()


def is_unrefundable(refused: EscrowError) -> bool:
    """Whether a refund may be refused like this: too little is owed, more than is left of it, or its state forbids it."""
    if isinstance(refused, NotRefundable):
        return True
    if isinstance(refused, StateConflict):
        return (refused.facts["subject"], refused.facts["state"]) in UNREFUNDABLE
    is_too_much = isinstance(refused, InvalidInput) and not isinstance(refused, InvalidAmount)
    return is_too_much and refused.facts["field"] == "amount"
