"""The indexer: what the contract has told becomes the ledger. Lives here: reading logs in order, once each, and their effects.

It reads only blocks that enough others stand on (CONFIRMATIONS), and stops with a reason, for a person to look, when the
chain has forgotten a block that it read, or tells of a batch that we did not sign. It never guesses.
"""

import dataclasses
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import singledispatch
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from escrow import disputes, events, intents, ledger, lifecycle, money, payouts, pools
from escrow.chain import events as chain
from escrow.chain.client import Block, ChainClient
from escrow.chain.errors import ChainUnavailable
from escrow.errors import EscrowError
from escrow.ledger import Move
from escrow.models import Account, Batch, ChainCursor, ChainLog, Party, Payment, Pool, Reason

log = logging.getLogger(__name__)


class Unexplained(Exception):
    """The chain tells something that our books have no room for."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an event stands: the reference for its transfers, and its block's time."""

    ref: str
    at: datetime


def index(*, client: ChainClient, now: datetime) -> int:
    """Apply every new log of the contract; return how many blocks were read. Another indexer at work: none."""
    with intents.exclusively(f"escrow.indexer:{settings.CHAIN_ID}:{settings.ESCROW_ADDRESS}") as free:
        if not free:
            return 0
        try:
            return _advance(client, now)
        except ChainUnavailable as error:
            log.warning("The chain cannot be reached; the indexer tries again: %s", error)
            return 0


def _advance(client: ChainClient, now: datetime) -> int:
    head = client.block("latest")
    cursor = _cursor(client, now)
    if head is None or cursor is None or cursor.stopped_reason:
        return 0
    confirmed = head.number - settings.CONFIRMATIONS + 1
    read = 0
    while cursor.block_number < confirmed:
        last = min(confirmed, cursor.block_number + settings.INDEX_BLOCK_RANGE)
        try:
            _read_twice(client, cursor, last, now)
        except Unexplained as error:
            log.critical("The indexer is stopped: %s", error)
            ChainCursor.objects.filter(pk=cursor.pk).update(stopped_reason=str(error))
            return read
        read += last - cursor.block_number
        cursor.refresh_from_db()
    ChainCursor.objects.filter(pk=cursor.pk).update(read_at=now)
    return read


def _read_twice(client: ChainClient, cursor: ChainCursor, last: int, now: datetime) -> None:
    """Read, and once more when something was unexplained: a row may have moved meanwhile, or a node answered late."""
    try:
        _read(client, cursor, last, now)
    except Unexplained as error:
        log.warning("The indexer reads blocks up to %s again: %s", last, error)
        _read(client, cursor, last, now)


def _read(client: ChainClient, cursor: ChainCursor, last: int, now: datetime) -> None:
    """Apply the logs of the blocks after the cursor up to one, and move the cursor, in one database transaction."""
    known = client.block(cursor.block_number)
    if known is None:
        raise ChainUnavailable(f"the node has no block {cursor.block_number} yet")
    if known.hash != cursor.block_hash:
        raise Unexplained(f"Block {cursor.block_number} is no longer {cursor.block_hash}: the chain was reorganised.")
    told = client.logs(settings.ESCROW_ADDRESS, cursor.block_number + 1, last)
    end = client.block(last)
    if end is None:
        raise ChainUnavailable(f"the node has lost block {last}")
    times = {number: _block(client, number) for number in {event.place.block_number for event in told}}
    for event in told:
        if times[event.place.block_number].hash != event.place.block_hash:
            raise ChainUnavailable(f"block {event.place.block_number} changed while it was read")
    with transaction.atomic():
        for event in sorted(told, key=lambda one: one.place):
            try:
                _apply_once(event, _time(times[event.place.block_number]))
            except (EscrowError, IntegrityError) as error:
                raise Unexplained(f"{type(event).__name__} in {event.place.transaction_hash}: {error}") from error
        ChainCursor.objects.filter(pk=cursor.pk).update(
            block_number=end.number, block_hash=end.hash, block_time=_time(end), read_at=now
        )


def _apply_once(event: chain.PoolEvent, at: datetime) -> None:
    place = event.place
    key = getattr(event, "pool_id", None)
    pool = Pool.objects.filter(pool_key=f"0x{key.hex()}").first() if key else None
    _, fresh = ChainLog.objects.get_or_create(
        tx_hash=place.transaction_hash,
        log_index=place.log_index,
        defaults={
            "pool": pool,
            "event": type(event).__name__,
            "args": _plain(event),
            "block_number": place.block_number,
            "block_hash": place.block_hash,
        },
    )
    if not fresh:
        return
    where = Place(ref=f"{place.transaction_hash}:{place.log_index}", at=at)
    if isinstance(event, chain.FeesWithdrawn):
        payouts.fees_withdrawn(amount_micros=event.amount, ref=where.ref)
    elif pool is not None:
        _apply(event, pool, where)
    elif isinstance(event, chain.Withdrawn):
        # A pool that others opened on the same contract is none of ours, but its fees join ours there.
        payouts.foreign_fee(fee_micros=event.fee, ref=where.ref)


@singledispatch
def _apply(event: chain.PoolEvent, pool: Pool, where: Place) -> None:
    raise Unexplained(f"{type(event).__name__} is an event that nothing here knows.")


@_apply.register
def _(event: chain.PoolOpened, pool: Pool, where: Place) -> None:
    pools.opened(pool, deposit_micros=event.deposit, ref=where.ref, at=where.at)


