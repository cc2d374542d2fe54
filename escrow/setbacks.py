"""Setbacks: a row that fails again and again in a sweep is put off for longer and longer, and then set aside for a person.

Lives here: counting failures in the database, and leaving out what is not to be tried now. Celery would give a message that
fails out again for ever, and a sweep would come to the same row with every beat. A sweep in which nothing fails asks nothing
more than before: what is left out is left out by its own query.
"""

import logging
from typing import Final, TypeVar, cast

from django.conf import settings
from django.db import connection
from django.db.models import CharField, Exists, Model, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Cast, Now

from escrow.chain.errors import SignerRefused, SignerUnavailable
from escrow.models import Setback

log = logging.getLogger(__name__)
Row = TypeVar("Row", bound=Model)

MAX_WAIT_SECONDS: Final = 3_600
PASSING_SECONDS: Final = 60
"""After what time alone lifts, like a limit of the hour: it is not the row's fault, does not count and sets nothing aside."""
SILENT_SECONDS: Final = 5
"""A signer has no answer: perhaps about this row alone; or it is away, and then no row is late when it is back."""
_NOTE: Final = """
INSERT INTO escrow_setback AS held (sweep, subject, failures, error, next_at, parked_at)
VALUES (
    %(sweep)s, %(subject)s, %(counts)s, %(error)s, now() + %(first)s * interval '1 second',
    CASE WHEN %(most)s <= %(counts)s THEN now() END
) ON CONFLICT (sweep, subject) DO UPDATE SET
    failures = held.failures + %(counts)s, error = excluded.error, last_at = now(),
    next_at = now() + interval '1 second' *
        CASE %(counts)s WHEN 0 THEN %(first)s ELSE least(power(2, least(held.failures + 1, 20)), %(wait)s) END,
    parked_at = CASE WHEN held.failures + %(counts)s >= %(most)s THEN coalesce(held.parked_at, now()) END
RETURNING failures, parked_at IS NOT NULL
"""


def willing(rows: "QuerySet[Row]", sweep: str) -> "QuerySet[Row]":
    """Leave out what is put off or set aside; each row that is left knows how often it has failed (`setbacks`)."""
    about = Setback.objects.filter(sweep=sweep, subject=Cast(OuterRef("pk"), CharField()))
    held = about.filter(Q(parked_at__isnull=False) | Q(next_at__gt=Now()))
    counted = rows.filter(~Exists(held)).annotate(setbacks=Subquery(about.values("failures")[:1]))
    return cast("QuerySet[Row]", counted)


def note(row: Model, sweep: str, error: BaseException) -> None:
    """Count one more failure of a row; set it aside once there are too many."""
    passes_after = _passes_after(error)
    facts: dict[str, str | int] = {
        "counts": 0 if passes_after else 1,
        "first": passes_after or 2,
        "sweep": sweep,
        "subject": str(row.pk),
        "error": f"{type(error).__name__}: {error}"[:2_000],
        "wait": MAX_WAIT_SECONDS,
        "most": settings.SWEEP_MAX_FAILURES,
    }
    with connection.cursor() as cursor:
        cursor.execute(_NOTE, facts)
        failures, is_parked = cursor.fetchone()
    if is_parked:
        log.error("%s is set aside by the sweep of %s after %s failures", row, sweep, failures)


def _passes_after(error: BaseException) -> int | None:
    """Return after how many seconds it is worth another try, of what is not the row's fault; none of what is."""
    if isinstance(error, SignerUnavailable):
        return SILENT_SECONDS
    return PASSING_SECONDS if isinstance(error, SignerRefused) and error.passes else None


def forgive(row: Model, sweep: str) -> None:
    """Forget the failures of a row that has come through."""
    if getattr(row, "setbacks", None) is not None:
        Setback.objects.filter(sweep=sweep, subject=str(row.pk)).delete()
