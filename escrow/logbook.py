"""The logbook: every event of the contract, where it stands on the chain and how final it is. Lives here: keeping it true.

A log that stands in no block any more is forgotten; one that the ledger has taken is orphaned instead, until the same
deposit is mined again. The ledger takes what is final, with one exception: deposits, up to a bound over all pools together.
Not here: asking the chain (the indexer), what an event does (mirroring).
"""

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet, Sum, Value
from django.db.models.functions import Coalesce

from escrow import funding, intents
from escrow.chain import events as chain
from escrow.errors import EscrowError
from escrow.models import ChainLog, Pool

log = logging.getLogger(__name__)
Tier = ChainLog.Tier
NOT_FINAL: Final = (Tier.MINED, Tier.SAFE)
Place = tuple[str, int]
"""A block's hash and the index in it: what tells one log from every other."""


class Unexplained(Exception):
    """The chain tells something that our books have no room for."""


@dataclass(frozen=True)
class Told:
    """An event, with the time of its block."""

    event: chain.PoolEvent
    at: datetime

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self.event.place.block_hash, self.event.place.log_index

    @property
    def kind(self) -> str:
        """The contract's name of it."""
        return type(self.event).__name__

    @property
    def deposit_micros(self) -> int | None:
        """What it brings into a pool, if it is a deposit."""
        if isinstance(self.event, chain.PoolOpened):
            return self.event.deposit
        return self.event.amount if isinstance(self.event, chain.PoolToppedUp) else None


def write(told: Sequence[Told], *, first: int, last: int, now: datetime) -> dict[Place, ChainLog]:
    """Make the logbook say of a range of blocks what the chain says now; return its rows there, by place.

    The first thing in the caller's database transaction, because it locks the pools that it halts. Raises Unexplained when
    a log that was final is gone.
    """
    # A chain transaction is in one block: where its logs stood before, further up than what is read here, they are gone.
    elsewhere = Q(tx_hash__in={one.event.place.transaction_hash for one in told}, tier__in=NOT_FINAL)
    rows = {_place_of(row): row for row in _standing().filter(Q(block_number__range=(first, last)) | elsewhere)}
    here = {one.place for one in told}
    gone = [row for place, row in rows.items() if place not in here]
    taken = [row for row in gone if row.applied_at]
    moved = _moved([*taken, *_orphans()], [one for one in told if one.place not in rows])
    left = [row for row in taken if row.pk not in {row.pk for row in moved.values()}]
    for row in left:
        if row.tier == Tier.FINAL:
            raise Unexplained(f"{row} was final, and block {row.block_number} is no longer {row.block_hash}.")
    if left:
        funding.lock({row.pool_id for row in left if row.pool_id})
    ChainLog.objects.filter(pk__in=[row.pk for row in gone if not row.applied_at]).delete()
    # All of them leave their places before the first comes to another one, where the next may still stand.
    ChainLog.objects.filter(pk__in=[row.pk for row in taken]).update(orphaned_at=now)
    for row in left:
        with intents.behind(row.tx_hash):
            log.warning("%s has left the chain; %s is halted until it is back", row, row.pool)
        if row.pool and row.deposit_micros:
            funding.unbacked(row.pool, amount_micros=row.deposit_micros, ref=row.ref, now=now)
    for one in told:
        if one.place in moved:
            rows[one.place] = _stand(moved[one.place], one)
    made = ChainLog.objects.bulk_create(_rows_of([one for one in told if one.place not in rows]))
    return rows | {_place_of(row): row for row in made}


def untold(told: Sequence[Told], *, first: int, last: int) -> list[ChainLog]:
    """Return what stands in a range of blocks by the logbook, and is not among what is told of it now."""
    here = {one.place for one in told}
    return [row for row in _standing().filter(block_number__range=(first, last)) if _place_of(row) not in here]


def finish(rows: Iterable[ChainLog], *, now: datetime) -> None:
    """Say of rows that they are final and that the ledger has taken them."""
    final = ChainLog.objects.filter(pk__in=[row.pk for row in rows])
    final.update(tier=Tier.FINAL, applied_at=Coalesce("applied_at", Value(now)))


def mark_safe(*, up_to: int) -> None:
    """Say of what is mined up to a block that it is safe."""
    _standing().filter(tier=Tier.MINED, block_number__lte=up_to).update(tier=Tier.SAFE)


def take_early(*, now: datetime) -> int:
    """Let the ledger take deposits that are mined and not final, as far as the bound allows; return how many it took.

    One that is too large waits, and keeps no smaller one waiting. Each is a database transaction of its own.
    """
    taken = 0
    waiting = _standing().filter(tier__in=NOT_FINAL, applied_at=None, deposit_micros__isnull=False, pool__isnull=False)
    for row in waiting.select_related("pool").order_by("block_number", "log_index"):
        try:
            taken += _take_early(row, now)
        except EscrowError as error:
            with intents.behind(row.tx_hash):
                log.warning("%s waits until it is final: %s", row, error)
    return taken


