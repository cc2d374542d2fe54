"""What must be told. Lives here: recording events with the change they tell of, and publishing them in one order.

An event gets its ``position`` only when it is published, by one publisher at a time: ids are given out before their
database transactions commit, so a reader that followed ids could pass over a slow one for ever.
"""

import json
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from django.db import connection, transaction
from django.db.models import QuerySet

from escrow.models import Event, Party, Pool

PUBLISH_LIMIT: Final = 1_000
"""Events published in one database transaction: about 20 ms of work."""
PUBLISH_ROUNDS: Final = 5
"""Database transactions of one sweep: a burst of payments is published soon after it, not at its cost."""


def record(
    *,
    type: str,
    subject_type: str,
    subject_id: UUID,
    payload: Mapping[str, object],
    pool: Pool | None = None,
    party: Party | None = None,
) -> None:
    """Record an event for the payer of a pool, for a party, or for both, in the caller's database transaction."""
    with connection.cursor() as cursor:
        told = [pool.payer_id if pool else None, party.pk if party else None]
        cursor.execute(_RECORD, [*told, type, subject_type, subject_id, json.dumps(payload)])


_RECORD: Final = """
INSERT INTO escrow_event (payer_id, party_id, type, subject_type, subject_id, payload)
VALUES (%s, %s, %s, %s, %s::uuid, %s::jsonb)
"""

_PUBLISH: Final = """
WITH due AS (
    SELECT id FROM escrow_event WHERE position IS NULL ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED
), numbered AS (
    SELECT id, row_number() OVER (ORDER BY id) AS step FROM due
)
UPDATE escrow_event AS event
SET position = (SELECT coalesce(max(position), 0) FROM escrow_event) + numbered.step
FROM numbered WHERE event.id = numbered.id
"""


@transaction.atomic
def publish() -> int:
    """Give the next positions to events that have none; return how many got one. Only one publisher works at a time."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('escrow.events.publish', 0))")
        cursor.execute(_PUBLISH, [PUBLISH_LIMIT])
        return int(cursor.rowcount)


def publish_due() -> int:
    """Publish what is due, within the limits of one sweep; return how many events got a position."""
    published = 0
    for _ in range(PUBLISH_ROUNDS):
        published += (latest := publish())
        if latest < PUBLISH_LIMIT:
            break
    return published


def feed(*, payer_id: UUID | None = None, party_id: UUID | None = None, after: int, limit: int) -> "QuerySet[Event]":
    """Return the published events of a payer, or of a party, after a position, oldest first."""
    mine = Event.objects.filter(payer_id=payer_id) if payer_id else Event.objects.filter(party_id=party_id)
    return mine.filter(position__gt=after).order_by("position")[:limit]
