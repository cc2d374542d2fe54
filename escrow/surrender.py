"""What becomes of whoever waits for a chain action that will not be. Lives here: telling the room that asked for it."""

from escrow import disputes, grants, pools
from escrow.models import ChainAction

Kind = ChainAction.Kind


def give_up(action: ChainAction, reason: str) -> None:
    """Have an opening, a grant or a dispute fail whose chain action is parked or has reverted; others wait for a person."""
    if action.kind == Kind.OPEN_POOL and action.pool is not None:
        pools.opening_failed(action.pool, reason=reason)
    if action.kind == Kind.MINT and action.subject_id is not None:
        grants.minting_failed(action.subject_id, reason=reason)
    if action.kind == Kind.DISPUTE and action.subject_id is not None:
        disputes.opening_failed(action.subject_id, reason=reason)