@transaction.atomic
def _take_early(row: ChainLog, now: datetime) -> bool:
    pool, micros = row.pool, row.deposit_micros
    opens = row.event == chain.PoolOpened.__name__
    ready = (Pool.Status.OPENING, Pool.Status.FAILED) if opens else (Pool.Status.OPEN,)
    if pool is None or micros is None or pool.status not in ready:
        return False  # a top-up of a pool that is not open is taken in its turn
    if micros > settings.UNSAFE_DEPOSITS_MICROS - _early_micros():
        if ChainLog.objects.filter(pk=row.pk, waits_since=None).update(waits_since=now):
            funding.waits(pool, amount_micros=micros, ref=row.ref)
        return False
    if opens:
        funding.opened(pool, deposit_micros=micros, ref=row.ref, at=row.block_time or now)
    else:
        funding.topped_up(pool, amount_micros=micros, ref=row.ref)
    ChainLog.objects.filter(pk=row.pk).update(applied_at=now)
    return True


def _early_micros() -> int:
    """Return what the ledger has taken of deposits that are not final, wherever they stand now."""
    early = ChainLog.objects.filter(contract_address=settings.ESCROW_ADDRESS, tier__in=NOT_FINAL)
    return early.filter(applied_at__isnull=False).aggregate(s=Sum("deposit_micros"))["s"] or 0


def _standing() -> "QuerySet[ChainLog]":
    ours = ChainLog.objects.filter(contract_address=settings.ESCROW_ADDRESS, orphaned_at=None)
    return ours.select_related("pool")


def _orphans() -> "QuerySet[ChainLog]":
    ours = ChainLog.objects.filter(contract_address=settings.ESCROW_ADDRESS, orphaned_at__isnull=False)
    return ours.select_related("pool").order_by("pk")


def _moved(loose: Sequence[ChainLog], fresh: Sequence[Told]) -> dict[Place, ChainLog]:
    """Pair what has come with rows that have lost their place: the same log of the same chain transaction, or else the same
    deposit in another one. Which of two equal deposits is which makes no difference to anybody."""
    pairs: dict[Place, ChainLog] = {}
    for key_of_row, key_of_told in ((_log_of_row, _log_of_told), (_deposit_of_row, _deposit_of_told)):
        free = defaultdict[Hashable, list[ChainLog]](list)
        used = {row.pk for row in pairs.values()}
        for row in loose:
            if row.pk not in used:
                free[key_of_row(row)].append(row)
        for one in fresh:
            key = key_of_told(one)
            if key is not None and one.place not in pairs and free.get(key):
                pairs[one.place] = free[key].pop(0)
    return pairs


def _log_of_row(row: ChainLog) -> Hashable:
    return row.tx_hash, row.event, json.dumps(row.args, sort_keys=True)


def _log_of_told(one: Told) -> Hashable:
    return one.event.place.transaction_hash, one.kind, json.dumps(_plain(one.event), sort_keys=True)


def _deposit_of_row(row: ChainLog) -> Hashable:
    return row.event, row.args.get("pool_id"), row.deposit_micros


def _deposit_of_told(one: Told) -> Hashable:
    return None if one.deposit_micros is None else (one.kind, _plain(one.event)["pool_id"], one.deposit_micros)


def _stand(row: ChainLog, one: Told) -> ChainLog:
    """Let a row stand where its log stands now; a pool that this was the last to miss goes on."""
    place = one.event.place
    row.block_number, row.block_hash, row.block_time = place.block_number, place.block_hash, one.at
    row.tx_hash, row.log_index, row.orphaned_at = place.transaction_hash, place.log_index, None
    row.tier = Tier.FINAL if row.tier == Tier.FINAL else Tier.MINED
    row.save()
    if row.pool and row.deposit_micros and not _orphans().filter(pool=row.pool).exists():
        funding.backed(row.pool, amount_micros=row.deposit_micros, ref=f"{row.tx_hash}:{row.log_index}")
    return row


def _rows_of(told: Sequence[Told]) -> list[ChainLog]:
    keys = {one.place: f"0x{key.hex()}" for one in told if (key := getattr(one.event, "pool_id", None))}
    pools = {pool.pool_key: pool for pool in Pool.objects.filter(pool_key__in=set(keys.values()))}
    refs = {one.place: f"{one.event.place.transaction_hash}:{one.event.place.log_index}" for one in told}
    used = set(ChainLog.objects.filter(ref__in=refs.values()).values_list("ref", flat=True))
    return [
        ChainLog(
            contract_address=settings.ESCROW_ADDRESS,
            pool=pools.get(keys.get(one.place)),
            event=one.kind,
            args=_plain(one.event),
            block_number=one.event.place.block_number,
            block_hash=one.event.place.block_hash,
            block_time=one.at,
            tx_hash=one.event.place.transaction_hash,
            log_index=one.event.place.log_index,
            ref=refs[one.place] + (f":{one.event.place.block_hash[2:12]}" if refs[one.place] in used else ""),
            deposit_micros=one.deposit_micros,
        )
        for one in told
    ]


def _place_of(row: ChainLog) -> Place:
    return row.block_hash, row.log_index


def _plain(event: chain.PoolEvent) -> dict[str, Any]:
    """Return an event's own fields as JSON: bytes become hex."""

    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return f"0x{value.hex()}"
        if is_dataclass(value) and not isinstance(value, type):
            return _fields(value, plain)
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    return {name: value for name, value in _fields(event, plain).items() if name != "place"}


def _fields(value: Any, plain: Callable[[Any], Any]) -> dict[str, Any]:
    return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
