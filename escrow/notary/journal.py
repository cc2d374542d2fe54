"""What was signed, on a disk of the signing process's own: the database may be somebody else's by now, this is not.

Lives here: batches with their payments, and gas, each written and synced before its signature is given away. SQLite in one
file, append-only by triggers. It grows by about 26 bytes a payment and is kept for ever: what was signed once must not be
signed again, whenever. Not here: what may be signed (rules.py, batches.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HOUR: Final = 3_600
_CHUNK: Final = 500
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS batch (
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, pool_id BLOB NOT NULL, first_seq INTEGER NOT NULL,
    records INTEGER NOT NULL, deadline INTEGER NOT NULL, micros INTEGER NOT NULL, signed_at REAL NOT NULL,
    root BLOB NOT NULL DEFAULT x''
);
CREATE INDEX IF NOT EXISTS batch_when ON batch (signed_at);
CREATE TABLE IF NOT EXISTS payment (payment_id BLOB NOT NULL, batch INTEGER NOT NULL, PRIMARY KEY (payment_id, batch))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS gas (
    id INTEGER PRIMARY KEY, sender TEXT NOT NULL, nonce INTEGER NOT NULL, wei TEXT NOT NULL, signed_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS gas_when ON gas (signed_at);
"""
_GUARD: Final = """
CREATE TRIGGER IF NOT EXISTS {table}_{verb} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, 'the journal only grows'); END;
"""


@dataclass(frozen=True)
class Signed:
    """A batch that was signed: the sequence numbers that it takes in its pool, and until when the contract takes it."""

    pool_id: bytes
    first_seq: int
    records: int
    deadline: int
    root: bytes = b""
    """Of the payments in it; none of one that was written before roots were."""

    def excludes(self, other: Signed) -> bool:
        """Return whether at most one of the two can ever land: the contract refuses a sequence number that is taken."""
        return (
            self.pool_id == other.pool_id
            and self.first_seq < other.first_seq + other.records
            and other.first_seq < self.first_seq + self.records
        )


class Journal:
    """The journal in a file. One writer at a time: the desk asks under its own lock."""

    def __init__(self, path: Path | str) -> None:
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=5)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")  # on the disk before the signature is given away
        guards = (_GUARD.format(table=t, verb=v) for t in ("batch", "payment", "gas") for v in ("UPDATE", "DELETE"))
        self._database.executescript(_SCHEMA + "".join(guards))
        if "root" not in {column for _, column, *_ in self._database.execute("PRAGMA table_info(batch)")}:
            self._database.execute("ALTER TABLE batch ADD COLUMN root BLOB NOT NULL DEFAULT x''")

    def close(self) -> None:
        self._database.close()

    def knows(self, digest: bytes) -> bool:
        """Return whether this very batch was signed before."""
        return self._database.execute("SELECT 1 FROM batch WHERE digest = ?", (digest,)).fetchone() is not None

    def with_any_of(self, payments: Sequence[bytes]) -> list[Signed]:
        """Return every batch that was signed with one of these payments in it."""
        found: set[Signed] = set()
        for at in range(0, len(payments), _CHUNK):
            chunk = payments[at : at + _CHUNK]
            rows = self._database.execute(
                "SELECT DISTINCT b.pool_id, b.first_seq, b.records, b.deadline, b.root FROM payment p JOIN batch b"  # noqa: S608
                f" ON b.id = p.batch WHERE p.payment_id IN ({','.join('?' * len(chunk))})",
                chunk,
            )
            found.update(Signed(*row) for row in rows)
        return sorted(found, key=lambda batch: batch.deadline)

    def spent(self, *, now: float, besides: Signed) -> int:
        """Return the micro-USDC of the batches of the last hour, of those that exclude each other the largest alone.

        The batch that is about to be signed, and whatever it excludes, does not count.
        """
        rows = self._database.execute(
            "SELECT pool_id, first_seq, records, deadline, micros FROM batch WHERE signed_at > ?", (now - HOUR,)
        )
        largest: dict[tuple[bytes, int], int] = {}
        for *which, micros in rows:
            batch = Signed(*which)
            if not batch.excludes(besides):
                place = (batch.pool_id, batch.first_seq)
                largest[place] = max(largest.get(place, 0), micros)
        return sum(largest.values())

    def add_batch(self, digest: bytes, batch: Signed, micros: int, payments: Sequence[bytes], *, now: float) -> None:
        """Write a batch that is about to be signed; it is on the disk when this returns."""
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            row = (digest, batch.pool_id, batch.first_seq, batch.records, batch.deadline, micros, now, batch.root)
            made = self._database.execute(
                "INSERT INTO batch (digest, pool_id, first_seq, records, deadline, micros, signed_at, root)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            pairs = [(payment, made.lastrowid) for payment in payments]
            self._database.executemany("INSERT INTO payment VALUES (?, ?)", pairs)

    def gas(self, *, now: float, besides: tuple[str, int]) -> int:
        """Return the wei that the chain transactions of the last hour may cost; of one nonce the dearest counts, once."""
        rows = self._database.execute("SELECT sender, nonce, wei FROM gas WHERE signed_at > ?", (now - HOUR,))
        dearest: dict[tuple[str, int], int] = {}
        for sender, nonce, wei in rows:
            if (sender, nonce) != besides:
                dearest[sender, nonce] = max(dearest.get((sender, nonce), 0), int(wei))
        return sum(dearest.values())

    def add_gas(self, sender: str, nonce: int, wei: int, *, now: float) -> None:
        """Write a chain transaction that is about to be signed; it is on the disk when this returns."""
        # As text: 64 bits hold eighteen ether, and a limit is somebody's choice.
        self._database.execute(
            "INSERT INTO gas (sender, nonce, wei, signed_at) VALUES (?, ?, ?, ?)", (sender, nonce, str(wei), now)
        )
