"""What becomes of whoever waits for a chain action that will not be. Lives here: telling the room that asked for it."""

from datetime import datetime

from escrow import dispatch, disputes, grants, intents, lifecycle, pools
from escrow.models import ChainAction

Kind = ChainAction.Kind


def give_up(action: ChainAction, reason: str, *, now: datetime) -> None:
    """Have an opening, a top-up, a grant or a dispute fail whose chain action is parked or has reverted.

    The batches of a settlement wait for another chain action. So nobody waits for any of these, and what was parked ends here,
    unsigned; all else stays parked and waits for a person.
    """
    if action.kind == Kind.SETTLE:
        dispatch.release(action, reason, now=now)
    if action.kind == Kind.OPEN_POOL and action.pool is not None:
        pools.opening_failed(action.pool, reason=reason)
    if action.kind == Kind.TOP_UP and action.pool is not None:
        pools.top_up_failed(action.pool, amount_micros=int(action.params["amount_micros"]), reason=reason)
    if action.kind == Kind.MINT and action.subject_id is not None:
        grants.minting_failed(action.subject_id, reason=reason)
    if action.kind == Kind.DISPUTE and action.subject_id is not None:
        disputes.opening_failed(action.subject_id, reason=reason)
    if action.kind in intents.GIVEN_UP and action.status == ChainAction.Status.PARKED:
        lifecycle.move(action, ChainAction.Status.DROPPED)
