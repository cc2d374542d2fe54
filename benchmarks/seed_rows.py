"""The SQL of the seeded rows: a past of closed pools whose money has all been paid out, and payments that still wait.

Every table's columns are a mapping from a column to what is in it; a column that the table does not have is left out.
"""

from typing import Final

from psycopg import Cursor

PARTIES: Final = """
CREATE TEMP TABLE seed_party ON COMMIT DROP AS
SELECT n, uuidv7(%(past)s) AS id, '0x' || left(md5('a' || n || random()) || md5('b' || n || random()), 40) AS address
FROM generate_series(0, %(parties)s - 1) AS n
"""
POOLS: Final = """
CREATE TEMP TABLE seed_pool ON COMMIT DROP AS
SELECT
    n, uuidv7(%(past)s) AS id, gen_random_uuid() AS payer_id, gen_random_uuid() AS session_id, gen_random_uuid() AS batch_id,
    nextval('escrow_account_id_seq') AS world, nextval('escrow_account_id_seq') AS free,
    nextval('escrow_account_id_seq') AS session, nextval('escrow_account_id_seq') AS settling,
    %(history)s::bigint / %(pools)s + (n < %(history)s::bigint %% %(pools)s)::int AS payments,
    '0x' || md5(n || 'k' || random()) || md5(n || 'l' || random()) AS key
FROM generate_series(0, %(pools)s - 1) AS n
"""
PAIRS: Final = """
CREATE TEMP TABLE seed_pair ON COMMIT DROP AS
SELECT
    pool.n AS pool, party.n AS party, pool.id AS pool_id, party.id AS party_id, pool.settling, pool.batch_id, pool.world,
    nextval('escrow_account_id_seq') AS payable, nextval('escrow_account_id_seq') AS credited,
    nextval('escrow_batchrecord_id_seq') AS record_id, debts.count * %(micros)s AS micros
FROM seed_pool AS pool CROSS JOIN seed_party AS party
CROSS JOIN LATERAL (
    SELECT (pool.payments + %(parties)s - 1 - mod(party.n - pool.n + %(pools)s * %(parties)s, %(parties)s)) / %(parties)s
) AS debts (count)
WHERE debts.count > 0
"""
LIVE: Final = """
CREATE TEMP TABLE seed_live ON COMMIT DROP AS
SELECT
    row_number() OVER () - 1 AS n, session.id AS session_id, session.pool_id, session.account_id AS account, pool.payer_id,
    account.sent_micros AS sent, account.received_micros - account.sent_micros AS balance,
    (SELECT count(*) FROM escrow_transfer WHERE sender_id = account.id) AS sends,
    (SELECT min(party_id::text)::uuid FROM escrow_poolprovider WHERE pool_id = pool.id) AS party_id
FROM escrow_session AS session JOIN escrow_pool AS pool ON pool.id = session.pool_id
JOIN escrow_account AS account ON account.id = session.account_id
WHERE session.id = ANY(%(live_sessions)s) AND session.status = 'open' AND pool.status = 'open'
"""
ACCOUNT_ROWS: Final = """
SELECT world AS id, 'world:' || id AS code, 'world' AS kind, id AS pool_id, NULL::uuid AS party_id FROM seed_pool
UNION ALL SELECT free, 'pool:' || id, 'pool', id, NULL FROM seed_pool
UNION ALL SELECT session, 'session:' || session_id, 'session', id, NULL FROM seed_pool
UNION ALL SELECT settling, 'settling:' || batch_id, 'settling', id, NULL FROM seed_pool
UNION ALL SELECT payable, 'payable:' || pool_id || ':' || party_id, 'payable', pool_id, party_id FROM seed_pair
UNION ALL SELECT credited, 'credited:' || pool_id || ':' || party_id, 'credited', pool_id, party_id FROM seed_pair
"""
HISTORY_ROWS: Final = """
INSERT INTO seed_row
SELECT
    i, uuidv7(%(past)s + i * (interval '1 second' * %(span)s / %(history)s)), pool.session_id, pool.id, pair.party_id,
    pool.payer_id, pair.record_id, 'settled', %(micros)s, (pool.payments + 1 - turn.j) * %(micros)s, pool.session,
    pair.payable, turn.j * %(micros)s, turn.j
FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS i
CROSS JOIN LATERAL (SELECT (i - 1) / %(pools)s + 1 AS j) AS turn
JOIN seed_pool AS pool ON pool.n = (i - 1) %% %(pools)s
JOIN seed_pair AS pair ON pair.pool = pool.n AND pair.party = (turn.j - 1 + pool.n) %% %(parties)s
"""
LIVE_ROWS: Final = """
INSERT INTO seed_row
SELECT
    i, uuidv7(interval '-1 hour' + (i - %(history)s) * (interval '1 hour' / (%(live)s + 1))), live.session_id, live.pool_id,
    live.party_id, live.payer_id, NULL, 'payable', 1, live.balance - turn.j, live.account, payable.id, live.sent + turn.j,
    live.sends + turn.j
FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS i
CROSS JOIN LATERAL (SELECT (i - %(history)s - 1) / %(sessions)s + 1 AS j) AS turn
JOIN seed_live AS live ON live.n = (i - %(history)s - 1) %% %(sessions)s
JOIN escrow_account AS payable ON payable.code = 'payable:' || live.pool_id || ':' || live.party_id
"""
ROWS: Final = """
CREATE TEMP TABLE seed_row (
    i bigint, id uuid, session_id uuid, pool_id uuid, party_id uuid, payer_id uuid, record_id bigint, status text,
    micros bigint, remaining bigint, sender bigint, receiver bigint, sent bigint, nth bigint
) ON COMMIT DROP
"""
BEFORE: Final = """
SELECT 1 AS step, world AS sender, free AS receiver, (payments + 1) * %(micros)s AS micros, 'deposit' AS reason,
    key || ':0' AS ref, 0::bigint AS sent, 0::bigint AS nth FROM seed_pool
UNION ALL SELECT 2, free, session, (payments + 1) * %(micros)s, 'session_open', session_id::text, 0, 0 FROM seed_pool
"""
AFTER: Final = """
SELECT 1 AS step, session AS sender, free AS receiver, %(micros)s::bigint AS micros, 'session_close' AS reason,
    session_id::text AS ref, payments * %(micros)s AS sent, payments AS nth FROM seed_pool
UNION ALL SELECT 2, payable, settling, micros, 'settle', batch_id::text, 0, 0 FROM seed_pair
UNION ALL SELECT 3, settling, credited, micros, 'credit', batch_id::text, 0, 0 FROM seed_pair
UNION ALL SELECT 4, credited, world, micros, 'payout', batch_id || ':1', 0, 0 FROM seed_pair
UNION ALL SELECT 5, free, world, %(micros)s::bigint, 'reclaim', key || ':2', (payments + 1) * %(micros)s, 1 FROM seed_pool
"""
OPENED: Final = "now() + %(past)s - interval '1 hour'"
ENDED: Final = "now() + %(past)s + interval '1 second' * %(span)s"
PARTY: Final = {"id": "id", "name": "'Seeded ' || n", "address": "address"}
POOL: Final = {
    "id": "id",
    "payer_id": "payer_id",
    "status": "'closed'",
    "chain_id": "%(chain_id)s",
    "contract_address": "'0x0000000000000000000000000000000000000001'",  # an earlier contract: this one never knew them
    "requested_micros": "(payments + 1) * %(micros)s",
    "salt": "key",
    "fee_bps": "0",
    "dispute_window_seconds": "0",
    "close_delay_seconds": "0",
    "pool_key": "key",
    "payer_address": "'0x0000000000000000000000000000000000000002'",
    "next_seq": "%(parties)s",
    "reason": "''",
    "created_at": OPENED,
    "expires_at": ENDED,
    "opened_at": OPENED,
    "close_requested_at": ENDED,
    "reclaimable_at": ENDED,
    "closed_at": ENDED,
}
SESSION: Final = {
    "id": "session_id",
    "pool_id": "id",
    "account_id": "session",
    "name": "'seeded'",
    "status": "'closed'",
    "policy": "'{}'::jsonb",
    "policy_version": "1",
    "checkpoints_micros": "'{}'::bigint[]",
    "created_at": OPENED,
    "closed_at": ENDED,
}
BATCH: Final = {
    "id": "batch_id",
    "pool_id": "id",
    "account_id": "settling",
    "status": "'settled'",
    "first_seq": "0",
    "packed": "''::bytea",
    "root": "'0x' || repeat('0', 64)",
    "signature": "''::bytea",
    "deadline": ENDED,
    "created_at": ENDED,
    "settled_at": ENDED,
    "turns": "0",
    "next_at": ENDED,
    "reason": "''",
}
RECORD: Final = {
    "id": "record_id",
    "batch_id": "batch_id",
    "party_id": "party_id",
    "seq": "row_number() OVER (PARTITION BY batch_id ORDER BY party) - 1",
    "amount_micros": "micros",
}
ACCOUNT: Final = {
    "id": "id",
    "code": "code",
    "kind": "kind",
    "pool_id": "pool_id",
    "party_id": "party_id",
    "sent_micros": "0",
    "received_micros": "0",
    "sent_count": "0",
}
PAYABLE: Final = {
    "code": "'payable:' || pool_id || ':' || party_id",
    "kind": "'payable'",
    "pool_id": "pool_id",
    "party_id": "party_id",
    "sent_micros": "0",
    "received_micros": "0",
    "sent_count": "0",
}
PAYMENT: Final = {
    "id": "id",
    "session_id": "session_id",
    "policy_version": "1",
    "pool_id": "pool_id",
    "party_id": "party_id",
    "payer_id": "payer_id",
    "kind": "'call'",
    "status": "status",
    "to": "%(to)s",
    "amount_micros": "micros",
    "metadata": "'{}'::jsonb",
    "idempotency_key": "'seed:' || lpad(i::text, 12, '0')",
    "request_hash": "sha256(uuid_send(id))",
    "remaining_micros": "remaining",
    "record_id": "record_id",
    "redeemed_hash": "''",
    "reason": "''",
    "created_at": "uuid_extract_timestamp(id)",
}
TRANSFER: Final = {
    "sender_id": "sender",
    "receiver_id": "receiver",
    "amount_micros": "micros",
    "reason": "'payment'",
    "ref": "id::text",
    "sender_sent_micros": "sent",
    "sender_nth": "nth",
    "created_at": "uuid_extract_timestamp(id)",
}
STEP: Final = {
    **TRANSFER,
    "reason": "reason",
    "ref": "ref",
    "sender_sent_micros": "sent + sum(micros) OVER earlier",
    "sender_nth": "nth + row_number() OVER earlier",
}
EVENT: Final = {
    "payer_id": "payer_id",
    "party_id": "party_id",
    "type": "'payment.created'",
    "subject_type": "'payment'",
    "subject_id": "id",
    "payload": "jsonb_build_object('session_id', session_id, 'to', %(to)s, 'kind', 'call', 'amount', '0.001')",
    "created_at": "uuid_extract_timestamp(id)",
}
SUMS: Final = """
UPDATE escrow_account AS account
SET sent_micros = sums.sent, received_micros = sums.received{counted}
FROM (
    SELECT id, sum(sent)::bigint AS sent, sum(received)::bigint AS received, sum(sends)::bigint AS sends
    FROM (
        SELECT sender_id AS id, sum(amount_micros) AS sent, 0 AS received, count(*) AS sends FROM escrow_transfer GROUP BY 1
        UNION ALL
        SELECT receiver_id, 0, sum(amount_micros), 0 FROM escrow_transfer GROUP BY 1
    ) AS side GROUP BY id
) AS sums
WHERE account.id = sums.id AND account.id IN (SELECT id FROM seed_account)
"""
SEEDED_ACCOUNTS: Final = f"""
CREATE TEMP TABLE seed_account ON COMMIT DROP AS
SELECT id FROM ({ACCOUNT_ROWS}) AS row
UNION SELECT account FROM seed_live
UNION SELECT payable.id FROM seed_live JOIN escrow_account AS payable
    ON payable.code = 'payable:' || seed_live.pool_id || ':' || seed_live.party_id
"""  # noqa: S608 - our own constants


def insert(cursor: Cursor, table: str, columns: dict[str, str], source: str, rest: str = "") -> str:
    """Return the statement that fills the columns which a table has from a source."""
    cursor.execute("SELECT column_name FROM information_schema.columns WHERE table_name = %s", [table])
    present = {name for (name,) in cursor.fetchall()}
    chosen = {name: value for name, value in columns.items() if name in present}
    names = ", ".join(f'"{name}"' for name in chosen)
    return f"INSERT INTO {table} ({names}) SELECT {', '.join(chosen.values())} FROM {source} {rest}"  # noqa: S608
