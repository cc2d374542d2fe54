"""The indexer: the contract's logs, read in chain order and bounded steps. Lives here: how far, from which block, how final.

Two readings. What is final goes into the ledger, each log once, in chunks that are one database transaction each, with the
cursor; two nodes must agree on it where two are named. What is mined and not final goes into the logbook alone, and is read
again when its block is gone. It stops with a reason, for a person to look, when a block that was final is gone, or when the
chain tells what our books have no room for. It never guesses.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import IntegrityError, transaction

from escrow import crashpoints, intents, logbook, mirroring
from escrow.chain.client import Block, ChainClient, Receipt, Tiers
from escrow.chain.errors import ChainError, ChainRefused, ChainUnavailable, ChainUnconfirmed
from escrow.chain.events import PoolEvent
from escrow.errors import EscrowError
from escrow.logbook import Told, Unexplained
from escrow.models import ChainCursor, Pool

log = logging.getLogger(__name__)
Reader = Callable[[str, int, int], list[PoolEvent]]
Seen = Callable[[int], Block | None]
Found = Callable[[str], Receipt | None]

MAX_LOGS: Final = 200
"""In a chunk: each block with logs is asked for by itself, and a chunk must end long before a worker's time does."""


def index(*, client: ChainClient, now: datetime) -> int:
    """Read on, as far as one sweep may; return how many final blocks were read. Another indexer at work: none."""
    with intents.exclusively(f"escrow.indexer:{settings.CHAIN_ID}:{settings.ESCROW_ADDRESS}") as free:
        if not free:
            return 0
        try:
            return _Sweep(client, now).run()
        except ChainError as error:
            log.warning("The chain cannot be read; the indexer tries again: %s", error)
            return 0


@dataclass(frozen=True)
class _Chunk:
    """Blocks that were read at once: from one number up to a block, and what they tell, in chain order."""

    first: int
    end: Block
    told: list[Told]


