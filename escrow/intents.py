"""What must happen on chain. Lives here: recording it with the change that asks for it. Signing and sending is the relay's."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from escrow import hints, lifecycle, trail
from escrow.errors import StateConflict
from escrow.models import Attempt, Batch, ChainAction, Pool

log = logging.getLogger(__name__)

MAX_TURNS: Final = 3
"""Chain transactions that may revert for one cause before it waits for a person: each costs gas."""
ASKED_ANEW: Final = (
    ChainAction.Kind.MINT,
    ChainAction.Kind.OPEN_POOL,
    ChainAction.Kind.TOP_UP,
    ChainAction.Kind.DISPUTE,
)
"""The kinds whose failure is told to whoever asked. Planned again behind their back, one could be done beside the one that
they ask for anew."""
GIVEN_UP: Final = (*ASKED_ANEW, ChainAction.Kind.SETTLE)
"""The kinds that end once they are given up, because nobody waits for them any more: what a settlement carried goes with
another."""


def record(
    kind: ChainAction.Kind,
    *,
    dedupe_key: str,
    pool: Pool | None,
    subject_id: UUID | None = None,
    params: Mapping[str, object] | None = None,
    shard: int | None = None,
) -> ChainAction:
    """Record a chain action in the caller's database transaction; the same key twice is the same action.

    Only an action that reverted on chain, whose nonce is spent, is followed by another under the same key.
    """
    fields = {
        "kind": kind,
        "pool": pool,
        "subject_id": subject_id,
        "params": dict(params or {}),
        "shard": shard_of(pool) if shard is None else shard,
        "request_id": trail.request_id(),
    }
    action, created = ChainAction.objects.get_or_create(dedupe_key=dedupe_key, defaults=fields)
    for turn in range(1, MAX_TURNS):
        if action.status != ChainAction.Status.REVERTED:
            break
        action, created = ChainAction.objects.get_or_create(dedupe_key=f"{dedupe_key}#{turn}", defaults=fields)
    if created:
        transaction.on_commit(_recorded(action), robust=True)
    return action


def _recorded(action: ChainAction) -> Callable[[], None]:
    def say_so() -> None:  # no `partial`: Django asks a hook that fails for its name
        with trail.follow(action.request_id, action=action.pk):
            log.info("Chain action %s (%s) is planned", action.pk, action.kind)
        nudge()

    return say_so


def shard_of(pool: Pool | None) -> int:
    """Return which relayer sends what is done for a pool: always the same one, so that it is mined in its order."""
    return 0 if pool is None else pool.pk.int % settings.RELAYERS


def of_pool(pool: Pool) -> "QuerySet[ChainAction]":
    """Return what happens on chain for a pool, oldest first, with what carries its batches beside others'."""
    carries = Batch.objects.filter(action=OuterRef("pk"), pool=pool)
    return ChainAction.objects.filter(Q(pool=pool) | Exists(carries)).order_by("pk")


def refused() -> Q:
    """Return what picks the actions that the relay gave up before it signed them: parked ones, and those that ended of it."""
    ended = Q(kind__in=GIVEN_UP, status=ChainAction.Status.DROPPED, attempts__gte=settings.RELAY_MAX_ATTEMPTS)
    return Q(status=ChainAction.Status.PARKED) | ended


@transaction.atomic
def retry(*, action: ChainAction, now: datetime) -> ChainAction:
    """Plan a parked action again, after a person has mended why it was refused. Raises StateConflict.

    One that reverted, or whose nonce was used up by something else, is over; another takes its place. What is told as failed
    (`GIVEN_UP`) is asked for anew by whoever needs it.
    """
    action = ChainAction.objects.select_for_update(no_key=True).get(pk=action.pk)
    if action.status not in (ChainAction.Status.PARKED, ChainAction.Status.REVERTED):
        said = f"The chain action is {action.status}: only one that is parked or has reverted is planned again."
        raise StateConflict("chain action", action.status, said)
    if action.kind == ChainAction.Kind.SETTLE:
        raise StateConflict("chain action", action.status, "What a settlement carried goes with another by itself.")
    if action.kind in GIVEN_UP:
        said = "It was told as failed to whoever asked for it, who asks anew."
        raise StateConflict("chain action", action.status, said)
    if action.status == ChainAction.Status.REVERTED:
        return _follow_up(action)
    lifecycle.move(action, ChainAction.Status.PLANNED, attempts=0, next_at=now)
    transaction.on_commit(nudge, robust=True)
    return action


def follower(action: ChainAction) -> ChainAction | None:
    """Return what has taken the place of an action that reverted."""
    return ChainAction.objects.filter(dedupe_key=_next_key(action)).first()


def _follow_up(action: ChainAction) -> ChainAction:
    if follower(action) is not None:
        raise StateConflict("chain action", action.status, "Another has taken its place already.")
    return record(
        ChainAction.Kind(action.kind),
        dedupe_key=_next_key(action),
        pool=action.pool,
        subject_id=action.subject_id,
        params={name: value for name, value in action.params.items() if name not in ("bump", "cancel")},
        shard=action.shard,
    )


def _next_key(action: ChainAction) -> str:
    key, _, turn = action.dedupe_key.partition("#")
    return f"{key}#{int(turn or 0) + 1}"


def nudge() -> None:
    """Have the relay look now. A hint only: its sweep comes anyway, so a broker that is away costs a moment."""
    hints.send("escrow.relay_sweep", headers={trail.HEADER: trail.request_id()})


@contextmanager
def behind(tx_hash: str) -> Iterator[None]:
    """Have the log's lines inside name the chain action behind a chain transaction, and its request, if it is ours."""
    found = Attempt.objects.filter(tx_hash=tx_hash).values_list("action__request_id", "action_id").first()
    request, action = found or ("", None)
    with trail.follow(request, action=action):
        yield


@contextmanager
def exclusively(name: str) -> Iterator[bool]:
    """Hold PostgreSQL's advisory lock of a name over several database transactions; yield whether it was free.

    The lock belongs to this connection: it ends with it, however the process ends.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [name])
        row = cursor.fetchone()
    free = bool(row and row[0])
    try:
        yield free
    finally:
        if free:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [name])
