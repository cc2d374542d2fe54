"""`python -m benchmarks.seed --payments 10000000`: fill a database with payments in bulk, as three months would have left it.

The rows are those that the product itself would have written, made by sets: payments, both sides of each in the ledger, the
events told, pools, sessions, batches. For speed the triggers are off meanwhile (`session_replication_role`) and the plain
indexes are made afterwards, all in one database transaction; each account's sums are computed from its transfers, and
`faults` checks the books as a whole. Seeded pools were on an earlier contract and are paid out, so the chain owes them
nothing. A part can be put into sessions that are open now, as debts that no batch has taken yet.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import ClientCursor, Cursor

from benchmarks import seed_rows as rows

TABLES: Final = ("escrow_payment", "escrow_transfer", "escrow_event")
CHUNK: Final = 500_000
LOCAL_CHAIN: Final = 31337
Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """How many rows, and spread over what."""

    payments: int = 10_000_000
    pools: int = 1_000
    parties: int = 50
    days: int = 90
    micros: int = 1_000
    live_share: float = 0.0
    """The part that goes to open sessions, one micro-USDC each."""


def fill(database_url: str, wanted: Wanted, live_sessions: Sequence[UUID], say: Say) -> None:
    """Make the rows. Raises ValueError when the open sessions do not have enough money for their part."""
    begun = time.monotonic()

    def told(text: str) -> None:
        say(f"{time.monotonic() - begun:6.1f} s  {text}")

    with psycopg.connect(database_url, cursor_factory=ClientCursor) as connection:
        with connection.transaction(), connection.cursor() as cursor:
            _prepare(cursor)
            with _without_indexes(cursor, told):
                _rows(cursor, wanted, live_sessions, told)
        connection.autocommit = True
        for table in (*TABLES, "escrow_account", "escrow_pool", "escrow_session", "escrow_batchrecord"):
            connection.execute(f"VACUUM (ANALYZE) {table}".encode())
        connection.execute("CHECKPOINT")
    told("vacuumed and analysed")


def faults(database_url: str) -> list[str]:
    """Return what is wrong with the books as a whole; nothing is as it should be."""
    with psycopg.connect(database_url) as connection:
        found = {name: connection.execute(sql.encode()).fetchone() for name, sql in FAULTS.items()}
    return [f"{name}: {row[0]}" for name, row in found.items() if row and row[0]]


FAULTS: Final = {
    "accounts whose sums are not those of their transfers": """
        SELECT count(*) FROM escrow_account AS account
        LEFT JOIN (SELECT sender_id AS id, sum(amount_micros) AS s FROM escrow_transfer GROUP BY 1) AS out USING (id)
        LEFT JOIN (SELECT receiver_id AS id, sum(amount_micros) AS s FROM escrow_transfer GROUP BY 1) AS back USING (id)
        WHERE (account.sent_micros, account.received_micros) <> (coalesce(out.s, 0), coalesce(back.s, 0))""",
    "pools whose debts are not what is payable": """
        SELECT count(*) FROM (
            SELECT pool_id, sum(received_micros - sent_micros) AS s FROM escrow_account WHERE kind = 'payable' GROUP BY 1
        ) AS held FULL JOIN (
            SELECT pool_id, sum(amount_micros - deducted_micros) AS s FROM escrow_payment WHERE status = 'payable' GROUP BY 1
        ) AS owed USING (pool_id) WHERE coalesce(held.s, 0) <> coalesce(owed.s, 0)""",
    "batch records that are not the sum of their payments": """
        SELECT count(*) FROM escrow_batchrecord AS record
        LEFT JOIN (SELECT record_id, sum(amount_micros - deducted_micros) AS s FROM escrow_payment GROUP BY 1) AS paid
            ON paid.record_id = record.id WHERE coalesce(paid.s, 0) <> record.amount_micros""",
    "payments without their transfer": """
        SELECT (SELECT count(*) FROM escrow_payment)
             - (SELECT count(*) FROM escrow_transfer WHERE reason IN ('payment', 'capture', 'ruling'))""",
}


def _prepare(cursor: Cursor) -> None:
    for setting in (
        "session_replication_role = replica",
        "statement_timeout = 0",
        "lock_timeout = 0",
        "work_mem = '256MB'",
        "temp_buffers = '128MB'",
        "maintenance_work_mem = '1GB'",
        "max_parallel_maintenance_workers = 2",
    ):
        cursor.execute(f"SET LOCAL {setting}".encode())
    # In the order in which a payment takes them, so that one that is under way ends first and none comes between.
    cursor.execute("LOCK TABLE escrow_account, escrow_payment, escrow_transfer, escrow_event IN ACCESS EXCLUSIVE MODE")


@contextmanager
def _without_indexes(cursor: Cursor, told: Say) -> Iterator[None]:
    """Drop the indexes that hold no constraint, and make them again after the block."""
    cursor.execute(
        """SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
        WHERE indrelid = ANY(%s::text[]::regclass[]) AND NOT indisunique""",
        [list(TABLES)],
    )
    indexes = cursor.fetchall()
    for name, _ in indexes:
        cursor.execute(f"DROP INDEX {name}".encode())
    yield
    for name, definition in indexes:
        cursor.execute(definition.encode())
        told(f"index {name}")


def _rows(cursor: Cursor, wanted: Wanted, live_sessions: Sequence[UUID], told: Say) -> None:
    live = int(wanted.payments * wanted.live_share) if live_sessions else 0
    history = wanted.payments - live
    cursor.execute("SELECT coalesce(max(chain_id), %s) FROM escrow_pool", [LOCAL_CHAIN])
    facts: dict[str, Any] = {
        "past": timedelta(days=-wanted.days),
        "span": (wanted.days - 1) * 86_400,
        "pools": min(wanted.pools, history),
        "parties": wanted.parties,
        "micros": wanted.micros,
        "history": history,
        "live": live,
        "live_sessions": list(live_sessions),
        "chain_id": (cursor.fetchone() or (LOCAL_CHAIN,))[0],
        "to": "agent://seeded.bench.dev",
    }
    _frame(cursor, facts)
    _payments(cursor, facts, rows.HISTORY_ROWS, 1, history, told)
    _steps(cursor, facts, rows.AFTER, rows.ENDED)
    if live:
        cursor.execute("SELECT count(*), min(balance) FROM seed_live")
        facts["sessions"], least = cursor.fetchone() or (0, None)
        if not facts["sessions"] or least < live // facts["sessions"] + 1:
            raise ValueError("the open sessions cannot pay for their part of the seeded payments")
        rest = "ON CONFLICT (code) DO NOTHING"
        cursor.execute(rows.insert(cursor, "escrow_account", rows.PAYABLE, "seed_live", rest).encode())
        _payments(cursor, facts, rows.LIVE_ROWS, history + 1, wanted.payments, told)
    cursor.execute(rows.SEEDED_ACCOUNTS.encode())
    cursor.execute(
        "SELECT FROM information_schema.columns WHERE (table_name, column_name) = ('escrow_account', 'sent_count')"
    )
    counted = ", sent_count = sums.sends" if cursor.fetchone() is not None else ""
    cursor.execute(rows.SUMS.format(counted=counted).encode())
    told("accounts follow their transfers")


def _frame(cursor: Cursor, facts: dict[str, Any]) -> None:
    """Make what the payments are made in: parties, pools, their accounts, sessions, batches."""
    for statement in (rows.PARTIES, rows.POOLS, rows.PAIRS, rows.LIVE, rows.ROWS):
        cursor.execute(statement.encode(), facts)
    for table, columns, source in (
        ("escrow_party", rows.PARTY, "seed_party"),
        ("escrow_pool", rows.POOL, "seed_pool"),
        ("escrow_account", rows.ACCOUNT, f"({rows.ACCOUNT_ROWS}) AS row"),
        ("escrow_session", rows.SESSION, "seed_pool"),
        ("escrow_batch", rows.BATCH, "seed_pool"),
        ("escrow_batchrecord", rows.RECORD, "seed_pair"),
    ):
        cursor.execute(rows.insert(cursor, table, columns, source).encode(), facts)
    cursor.execute("ANALYZE seed_pool")
    cursor.execute("ANALYZE seed_pair")
    _steps(cursor, facts, rows.BEFORE, rows.OPENED)


def _steps(cursor: Cursor, facts: dict[str, Any], moves: str, at: str) -> None:
    """Write the transfers before or after all payments, one step of every pool after the other."""
    columns = {**rows.STEP, "created_at": f"{at} + step * interval '1 second'"}
    window = "WINDOW earlier AS (PARTITION BY sender ORDER BY step, receiver) ORDER BY step, sender, receiver"
    cursor.execute(rows.insert(cursor, "escrow_transfer", columns, f"({moves}) AS move", window).encode(), facts)


def _payments(cursor: Cursor, facts: dict[str, Any], make: str, first: int, last: int, told: Say) -> None:
    """Write payments, their transfers and their events, in the order of their times."""
    statements = [
        rows.insert(cursor, "escrow_payment", rows.PAYMENT, "seed_row", "ORDER BY i"),
        rows.insert(cursor, "escrow_transfer", rows.TRANSFER, "seed_row", "ORDER BY i"),
        rows.insert(cursor, "escrow_event", rows.EVENT, "seed_row", "ORDER BY i"),
    ]
    for begin in range(first, last + 1, CHUNK):
        end = min(begin + CHUNK - 1, last)
        cursor.execute(make.encode(), {**facts, "first": begin, "last": end})
        for statement in statements:
            cursor.execute(statement.encode(), facts)
        cursor.execute("TRUNCATE seed_row")
        told(f"{end:,} payments")


def main() -> int:
    """Fill the database of DATABASE_URL; exit 1 when its books are wrong afterwards."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seed", description=__doc__)
    parser.add_argument("--payments", type=int, default=Wanted.payments)
    parser.add_argument("--pools", type=int, default=Wanted.pools)
    parser.add_argument("--parties", type=int, default=Wanted.parties)
    parser.add_argument("--days", type=int, default=Wanted.days)
    parser.add_argument("--database", default=os.environ.get("DATABASE_URL"), help="default: DATABASE_URL")
    options = parser.parse_args()
    if not options.database:
        parser.error("set DATABASE_URL, or pass --database")
    wanted = Wanted(payments=options.payments, pools=options.pools, parties=options.parties, days=options.days)
    fill(options.database, wanted, [], lambda text: print(text, file=sys.stderr))
    found = faults(options.database)
    for fault in found:
        print(f"fault: {fault}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