class _Sweep:
    """One reading, from where the last one ended. It starts no chunk once its time is over."""

    def __init__(self, client: ChainClient, now: datetime) -> None:
        self._client = client
        self._now = now
        self._over_at = time.monotonic() + settings.INDEX_SECONDS

    def run(self) -> int:
        cursor = self._cursor()
        if cursor.stopped_reason:
            return 0
        try:
            tiers = self._client.agreed_tiers()
        except ChainUnconfirmed:  # what is final waits for a second node, and the chain goes on all the same
            _note(cursor, head_time=_time(self._client.tiers().latest))
            raise
        start = cursor.block_number
        try:
            if self._read_final(cursor, tiers):
                self._read_head(cursor, tiers)
        except Unexplained as error:
            log.critical("The indexer is stopped: %s", error)
            _note(cursor, stopped_reason=str(error))
        except SoftTimeLimitExceeded:
            # Of a node so slow that a chunk takes longer than a worker has: fewer blocks the next time.
            _note(cursor, span=max((cursor.span or settings.INDEX_BLOCK_RANGE) // 2, 1))
            raise
        else:
            _note(cursor, read_at=self._now, head_time=_time(tiers.latest))
        return cursor.block_number - start

    # --- what is final -----------------------------------------------------------------------------------------------
    def _read_final(self, cursor: ChainCursor, tiers: Tiers) -> bool:
        """Read up to the newest final block; return whether it was reached."""
        final = tiers.final
        if final.number == cursor.block_number and final.hash != cursor.block_hash:
            self._require_unforgotten(cursor)
        begun = cursor.block_number
        while cursor.block_number < final.number:
            if cursor.block_number > begun and time.monotonic() >= self._over_at:
                log.info("The indexer is at block %s of %s, and reads on", cursor.block_number, final.number)
                return False
            self._read_twice(cursor, final.number)
        return cursor.block_number == final.number

    def _read_twice(self, cursor: ChainCursor, final: int) -> None:
        """Read, and once more when something was unexplained: a row may have moved meanwhile, or a node answered late."""
        try:
            self._read_chunk(cursor, final)
        except Unexplained as error:
            log.warning("The indexer reads the blocks after %s again: %s", cursor.block_number, error)
            self._read_chunk(cursor, final)

    def _read_chunk(self, cursor: ChainCursor, final: int) -> None:
        """Let the ledger take the logs of some blocks after the cursor, and move the cursor, in one database transaction."""
        self._require_unforgotten(cursor)
        chunk = self._ask(cursor, cursor.block_number + 1, final, self._client.agreed_logs, self._client.agreed_block)
        self._require_whole(chunk, self._client.agreed_receipt)
        try:
            with transaction.atomic():
                self._take(chunk)
                _note(
                    cursor,
                    block_number=chunk.end.number,
                    block_hash=chunk.end.hash,
                    block_time=_time(chunk.end),
                    read_at=self._now,
                )
                crashpoints.reach("index.read")
        except Exception:
            cursor.refresh_from_db()  # what was noted on it did not come to be
            raise
        crashpoints.reach("index.committed")

    def _take(self, chunk: _Chunk) -> None:
        rows = logbook.write(chunk.told, first=chunk.first, last=chunk.end.number, now=self._now)
        for one in chunk.told:
            row = rows[one.place]
            if row.applied_at:
                continue  # a deposit that was taken when it was mined, or a range that was read before
            # Fresh for each: the events of one pool build on each other.
            pool = Pool.objects.get(pk=row.pool_id) if row.pool_id else None
            try:
                mirroring.mirror(one.event, pool, mirroring.Place(ref=row.ref, at=one.at))
            except (EscrowError, IntegrityError) as error:
                raise Unexplained(f"{one.kind} in {row.tx_hash}: {error}") from error
        logbook.finish((rows[one.place] for one in chunk.told), now=self._now)

    def _require_unforgotten(self, cursor: ChainCursor) -> None:
        known = self._client.agreed_block(cursor.block_number)
        if known is None:
            raise ChainUnavailable(f"the node has no block {cursor.block_number} yet")
        if known.hash != cursor.block_hash:
            raise Unexplained(
                f"Block {cursor.block_number} is no longer {cursor.block_hash}: the chain was reorganised."
            )

    # --- what is mined -----------------------------------------------------------------------------------------------
    def _read_head(self, cursor: ChainCursor, tiers: Tiers) -> None:
        """Read what stands on the final block: only what is new, and all of it when the newest block of before is gone."""
        latest = tiers.latest
        if latest.number <= cursor.block_number:
            return
        while cursor.head_hash != latest.hash:
            known = cursor.head_number > cursor.block_number and self._stands(cursor)
            first = (cursor.head_number if known else cursor.block_number) + 1
            if first > latest.number:
                break  # the chain went on while this read
            chunk = self._ask(cursor, first, latest.number, self._client.logs, self._client.block)
            self._require_whole(chunk, self._client.receipt)
            if known and not self._stands(cursor):
                raise ChainUnavailable(f"block {cursor.head_number} changed while it was read")
            with transaction.atomic():
                logbook.write(chunk.told, first=chunk.first, last=chunk.end.number, now=self._now)
                _note(cursor, head_number=chunk.end.number, head_hash=chunk.end.hash)
                crashpoints.reach("index.read")
            crashpoints.reach("index.committed")
            if chunk.end.number >= latest.number or time.monotonic() >= self._over_at:
                break
        logbook.mark_safe(up_to=tiers.safe.number)
        logbook.take_early(now=self._now)

    def _stands(self, cursor: ChainCursor) -> bool:
        known = self._client.block(cursor.head_number)
        return known is not None and known.hash == cursor.head_hash

    # --- asking ------------------------------------------------------------------------------------------------------
    def _ask(self, cursor: ChainCursor, first: int, last: int, logs: Reader, seen: Seen) -> _Chunk:
        """Ask for the logs of as many blocks as the node gives at once, and for each block that has some, by its hash.

        The last block is asked for before and after all others: so they are all of one chain.
        """
        while True:
            span = min(cursor.span or settings.INDEX_BLOCK_RANGE, settings.INDEX_BLOCK_RANGE)
            last_asked = min(last, first + span - 1)
            end = _there(seen(last_asked), last_asked)
            try:
                found = logs(settings.ESCROW_ADDRESS, first, last_asked)
                break
            except ChainError as error:
                # Too many blocks at once, perhaps: fewer the next time, which is now if the node itself said no.
                _note(cursor, span=max(min(span, last_asked - first + 1) // 2, 1))
                if not isinstance(error, ChainRefused) or last_asked == first:
                    raise
                log.warning("The node refused %s blocks at once, and is asked for fewer: %s", span, error)
        if span < settings.INDEX_BLOCK_RANGE:
            _note(cursor, span=span + span // 4 + 1)
        found, short = _cut(found)
        told = self._dated(found)
        block = end if short is None else _there(seen(short), short)
        if _there(seen(last_asked), last_asked).hash != end.hash:
            raise ChainUnavailable(f"block {last_asked} changed while it was read")
        return _Chunk(first, block, told)

    @staticmethod
    def _require_whole(chunk: _Chunk, found: Found) -> None:
        """Hold what is told against what was told before. Raises ChainUnavailable when a log is missing that is still there.

        A node that has lost its index of logs finds none, and calls that an answer. A receipt is in no such index, and says
        too whether the log was ever there.
        """
        for row in logbook.untold(chunk.told, first=chunk.first, last=chunk.end.number):
            receipt = found(row.tx_hash)
            events = receipt.events if receipt is not None and receipt.block_hash == row.block_hash else ()
            if any(event.place.log_index == row.log_index for event in events):
                raise ChainUnavailable(
                    f"the logs up to block {chunk.end.number} are without {row}, which is still there"
                )

    def _dated(self, found: list[PoolEvent]) -> list[Told]:
        blocks: dict[int, Block] = {}
        for event in found:
            number = event.place.block_number
            if number not in blocks:
                blocks[number] = _there(self._client.block(number), number)
            if blocks[number].hash != event.place.block_hash:
                raise ChainUnavailable(f"block {number} changed while it was read")
        return [Told(event, _time(blocks[event.place.block_number])) for event in found]

    def _cursor(self) -> ChainCursor:
        chain = {"chain_id": settings.CHAIN_ID, "contract_address": settings.ESCROW_ADDRESS}
        cursor = ChainCursor.objects.filter(**chain).first()
        if cursor is not None:
            return cursor
        start = max(settings.ESCROW_START_BLOCK - 1, 0)
        first = _there(self._client.block(start), start)
        begun = {"block_number": first.number, "block_hash": first.hash, "block_time": _time(first)}
        return ChainCursor.objects.create(**chain, **begun, read_at=self._now)


def _cut(found: list[PoolEvent]) -> tuple[list[PoolEvent], int | None]:
    """Return as many events as a chunk may have, and the block that it ends with then; a block is never cut."""
    found = sorted(found, key=lambda event: event.place)
    if len(found) <= MAX_LOGS:
        return found, None
    end = max(found[0].place.block_number, found[MAX_LOGS].place.block_number - 1)
    return [event for event in found if event.place.block_number <= end], end


def _note(cursor: ChainCursor, **changes: object) -> None:
    ChainCursor.objects.filter(pk=cursor.pk).update(**changes)
    for name, value in changes.items():
        setattr(cursor, name, value)


def _there(block: Block | None, number: int) -> Block:
    if block is None:
        raise ChainUnavailable(f"the node has no block {number}")
    return block


def _time(block: Block) -> datetime:
    return datetime.fromtimestamp(block.timestamp, UTC)
