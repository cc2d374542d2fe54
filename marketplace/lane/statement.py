"""The one statement of the lane. Lives here: who may pay from which session, whom, and `escrow_send` for those who may.

Reading the key in the same statement makes a revocation effective on the next call, with no cache to be wrong. asyncpg,
because it takes 0.1 ms less for each batch than psycopg's asynchronous cursor does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias

import asyncpg
from django.conf import settings
from django.db import connections

from escrow import approvals
from escrow.verdicts import Opinion, Verdict

Connection: TypeAlias = asyncpg.Connection


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
    capability: str
    """What it buys, one of those that the agent offers; or nothing."""
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
    SELECT * FROM unnest($1::text[], $2::bytea[], $3::uuid[], $4::text[], $10::text[])
        WITH ORDINALITY AS row (key_id, secret_hash, session_id, recipient, capability, ord)
), known AS MATERIALIZED (
    SELECT
        request.ord, key.id AS key, key.scope, key.session_id AS key_session_id, session.id AS session_id,
        provider.id AS provider_id, provider.party_id,
        key.last_used_at IS NULL OR key.last_used_at < now() - $5::interval AS is_unnoted,
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
    LEFT JOIN marketplace_agent AS agent
        ON agent.uri = request.recipient AND (request.capability = '' OR request.capability = ANY(agent.capabilities))
    LEFT JOIN marketplace_provider AS provider ON provider.id = agent.provider_id
)
SELECT
    known.is_admitted, known.key::text, known.is_unnoted, known.scope, known.key_session_id::text, known.session_id::text,
    known.provider_id::text, sent.outcome, sent.payment_id::text, sent.at, sent.remaining_micros, sent.facts::text
FROM known LEFT JOIN escrow_send(
    $6::boolean, NULL, $17::interval,
    (SELECT array_agg(CASE WHEN is_admitted THEN session_id END ORDER BY ord) FROM known),
    (SELECT array_agg(party_id ORDER BY ord) FROM known),
    $4::text[], $7::bigint[], $8::text[], $9::text[], $10::text[], $11::text[],
    $12::bytea[], $13::integer[], $14::timestamptz[], $15::timestamptz[], $16::text[]
) AS sent ON sent.ord = known.ord
ORDER BY known.ord
"""

_NOTE: Final = """
UPDATE marketplace_apikey SET last_used_at = now() WHERE id IN (
    SELECT id FROM marketplace_apikey
    WHERE id = ANY($1::uuid[]) AND (last_used_at IS NULL OR last_used_at < now() - $2::interval)
    ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
)
"""


async def connect() -> Connection:
    """Open a connection of the lane's own. Raises OSError, TimeoutError or asyncpg.PostgresError."""
    given = connections["default"].get_connection_params()
    limits = {
        "statement_timeout": str(settings.LANE_STATEMENT_TIMEOUT_MS),
        "lock_timeout": str(settings.LANE_LOCK_TIMEOUT_MS),
        "idle_in_transaction_session_timeout": str(settings.DATABASE_IDLE_TIMEOUT_MS),
        "timezone": "UTC",
        # The tables grow, a batch stays small: always by index, and planned once.
        "plan_cache_mode": "force_generic_plan",
        **dict.fromkeys(("enable_seqscan", "enable_hashjoin", "enable_mergejoin"), "off"),
    }
    address = {name: given[name] for name in ("host", "port", "user", "password") if given.get(name)}
    return await asyncpg.connect(
        **address,
        database=given["dbname"],
        ssl=given.get("sslmode"),
        timeout=given["connect_timeout"],
        command_timeout=settings.LANE_STATEMENT_TIMEOUT_MS / 1_000 + 2,  # of a server that says nothing at all any more
        server_settings=limits,
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

    Raises what asyncpg raises; then nothing is known of any of the orders.
    """
    versions, since, until, denials = zip(*(opinion.columns for opinion in opinions), strict=True)
    rows = await connection.fetch(
        _DECIDE,
        [order.key_id for order in orders],
        [order.secret_hash for order in orders],
        [order.session_id for order in orders],
        [order.to for order in orders],
        note_every,
        patient,
        [order.amount_micros for order in orders],
        [order.shown_amount for order in orders],
        [order.metadata for order in orders],
        [order.capability for order in orders],
        [order.idempotency_key for order in orders],
        [order.request_hash for order in orders],
        versions,
        since,
        until,
        denials,
        approvals.window(),
    )
    decisions = [Decision(row[0], row[3], row[4], row[5], row[6], Verdict.read(row[7:])) for row in rows]
    return decisions, {row[1] for row in rows if row[0] and row[2]}


async def note_use(connection: Connection, keys: set[str], *, every: timedelta) -> None:
    """Write when keys were last used: for people, so once in a while is enough."""
    await connection.execute(_NOTE, list(keys), every)