@_apply.register
def _(event: chain.PoolToppedUp, pool: Pool, where: Place) -> None:
    pools.topped_up(pool, amount_micros=event.amount, ref=where.ref)


@_apply.register
def _(event: chain.ProvidersAllowed, pool: Pool, where: Place) -> None:
    pools.providers_allowed(pool, addresses=event.providers, at=where.at)


@_apply.register
def _(event: chain.Credited, pool: Pool, where: Place) -> None:
    """The batch's own event follows and names them all."""


@_apply.register(chain.ItemRejected)
@_apply.register(chain.WithdrawalRejected)
def _(event: chain.PoolEvent, pool: Pool, where: Place) -> None:
    """Nothing happened: whoever sent it asks again."""


@_apply.register
def _(event: chain.BatchSettled, pool: Pool, where: Place) -> None:
    batch = Batch.objects.select_related("account", "pool").filter(pool=pool, first_seq=event.first_seq).first()
    if batch is None or batch.root != f"0x{event.root.hex()}" or batch.status != Batch.Status.SIGNED:
        raise Unexplained(f"Batch {event.first_seq} of {pool} settled on chain, and is not one that we wait for.")
    if (batch.records.count(), _total(batch)) != (event.count, event.total):
        raise Unexplained(f"{batch} settled on chain with other records than ours.")
    _credit(batch, where)


@_apply.register
def _(event: chain.Withdrawn, pool: Pool, where: Place) -> None:
    payouts.withdrawn(pool, _party(event.provider), net_micros=event.net, fee_micros=event.fee, ref=where.ref)


@_apply.register
def _(event: chain.CloseRequested, pool: Pool, where: Place) -> None:
    reclaimable_at = datetime.fromtimestamp(event.reclaimable_at, UTC)
    pools.close_requested(pool, reclaimable_at=reclaimable_at, at=where.at)


@_apply.register
def _(event: chain.Reclaimed, pool: Pool, where: Place) -> None:
    pools.reclaimed(pool, amount_micros=event.amount, ref=where.ref, at=where.at)


@_apply.register
def _(event: chain.Disputed, pool: Pool, where: Place) -> None:
    reference = f"0x{event.ref.hex()}"
    party = _party(event.provider)
    disputes.disputed(pool, party, reference=reference, amount_micros=event.amount, ref=where.ref, at=where.at)


@_apply.register
def _(event: chain.DisputeResolved, pool: Pool, where: Place) -> None:
    disputes.resolved(
        pool,
        _party(event.provider),
        reference=f"0x{event.ref.hex()}",
        to_provider=event.to_provider,
        to_payer=event.to_payer,
        by_timeout=event.by_timeout,
        ref=where.ref,
        at=where.at,
    )


def _total(batch: Batch) -> int:
    return sum(record.amount_micros for record in batch.records.all())


def _credit(batch: Batch, where: Place) -> None:
    records = list(batch.records.select_related("party").order_by("party_id"))
    owed: dict[Party, int] = {}
    for record in records:
        owed[record.party] = owed.get(record.party, 0) + record.amount_micros
    accounts: dict[Party, Account] = {party: ledger.credited(batch.pool, party) for party in owed}
    lifecycle.move(batch, Batch.Status.SETTLED, settled_at=where.at)
    settling = Payment.objects.filter(record__batch=batch)
    lifecycle.move_all(settling, frm=Payment.Status.SETTLING, to=Payment.Status.SETTLED)
    ledger.post(
        [Move(batch.account, accounts[party], micros, Reason.CREDIT, where.ref) for party, micros in owed.items()]
    )
    for party, micros in owed.items():
        payload = {"pool_id": str(batch.pool_id), "amount": money.render(micros), "tx": where.ref.partition(":")[0]}
        events.record(type="batch.settled", subject_type="batch", subject_id=batch.pk, payload=payload, party=party)
    total = {
        "pool_id": str(batch.pool_id),
        "amount": money.render(sum(owed.values())),
        "tx": where.ref.partition(":")[0],
    }
    events.record(type="batch.settled", subject_type="batch", subject_id=batch.pk, payload=total, pool=batch.pool)


def _cursor(client: ChainClient, now: datetime) -> ChainCursor | None:
    start = max(settings.ESCROW_START_BLOCK - 1, 0)
    cursor = ChainCursor.objects.filter(chain_id=settings.CHAIN_ID, contract_address=settings.ESCROW_ADDRESS).first()
    if cursor is not None:
        return cursor
    first = _block(client, start)
    return ChainCursor.objects.create(
        chain_id=settings.CHAIN_ID,
        contract_address=settings.ESCROW_ADDRESS,
        block_number=first.number,
        block_hash=first.hash,
        block_time=_time(first),
        read_at=now,
    )


def _block(client: ChainClient, number: int) -> Block:
    block = client.block(number)
    if block is None:
        raise ChainUnavailable(f"the node has no block {number}")
    return block


def _time(block: Block) -> datetime:
    return datetime.fromtimestamp(block.timestamp, UTC)


def _party(address: str) -> Party:
    party = Party.objects.filter(address=address).first()
    if party is None:
        raise Unexplained(f"{address} is no party that we know.")
    return party


def _plain(event: chain.PoolEvent) -> dict[str, Any]:
    """Return an event's own fields as JSON: bytes become hex."""

    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return f"0x{value.hex()}"
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return _fields(value, plain)
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    return {name: value for name, value in _fields(event, plain).items() if name != "place"}


def _fields(value: Any, plain: Callable[[Any], Any]) -> dict[str, Any]:
    return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
