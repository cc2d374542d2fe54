"""Remedies: what a person does about something that is stuck. Lives here: each as one call, with a reason, on record.

The call locks its subject and asks whether anybody has been there since the person looked (`Order.seen`): of two clicks,
or of two people, one has an effect, and the other is told who was first. Carrying out what is asked for is the relay's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from django.db import transaction

from escrow import intents, lifecycle, surrender, vitals
from escrow.errors import StateConflict, require_text
from escrow.models import ChainAction, ChainCursor, Remedy, Setback, SignerNonce

Kind = Remedy.Kind
Status = ChainAction.Status
Subject = ChainAction | SignerNonce | ChainCursor | Setback
Row = TypeVar("Row", ChainAction, SignerNonce, ChainCursor, Setback)

OF: Final[dict[type[Subject], tuple[Kind, ...]]] = {
    ChainAction: (Kind.RETRY, Kind.REBROADCAST, Kind.BUMP, Kind.RELEASE, Kind.PARK),
    SignerNonce: (Kind.CLEAR_SIGNER,),
    ChainCursor: (Kind.CLEAR_CURSOR,),
    Setback: (Kind.TRY_AGAIN,),
}
"""The remedies that there are for rows of a model, whatever state they are in."""
FRESH: Final = timedelta(seconds=60)
"""How old a look at the chain may be that a nonce is taken from."""


@dataclass(frozen=True)
class Order:
    """Who asks for a remedy, why, when, and the newest remedy of its subject that they have seen (0: none)."""

    by: str
    reason: str
    seen: int
    now: datetime


def newest(subject: Subject) -> Remedy | None:
    """Return what was done about a subject last."""
    return Remedy.objects.filter(**_about(subject)).order_by("-pk").first()


def open_to(subject: Subject) -> list[Kind]:
    """Return the remedies that make sense for a subject as it is."""
    if isinstance(subject, SignerNonce):
        return [Kind.CLEAR_SIGNER] if subject.stopped_reason else []
    if isinstance(subject, ChainCursor):
        return [Kind.CLEAR_CURSOR] if subject.stopped_reason else []
    if isinstance(subject, Setback):
        return [Kind.TRY_AGAIN]
    if subject.status == Status.PARKED:
        return [Kind.RELEASE] if is_left_over(subject) else [Kind.RETRY]
    if subject.status == Status.REVERTED and subject.kind not in intents.GIVEN_UP:
        return [] if intents.follower(subject) else [Kind.RETRY]
    if subject.status == Status.PLANNED:
        return [Kind.PARK]
    return [Kind.REBROADCAST, Kind.BUMP, Kind.RELEASE] if subject.status in ChainAction.UNMINED else []


def is_left_over(action: ChainAction) -> bool:
    """Return whether an action is parked although its failure has been told: nobody waits for it, and it only has to end."""
    return action.status == Status.PARKED and action.kind in intents.GIVEN_UP


def retry(*, action: ChainAction, order: Order) -> Remedy:
    """Plan a parked action again, its cause mended, or another for one that has reverted. Raises StateConflict."""

    def plan(locked: ChainAction) -> str:
        intents.retry(action=locked, now=order.now)
        return "Planned again."

    return _act(Kind.RETRY, action, order, plan)


def rebroadcast(*, action: ChainAction, order: Order) -> Remedy:
    """Have the bytes that were signed sent once more, now. Raises StateConflict."""

    def resend(locked: ChainAction) -> str:
        _require_sent(locked)
        ChainAction.objects.filter(pk=locked.pk).update(next_at=order.now)
        return "Its signed bytes are sent again."

    return _act(Kind.REBROADCAST, action, order, resend)


def bump(*, action: ChainAction, order: Order) -> Remedy:
    """Have one replacement signed with higher fees at the same nonce, past the cap if need be. Raises StateConflict."""

    def raise_fee(locked: ChainAction) -> str:
        _ask_relay(locked, "bump", order.now)
        return "One replacement with a higher fee is signed and sent."

    return _act(Kind.BUMP, action, order, raise_fee)


def release(*, action: ChainAction, order: Order) -> Remedy:
    """Have its nonce used up by an empty chain transaction, so that later ones go on; it then counts as reverted.

    Whichever of its signed bytes is mined first, only one is: an action that lands all the same has landed. One that is parked
    though its failure was told has no nonce, and just ends. Raises StateConflict.
    """

    def cancel(locked: ChainAction) -> str:
        if is_left_over(locked):
            # Nothing is told: that was done when it was parked, and what has been asked for anew since is not touched.
            lifecycle.move(locked, Status.DROPPED, error=_why("Ended", order, locked.error))
            return "It has ended, and nothing of it is planned again."
        _ask_relay(locked, "cancel", order.now)
        return "Its nonce is used up by an empty chain transaction, unless it lands first."

    return _act(Kind.RELEASE, action, order, cancel)


def park(*, action: ChainAction, order: Order) -> Remedy:
    """Set an action aside of which nothing is signed. Raises StateConflict: what is signed is released first."""

    def set_aside(locked: ChainAction) -> str:
        if locked.status != Status.PLANNED:
            said = f"The chain action is {locked.status}: only one of which nothing is signed is parked."
            raise StateConflict("chain action", locked.status, said)
        lifecycle.move(locked, Status.PARKED, error=_why("Parked", order, locked.error))
        surrender.give_up(locked, _why("Parked", order), now=order.now)
        if locked.status == Status.DROPPED:
            return "It was told as failed, and has ended."
        return "Parked."

    return _act(Kind.PARK, action, order, set_aside)


def clear_signer(*, signer: SignerNonce, order: Order, adopt_nonce: bool = False) -> Remedy:
    """Let a stopped signer sign again; with ``adopt_nonce`` from the chain's own next nonce on. Raises StateConflict.

    The chain's nonce is taken only while nothing of the signer is in flight, and only when it is ahead of ours: bytes of
    ours at that nonce could otherwise still be mined.
    """

    def clear(locked: SignerNonce) -> str:
        if not locked.stopped_reason:
            raise StateConflict("signer", "running", f"{locked.address} is not stopped.")
        was, following = locked.stopped_reason, locked.next_nonce
        if adopt_nonce:
            following = _nonce_on_chain(locked, order.now)
        SignerNonce.objects.filter(pk=locked.pk).update(stopped_reason="", next_nonce=following)
        return f"It signs again, from nonce {following} on. It was stopped: {was}"

    return _act(Kind.CLEAR_SIGNER, signer, order, clear)


def clear_cursor(*, cursor: ChainCursor, order: Order) -> Remedy:
    """Let the indexer read on from where it stopped. Raises StateConflict."""

    def clear(locked: ChainCursor) -> str:
        if not locked.stopped_reason:
            raise StateConflict("indexer", "running", "The indexer is not stopped.")
        ChainCursor.objects.filter(pk=locked.pk).update(stopped_reason="")
        return f"It reads on from block {locked.block_number}. It was stopped: {locked.stopped_reason}"

    return _act(Kind.CLEAR_CURSOR, cursor, order, clear)


def try_again(*, setback: Setback, order: Order) -> Remedy:
    """Have a sweep try a row again that it has set aside or put off."""

    def forgive(locked: Setback) -> str:
        Setback.objects.filter(pk=locked.pk).update(parked_at=None, next_at=order.now, failures=0)
        return f"Tried again with the next sweep. It had failed {locked.failures} times: {locked.error}"

    return _act(Kind.TRY_AGAIN, setback, order, forgive)


@transaction.atomic
def _act(kind: Kind, subject: Row, order: Order, step: Callable[[Row], str]) -> Remedy:
    require_text("reason", order.reason)
    require_text("by", order.by)
    rows = type(subject)._default_manager
    locked = rows.select_for_update(no_key=True).filter(pk=subject.pk).first()
    if locked is None:
        raise StateConflict("subject", "gone", f"{subject} is not stuck any more.")
    last = newest(locked)
    if last is not None and last.pk != order.seen:
        raise StateConflict(
            "subject", last.kind, f"Already done by {last.by} at {last.at:%Y-%m-%dT%H:%M:%SZ}: {last.outcome}"
        )
    outcome = step(locked)
    if not isinstance(subject, ChainCursor | Setback):
        transaction.on_commit(intents.nudge, robust=True)
    return Remedy.objects.create(
        kind=kind, by=order.by, reason=order.reason, outcome=outcome, at=order.now, **_about(locked)
    )


def _about(subject: Subject) -> dict[str, Any]:
    if isinstance(subject, Setback):
        return {"setback": f"{subject.sweep}:{subject.subject}"}
    names = {ChainAction: "action", SignerNonce: "signer", ChainCursor: "cursor"}
    return {names[type(subject)]: subject}


def _why(what: str, order: Order, before: str = "") -> str:
    """Return what a person did and why, and after it the error that was there: the cause of it all."""
    said = f"{what} by {order.by}: {order.reason.strip()}"
    return f"{said.rstrip('.')}. Before: {before}" if before else said


def _require_sent(action: ChainAction) -> None:
    if action.status not in ChainAction.UNMINED:
        said = f"The chain action is {action.status}: nothing of it waits for a block."
        raise StateConflict("chain action", action.status, said)


def _ask_relay(action: ChainAction, what: str, now: datetime) -> None:
    """Leave a note that the relay reads at its next pass, and takes off when it has done it."""
    _require_sent(action)
    ChainAction.objects.filter(pk=action.pk).update(params={**action.params, what: True}, next_at=now)


def _nonce_on_chain(signer: SignerNonce, now: datetime) -> int:
    flying = ChainAction.objects.filter(signer_address=signer.address, status__in=ChainAction.IN_FLIGHT).count()
    if flying:
        said = f"{flying} chain actions of {signer.address} are in flight: release them first, or wait for them."
        raise StateConflict("signer", "in flight", said)
    pulse = vitals.newest_look()
    seen = pulse.signers.get(signer.address) if pulse and pulse.at >= now - FRESH else None
    if seen is None:
        raise StateConflict("signer", "unknown", "No worker has looked at the chain within a minute; start one first.")
    if int(seen["nonce"]) < signer.next_nonce:
        said = f"The chain is at nonce {seen['nonce']} and we are at {signer.next_nonce}: a nonce is never taken back."
        raise StateConflict("signer", "behind", said)
    return int(seen["nonce"])
