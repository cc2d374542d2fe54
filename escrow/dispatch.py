"""Dispatch: which signed batches travel together. Lives here: putting them into chain actions, and taking out what is refused.

The rows say what is due: a batch that is signed and that no chain action carries waits for one. A batch that the contract
refuses leaves its action alone and tries again with fewer others each time; nobody else's batch waits for it.
"""

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from django.conf import settings
from django.db import transaction

from escrow import crashpoints, intents, receipts
from escrow.chain.abi import error_codec
from escrow.chain.errors import ChainReverted
from escrow.chain.events import BatchSettled, ItemRejected
from escrow.models import Batch, ChainAction

if TYPE_CHECKING:  # the web, whose pages know this room, loads no client of the chain
    from escrow.chain.client import ChainClient, Receipt

log = logging.getLogger(__name__)
Kind = ChainAction.Kind

MAX_TURNS: Final = 6
"""Refusals after which a batch waits for its deadline: then its debts are payable again, and go into another."""
LANDING_TIME: Final = timedelta(seconds=30)
"""A batch that has less left is not sent any more: it would land too late."""
WAIT_FOR_OTHERS: Final = timedelta(seconds=1)
MAX_WAIT: Final = timedelta(minutes=5)
GROUP_GAS: Final = 12_000_000
"""Below the cap of a chain transaction with room for the margin on the estimate."""
GAS_OF_BATCH, GAS_OF_PROVIDER, GAS_OF_RECORD = 90_000, 26_000, 1_000
"""More than a batch costs at its dearest, when all its storage is new (docs/GAS.md)."""
MAKES_WAY: Final = (Kind.OPEN_POOL, Kind.TOP_UP, Kind.ALLOW_PROVIDERS)
"""A batch may be refused only because one of these of its pool is not mined yet."""


def dispatch_due(*, now: datetime, limit: int) -> int:
    """Plan a chain action for each group of signed batches that none carries; return how many actions were planned."""
    planned = _plan(now, limit)
    crashpoints.reach("dispatch.committed")
    return planned


@transaction.atomic
def _plan(now: datetime, limit: int) -> int:
    waiting = Batch.objects.filter(
        status=Batch.Status.SIGNED, action=None, next_at__lte=now, deadline__gt=now + LANDING_TIME
    )
    rows = waiting.select_related("pool").select_for_update(skip_locked=True, of=("self",), no_key=True)
    groups = _groups(rows.order_by("created_at")[:limit])
    for group in groups:
        first = group[0]
        action = intents.record(
            Kind.SETTLE,
            # Its rows, locked here, keep a batch out of two actions; one that waits again keeps its turns, and needs another.
            dedupe_key=f"settle:{first.pk}:{uuid4()}",
            pool=first.pool if len(group) == 1 else None,
            shard=intents.shard_of(first.pool),
        )
        Batch.objects.filter(pk__in=[batch.pk for batch in group]).update(action=action)
    return len(groups)


def _groups(batches: Iterable[Batch]) -> list[list[Batch]]:
    """Return groups that one chain transaction can carry: of one relayer, and small enough in gas and in number."""
    groups: list[list[Batch]] = []
    for batch in sorted(batches, key=lambda one: (intents.shard_of(one.pool), one.turns, gas_of(one))):
        if groups and _fits(batch, groups[-1]):
            groups[-1].append(batch)
        else:
            groups.append([batch])
    return groups


def _fits(batch: Batch, group: Sequence[Batch]) -> bool:
    """Each item of `settleMany` gets an equal share of the gas, and one share is kept: the dearest decides."""
    # Sorted by gas, a batch is the dearest of the group that it joins.
    same = intents.shard_of(batch.pool) == intents.shard_of(group[0].pool) and batch.turns == group[0].turns
    fewer = max(1, settings.SETTLE_MAX_GROUP >> batch.turns)
    return same and len(group) < fewer and (len(group) + 2) * gas_of(batch) <= GROUP_GAS


def gas_of(batch: Batch) -> int:
    """Return more than the gas that a batch may need."""
    packed = bytes(batch.packed)
    providers = packed[4]
    records = (len(packed) - 5 - 20 * providers) // 6
    return GAS_OF_BATCH + GAS_OF_PROVIDER * providers + GAS_OF_RECORD * records


def leave_out_refused(action: ChainAction, *, client: "ChainClient", sender: str, now: datetime) -> None:
    """Ask the contract about each batch of an action that is not signed yet; those that it refuses leave the action."""
    for batch in carried(action):
        try:
            client.call(settings.ESCROW_ADDRESS, receipts.calldata(batch), from_=sender)
        except ChainReverted as error:
            turn_down(batch, str(error), now=now)


def landed(action: ChainAction, receipt: "Receipt", *, now: datetime) -> None:
    """Turn down the batches that an action has carried to the chain for good and that the contract left out."""
    there = {(event.pool_id, event.first_seq) for event in receipt.events if isinstance(event, BatchSettled)}
    why = {event.pool_id: event.reason for event in receipt.events if isinstance(event, ItemRejected)}
    for batch in carried(action):
        if (batch.pool.key, batch.first_seq) not in there:
            turn_down(batch, _told(why.get(batch.pool.key, b"")), now=now)


def release(action: ChainAction, reason: str, *, now: datetime) -> None:
    """Let the batches of an action that will not land them wait for another, which fewer of them share."""
    for batch in carried(action):
        turn_down(batch, reason, now=now)


def carried(action: ChainAction) -> list[Batch]:
    """Return the batches of an action that have yet to land, the dearest last: so it cannot starve the others of gas."""
    waiting = action.batches.filter(status=Batch.Status.SIGNED).select_related("pool")
    return sorted(waiting, key=lambda batch: (gas_of(batch), batch.pk))


def turn_down(batch: Batch, reason: str, *, now: datetime) -> None:
    """Note that the contract refused a batch, and when it goes again: after a while, and in the end not at all."""
    turns, wait = batch.turns + 1, min(timedelta(seconds=2 ** max(batch.turns - 1, 0)), MAX_WAIT)
    if _way_is_being_made(batch):
        turns, wait = batch.turns, WAIT_FOR_OTHERS
    elif batch.turns == 0:
        wait = timedelta()
    if turns >= MAX_TURNS:
        log.error("%s is parked until its deadline: %s", batch, reason)
    again_at = batch.deadline if turns >= MAX_TURNS else now + wait
    rows = Batch.objects.filter(pk=batch.pk, status=Batch.Status.SIGNED)
    rows.update(action=None, turns=turns, next_at=again_at, reason=reason)


def _told(reason: bytes) -> str:
    """Return revert data in words."""
    try:
        decoded = error_codec().error(reason) if reason else None
    except ValueError:
        decoded = None
    return str(ChainReverted(*(decoded or ("", {})), detail="The contract left it out."))


def _way_is_being_made(batch: Batch) -> bool:
    live = ChainAction.objects.filter(status__in=ChainAction.WAITING)
    return live.filter(pool=batch.pool_id, kind__in=MAKES_WAY).exists()
