"""What must be told. Lives here: recording events with the change they tell of, and saying up to which one they are told.

An event's id is its position. Ids are drawn before their database transactions commit, so a reader that simply followed them
could pass over a slow one for ever. The feed therefore ends at a mark, and the mark moves only past ids whose
transactions have all ended.
"""

import json
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from django.db import connection, transaction
from django.db.models import QuerySet, Subquery

from escrow.models import Event, EventMark, Party, Pool


def record(
    *,
    type: str,
    subject_type: str,
    subject_id: UUID,
    payload: Mapping[str, object],
    pool: Pool | None = None,
    party: Party | None = None,
    payer_id: UUID | None = None,
) -> None:
    """Record an event for a payer (the one of a pool), for a party, or for both, in the caller's database transaction."""
    with connection.cursor() as cursor:
        told = [pool.payer_id if pool else payer_id, party.pk if party else None]
        cursor.execute(_RECORD, [*told, type, subject_type, subject_id, json.dumps(payload)])


_RECORD: Final = """
INSERT INTO escrow_event (payer_id, party_id, type, subject_type, subject_id, payload)
VALUES (%s, %s, %s, %s, %s::uuid, %s::jsonb)
"""

_MARK: Final = """
INSERT INTO escrow_eventmark (id, published_id, pending_id, pending_xid) VALUES (1, 0, 0, 0) ON CONFLICT DO NOTHING
"""
_PUBLISH: Final = """
WITH mark AS (
    SELECT
        pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= pending_xid AS is_over,
        pg_current_xact_id()::text::bigint AS xid
    FROM escrow_eventmark
)
UPDATE escrow_eventmark SET
    published_id = CASE WHEN is_over THEN pending_id ELSE published_id END,
    pending_id = CASE WHEN is_over OR xid < pending_xid THEN %s ELSE pending_id END,
    pending_xid = CASE WHEN is_over OR xid < pending_xid THEN xid ELSE pending_xid END
FROM mark RETURNING published_id
"""
"""A remembered number that is still to come is of another server, from which this database was restored."""


@transaction.atomic
def publish() -> int:
    """Move the mark as far as is safe, and return it: every event up to it is committed, or will never be.

    The last id that was drawn is remembered with the number of this database transaction. Whoever drew an id so far has a
    smaller number, because a trigger has an event's transaction numbered before it draws. Once every transaction with a
    smaller number has ended, the remembered id is the mark. Not to be called within a database transaction that has written:
    it would be numbered before the id was read.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('escrow.events.publish', 0))")
        cursor.execute("SELECT last_value FROM escrow_event_id_seq")
        (drawn,) = cursor.fetchone()
        # Only now: the statements below number this transaction, and that must be after the id was read.
        cursor.execute(_MARK)
        cursor.execute(_PUBLISH, [drawn])
        (published,) = cursor.fetchone()
    return int(published)


def publish_due() -> int:
    """Publish what has been recorded before now, unless somebody is still recording; return the mark."""
    publish()
    return publish()


def feed(*, payer_id: UUID | None = None, party_id: UUID | None = None, after: int, limit: int) -> "QuerySet[Event]":
    """Return the published events of a payer, or of a party, after a position, oldest first."""
    mine = Event.objects.filter(payer_id=payer_id) if payer_id else Event.objects.filter(party_id=party_id)
    published = EventMark.objects.values("published_id")[:1]
    return mine.filter(id__gt=after, id__lte=Subquery(published)).order_by("id")[:limit]


def published() -> int:
    """Return the mark: up to which id events are shown now."""
    mark = EventMark.objects.values_list("published_id", flat=True).first()
    return mark or 0
