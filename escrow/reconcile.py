"""Reconcile: our books against the contract, account class by account class. Lives here: comparing. It never mends.

The ledger takes the chain's word up to the indexer's block, and deposits a little sooner; the contract can be asked as of any
block. Where the two stand at different blocks, the logs between them say by how much they must differ: those are in flight, and
each is named. Whatever differs beyond that has another cause, and a person must look.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from django.conf import settings

from escrow import books
from escrow.books import Books
from escrow.chain.client import Block, ChainClient
from escrow.chain.custody import Custody, Kept
from escrow.chain.effects import DISPUTED, FEES, FREE, added_up, effects, effects_of, line
from escrow.chain.errors import ChainUnavailable
from escrow.chain.events import PoolEvent
from escrow.findings import Cause, Difference, Report, stale

log = logging.getLogger(__name__)
At = Literal["latest", "safe", "final"]
TIERS: Final[tuple[At, ...]] = ("latest", "safe", "final")
MOST_CHUNKS: Final = 50
"""Of logs that the indexer has not read yet: farther behind than this, it is to be helped first."""
TURNS: Final = 3
"""How often a block that a reorganisation took away while it was read is followed by another."""
CONTRACT: Final = ("transfers", "contract")


def reconcile(*, client: ChainClient, now: datetime, pool_id: UUID | None = None, at: At = "final") -> Report:
    """Compare every pool (or one) with the contract as of its newest, safe or final block.

    Raises ChainUnavailable when the chain cannot be asked, or changes faster than it can be read.
    """
    begun = time.monotonic()
    found = books.read(pool_id)
    if found is None:
        return Report(
            at, 0, "", now, 0, 0, 0, alarms=["The indexer has not read the chain yet; is the worker running?"]
        )
    return compare(found, client=client, now=now, at=at, pool_id=pool_id, begun=begun)


def compare(
    found: Books, *, client: ChainClient, now: datetime, at: At, begun: float, pool_id: UUID | None = None
) -> Report:
    """Hold books, read since `begun` (monotonic), against the contract. Nothing is written, in no database transaction."""
    custody = Custody(client, settings.ESCROW_ADDRESS)
    for _ in range(TURNS):
        block = custody.tier(at, found.cursor.block_number)
        comparison = Comparison(found, custody, block, whole=pool_id is None)
        comparison.run()
        if custody.is_still(block):
            break
    else:
        raise ChainUnavailable("the chain was reorganised while it was read")
    liabilities: Counter[str] = Counter()
    for (name, _pool, _party), micros in found.owed.items():
        liabilities[name] += micros
    return Report(
        tier=at,
        block=block.number,
        block_hash=block.hash,
        read_at=found.cursor.read_at,
        pools=len(found.pools),
        compared=found.compared + comparison.compared,
        held_micros=comparison.held,
        liabilities={name: liabilities[name] for name in dict.fromkeys(books.CLASSES.values())},
        flying_micros=comparison.flown,
        others_micros=comparison.others,
        surplus_micros=comparison.surplus,
        differences=[*found.differences, *comparison.differences],
        in_flight=list(found.steps),
        alarms=[*found.alarms, *stale(found.cursor.read_at, now), *comparison.alarms],
        seconds=time.monotonic() - begun,
    )


class Comparison:
    """One set of books against the contract at one block, as it goes."""

    def __init__(self, found: Books, custody: Custody, block: Block, *, whole: bool) -> None:
        self.books = found
        self.custody = custody
        self.block = block
        self.whole = whole
        self.ids = {key: pool_id for pool_id, key in found.pools.items()}
        self.held = self.flown = self.others = self.surplus = 0
        self.compared = 0
        self.differences: list[Difference] = []
        self.alarms: list[str] = []
        # By pool, None for those of others: what the logs that only one side has are worth.
        self.flying: dict[UUID | None, Counter[str]] = {}
        self.strayed: dict[UUID | None, list[tuple[Cause, Mapping[str, int]]]] = {}

    def run(self) -> None:
        """Compare everything."""
        self._between()
        self._logs_read()
        self._pools()
        if self.whole:
            self._total()
            self._signers()

    def _differ(
        self,
        rule: str,
        pool: object,
        what: str,
        ours: int,
        other: int,
        cause: Cause,
        sources: tuple[str, str],
        detail: str = "",
    ) -> None:
        self.differences.append(Difference(rule, str(pool), what, ours, other, cause, sources, detail))

    # ------------------------------------------------------------------ logs that only one side has

    def _between(self) -> None:
        """Find the logs between the ledger's block and this one, and count them as in flight."""
        applied = {row.place for row in self.books.logs if not row.is_orphan}
        for event in self._unread():
            if (event.place.transaction_hash, event.place.log_index) in applied:
                continue
            pool_id = self._pool_of(event)
            if pool_id is None and not self.whole:
                continue
            change = effects_of(event)
            self._fly(
                pool_id, change, f"{type(event).__name__} in block {event.place.block_number}", "mined, not read yet"
            )
        for row in self.books.logs:
            if (
                not row.is_orphan
                and row.block_number > self.block.number
                and (self.whole or row.pool_id in self.books.pools)
            ):
                change = {name: -micros for name, micros in effects(row.event, row.args).items()}
                self._fly(row.pool_id, change, f"{row.event} in block {row.block_number}", "taken before it is final")

    def _pool_of(self, event: PoolEvent) -> UUID | None:
        """Return our id of an event's pool; None for one of no pool, or of a pool that is not compared."""
        return self.ids.get(f"0x{event.pool_id.hex()}") if hasattr(event, "pool_id") else None

    def _unread(self) -> Iterable[PoolEvent]:
        first, last, step = self.books.cursor.block_number + 1, self.block.number, settings.INDEX_BLOCK_RANGE
        if last - first >= MOST_CHUNKS * step:
            self.alarms.append(f"The indexer is {last - first + 1} blocks behind; compare again when it has caught up.")
            return
        for begin in range(first, last + 1, step):
            yield from self.custody.logs(begin, min(begin + step - 1, last))

    def _fly(self, pool_id: UUID | None, change: Mapping[str, int], what: str, detail: str) -> None:
        self.flying.setdefault(pool_id, Counter()).update(change)
        worth = max((abs(micros) for micros in change.values()), default=0)
        if worth:
            ours, theirs = (0, worth) if detail.startswith("mined") else (worth, 0)
            self._differ("R4", pool_id or "others", what, ours, theirs, Cause.IN_FLIGHT, ("ledger", "chain"), detail)

    def _logs_read(self) -> None:
        """Hold the logs that the indexer has read against the chain: all of the newest blocks, and a sample of the older."""
        last = self.books.cursor.block_number
        told = {
            (event.place.transaction_hash, event.place.log_index): event
            for event in self.custody.logs(self.books.recent_from, last)
        }
        hashes: dict[int, str] = {}
        for row in self.books.logs:
            self.compared += 1
            if row.is_orphan:
                self._stray(row.pool_id, Cause.UNBACKED, row.event, effects(row.event, row.args), "its block is gone")
                continue
            if row.block_number > last:
                continue
            event = told.pop(row.place, None)
            if event is not None and event.place.block_hash == row.block_hash:
                hashes[row.block_number] = row.block_hash  # the chain itself has just told it
            elif row.block_number not in hashes:
                hashes[row.block_number] = self.custody.hash_of(row.block_number)
            if hashes[row.block_number] != row.block_hash:
                self._stray(row.pool_id, Cause.REORGED, row.event, effects(row.event, row.args), row.block_hash)
            elif row.block_number >= self.books.recent_from and (
                event is None or effects_of(event) != effects(row.event, row.args)
            ):
                self._stray(row.pool_id, Cause.FOREIGN, row.event, effects(row.event, row.args), row.place[0])
        for event in told.values():
            pool_id = self._pool_of(event)
            if self.whole or pool_id is not None:
                place = event.place.transaction_hash
                self._stray(pool_id, Cause.MISSING_LOG, type(event).__name__, effects_of(event), place)
        here = self.custody.hash_of(last)
        if here != self.books.cursor.block_hash:
            self._differ("R4", "the indexer", "block hash", last, last, Cause.REORGED, ("cursor", "chain"), here)

    def _stray(self, pool_id: UUID | None, cause: Cause, event: str, change: Mapping[str, int], detail: str) -> None:
        sign = 1 if cause is Cause.MISSING_LOG else -1
        self.strayed.setdefault(pool_id, []).append((cause, {name: sign * micros for name, micros in change.items()}))
        worth = max((abs(micros) for micros in change.values()), default=0)
        ours, theirs = (0, worth) if cause is Cause.MISSING_LOG else (worth, 0)
        self._differ("R4", pool_id or "others", f"log {event}", ours, theirs, cause, ("logs read", "chain"), detail)

    # ------------------------------------------------------------------ balances

    def _pools(self) -> None:
        """Compare each pool's free and disputed money and each provider's line, by transfers, by logs and by the contract."""
        asked: dict[bytes, Sequence[str]] = {}
        for pool_id, key in self.books.pools.items():
            places = {*self._by_transfers(pool_id), *self.flying.get(pool_id, ()), *self.books.by_logs.get(pool_id, ())}
            asked[bytes.fromhex(key[2:])] = sorted(p.removeprefix("line ") for p in places if p.startswith("line "))
        kept = self.custody.kept(asked, self.block.number)
        for pool_id, key in self.books.pools.items():
            self._pool(pool_id, kept[bytes.fromhex(key[2:])], asked[bytes.fromhex(key[2:])])

    def _pool(self, pool_id: UUID, kept: Kept, providers: Sequence[str]) -> None:
        ours, told = self._by_transfers(pool_id), self.books.by_logs.get(pool_id, Counter())
        flying = self.flying.get(pool_id, Counter())
        here = {FREE: kept.free, DISPUTED: kept.disputed} | {
            line(provider): kept.lines.get(provider, 0) for provider in providers
        }
        if not self.whole:
            self.held += sum(here.values())
        for place, micros in here.items():
            self.compared += 2
            expected = ours[place] + flying[place]
            if expected != micros:
                cause = self._cause(pool_id, place, micros - expected)
                self._differ("R4", pool_id, place, expected, micros, cause, CONTRACT)
            if ours[place] != told[place]:
                self._differ("R4", pool_id, place, ours[place], told[place], Cause.BUG, ("transfers", "logs read"))

    def _by_transfers(self, pool_id: UUID) -> Counter[str]:
        return self.books.by_transfers.get(pool_id, Counter())

    def _cause(self, pool_id: UUID | None, place: str, missing: int) -> Cause:
        """Return the one cause whose logs are worth just what is missing of a place; without one it is a bug."""
        for cause in (Cause.UNBACKED, Cause.MISSING_LOG, Cause.REORGED, Cause.FOREIGN):
            changes = [change for found, change in self.strayed.get(pool_id, ()) if found is cause]
            if changes and added_up(changes)[place] == missing:
                return cause
        return Cause.BUG

    def _total(self) -> None:
        """Compare all that the contract keeps, and its fees; and the token's own balance with what it must keep."""
        whole = self.custody.whole(self.block.number)
        self.held = whole.usdc
        flying = added_up(self.flying.values())
        # Other people's pools are none of ours, but their fees are mirrored with ours.
        self.others = sum(micros for place, micros in self.books.by_logs.get(None, Counter()).items() if place != FEES)
        self.flown, self.surplus = sum(flying.values()), whole.usdc - whole.total_held
        expected = self.books.inside + self.others + self.flown
        kept = self.books.fees + flying[FEES]
        self.compared += 3
        if expected != whole.total_held:
            missing = whole.total_held - expected
            cause = next((c for c in self._strayed_causes() if self._strayed_total(c) == missing), Cause.BUG)
            self._differ("R5", "the contract", "total held", expected, whole.total_held, cause, CONTRACT)
        if kept != whole.fees:
            self._differ("R5", "the contract", "fees", kept, whole.fees, Cause.BUG, CONTRACT)
        if whole.usdc != whole.total_held or not whole.solvent:
            cause = Cause.DONATED if whole.usdc > whole.total_held and whole.solvent else Cause.BUG
            sources = ("total held", "balance of USDC")
            self._differ("R5", "the contract", "USDC", whole.total_held, whole.usdc, cause, sources)

    def _strayed_causes(self) -> list[Cause]:
        return list(dict.fromkeys(cause for found in self.strayed.values() for cause, _ in found))

    def _strayed_total(self, cause: Cause) -> int:
        return sum(sum(c.values()) for found in self.strayed.values() for which, c in found if which is cause)

    # ------------------------------------------------------------------ signers

    def _signers(self) -> None:
        """Hold the chain's count of each signer's nonces against ours; a nonce that none of ours has used is foreign."""
        head = self.custody.latest()
        for address, (first, upcoming) in self.books.signers.items():
            self.compared += 1
            used = self.custody.nonce(address, head)
            if used > upcoming:
                self._differ(
                    *("R7", f"signer {address}", "nonces", upcoming, used, Cause.FOREIGN, ("nonces counted", "chain")),
                    f"the key was used elsewhere; ours begin at {first}",
                )
            for flight in self.books.flights:
                if flight.address != address or flight.nonce >= used or any(map(self.custody.has_mined, flight.hashes)):
                    continue
                detail, sources = "mined under a hash that is none of ours", ("attempts", "chain")
                self._differ("R7", f"signer {address}", f"nonce {flight.nonce}", 0, 1, Cause.FOREIGN, sources, detail)
