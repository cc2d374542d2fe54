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
"""Events published in one database transaction: about 10 ms of work."""


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
    owners: list[tuple[str, UUID]] = []
    if pool is not None:
        owners.append((Event.Owner.PAYER, pool.payer_id))
    if party is not None:
        owners.append((Event.Owner.PARTY, party.pk))
    kinds, ids = [kind for kind, _ in owners], [owner for _, owner in owners]
    with connection.cursor() as cursor:
        cursor.execute(_RECORD, [type, subject_type, subject_id, json.dumps(payload), kinds, ids])


_RECORD: Final = """
INSERT INTO escrow_event (type, subject_type, subject_id, payload, owner_kind, owner_id)
SELECT %s, %s, %s::uuid, %s::jsonb, owner.kind, owner.id FROM unnest(%s::text[], %s::uuid[]) AS owner (kind, id)
"""
"""Plain SQL, because every payment runs it and the model layer costs more than the statement."""

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


def feed(*, owner_kind: str, owner_id: UUID, after: int, limit: int) -> "QuerySet[Event]":
    """Return the published events of an owner after a position, oldest first."""
    published = Event.objects.filter(owner_kind=owner_kind, owner_id=owner_id, position__gt=after)
    return published.order_by("position")[:limit]
