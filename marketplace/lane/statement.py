"""The one statement of the lane. Lives here: who may pay from which session, whom, and `escrow_send` for those who may.

Reading the key in the same statement makes a revocation effective on the next call, with no cache to be wrong.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.db import connections
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from escrow.verdicts import Opinion, Verdict

Connection = AsyncConnection[TupleRow]


@dataclass(slots=True)
class Order:
    """A well-formed request to pay. Who the key is, and whether it may, is the statement's to say."""

    key_id: str
    secret_hash: bytes
    session_id: str | None
    """The one that the request names, or that the key was seen to spend from; None: the key's own."""
    to: str
    amount_micros: int
    shown_amount: str
    metadata: str
    idempotency_key: str
    request_hash: bytes


@dataclass(slots=True)
class Decision:
    """What became of an order. ``admitted`` is False when the key, the session or the agent is not what it must be."""

    admitted: bool
    scope: str
    key_session_id: str | None
    """The one session that the key spends from; None for a payer's key."""
    session_id: str | None
    provider_id: str | None
    verdict: Verdict


_DECIDE: Final = """
WITH request AS (
    SELECT * FROM unnest(%(key_ids)s::text[], %(secret_hashes)s::bytea[], %(sessions)s::uuid[], %(recipients)s::text[])
        WITH ORDINALITY AS row (key_id, secret_hash, session_id, recipient, ord)
), known AS MATERIALIZED (
    SELECT
        request.ord, key.id AS key, key.scope, key.session_id AS key_session_id, session.id AS session_id,
        provider.id AS provider_id, provider.party_id,
        key.last_used_at IS NULL OR key.last_used_at < now() - %(note_every)s AS is_unnoted,
        coalesce(
            NOT key.read_only AND key.revoked_at IS NULL AND (key.expires_at IS NULL OR key.expires_at > now())
            AND session.id IS NOT NULL AND provider.party_id IS NOT NULL, false
        ) AS is_admitted
    FROM request
    LEFT JOIN marketplace_apikey AS key ON key.key_id = request.key_id AND key.secret_hash = request.secret_hash
    LEFT JOIN escrow_session AS session
        ON session.id = coalesce(request.session_id, key.session_id)
        AND (
            key.scope = 'session' AND session.id = key.session_id
            OR key.scope = 'payer'
            AND EXISTS (SELECT FROM escrow_pool AS pool WHERE pool.id = session.pool_id AND pool.payer_id = key.payer_id)
        )
    LEFT JOIN marketplace_agent AS agent ON agent.uri = request.recipient
    LEFT JOIN marketplace_provider AS provider ON provider.id = agent.provider_id
)
SELECT
    known.is_admitted, known.key::text, known.is_unnoted, known.scope, known.key_session_id::text, known.session_id::text,
    known.provider_id::text, sent.outcome, sent.payment_id::text, sent.at, sent.remaining_micros, sent.facts::text
FROM known LEFT JOIN escrow_send(
    %(patient)s, NULL,
    (SELECT array_agg(CASE WHEN is_admitted THEN session_id END ORDER BY ord) FROM known),
    (SELECT array_agg(party_id ORDER BY ord) FROM known),
    %(recipients)s::text[], %(amounts)s::bigint[], %(shown)s::text[], %(metadata)s::text[], %(keys)s::text[],
    %(hashes)s::bytea[], %(versions)s::integer[], %(since)s::timestamptz[], %(until)s::timestamptz[], %(denied)s::boolean[]
) AS sent ON sent.ord = known.ord
ORDER BY known.ord
"""

_NOTE: Final = """
UPDATE marketplace_apikey SET last_used_at = now()
WHERE id = ANY(%s::uuid[]) AND (last_used_at IS NULL OR last_used_at < now() - %s)
"""


async def connect() -> Connection:
    """Open a connection of the lane's own, in autocommit mode. Raises psycopg.OperationalError."""
    given = connections["default"].get_connection_params()
    address = {name: given[name] for name in ("host", "port", "dbname", "user", "password") if name in given}
    limits = (
        f"-c statement_timeout={settings.LANE_STATEMENT_TIMEOUT_MS} -c lock_timeout={settings.LANE_LOCK_TIMEOUT_MS}"
        f" -c idle_in_transaction_session_timeout={settings.DATABASE_IDLE_TIMEOUT_MS} -c timezone=UTC"
    )
    return await AsyncConnection.connect(
        **address, connect_timeout=given["connect_timeout"], options=limits, autocommit=True, prepare_threshold=0
    )


async def decide(
    connection: Connection,
    orders: Sequence[Order],
    opinions: Sequence[Opinion],
    *,
    patient: bool,
    note_every: timedelta,
) -> tuple[list[Decision], set[str]]:
    """Decide a batch in one round trip, durably; return the decisions in order, and the keys whose use is not noted yet.

    Raises psycopg.Error; then nothing is known of any of the orders.
    """
    versions, since, until, denied = zip(*(opinion.columns for opinion in opinions), strict=True)
    arguments: dict[str, Any] = {
        "patient": patient,
        "note_every": note_every,
        "key_ids": array(order.key_id for order in orders),
        "secret_hashes": array("\\x" + order.secret_hash.hex() for order in orders),
        "sessions": array(order.session_id for order in orders),
        "recipients": array(order.to for order in orders),
        "amounts": array(str(order.amount_micros) for order in orders),
        "shown": array(order.shown_amount for order in orders),
        "metadata": array(order.metadata for order in orders),
        "keys": array(order.idempotency_key for order in orders),
        "hashes": array("\\x" + order.request_hash.hex() for order in orders),
        "versions": array(None if version is None else str(version) for version in versions),
        "since": array(moment and moment.isoformat() for moment in since),
        "until": array(moment and moment.isoformat() for moment in until),
        "denied": array(str(denies) for denies in denied),
    }
    async with connection.cursor(binary=True) as cursor:
        await cursor.execute(_DECIDE, arguments)
        rows = await cursor.fetchall()
    decisions = [Decision(row[0], row[3], row[4], row[5], row[6], Verdict.read(row[7:])) for row in rows]
    return decisions, {row[1] for row in rows if row[0] and row[2]}


def array(texts: Iterable[str | None]) -> str:
    """Return an array in PostgreSQL's text form (its documentation, section 8.15.6), each element quoted.

    psycopg's own takes a millisecond for a batch, as much as all that PostgreSQL does with it.
    """
    return "{" + ",".join(["NULL" if text is None else _quoted(text) for text in texts]) + "}"


def _quoted(text: str) -> str:
    if '"' in text or "\\" in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


async def note_use(connection: Connection, keys: set[str], *, every: timedelta) -> None:
    """Write when keys were last used: for people, so once in a while is enough."""
    await connection.execute(_NOTE, [list(keys), every])
