"""The past under another policy. Lives here: reading decisions in the order of time, for `escrow.backtest` to replay.

Payments, holds and denials each have an index in that order, so they are read side by side and merged: nothing is sorted, and a
history of any length takes the memory of a few pages. The view `Decision` reads the same rows for lists.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Q, QuerySet

from escrow import backtest
from escrow.backtest import Past, Report
from escrow.errors import InvalidInput
from escrow.models import Denial, Hold, Kind, Payment, Reason, Session, Transfer
from escrow.policy import Policy

PAGE: Final = 2_000
"""Rows that are fetched at once from each table."""
WARM_UP: Final = timedelta(days=1)
"""The longest time that slides: what was spent before a period counts in it for so long."""
_ASKED: Final = {"approval_required": "approval_above", "approval_refused": "approval_above"}
"""Words of the database's for what a rule of the policy did."""


def replay(*, payer_id: UUID, proposed: Policy, days: int, now: datetime, session: Session | None = None) -> Report:
    """Return what a policy would have made of the last days of one session, or of each session of a payer's.

    Raises InvalidInput when there is more to read than is read at once.
    """
    since = now - timedelta(days=days)
    past = History(payer_id, session, _read_from(proposed, since), returns=proposed.max_total is not None)
    most = settings.BACKTEST_MAX_DECISIONS
    if past.length(most + 1) > most:
        raise InvalidInput("days", f"has more than {most} decisions to read", _fewer(past, most, now))
    with transaction.atomic():  # which keeps the cursors open
        _by_index()
        return backtest.replay(past.entries(), proposed, since=since)


@dataclass(frozen=True, slots=True)
class History:
    """What was decided for one session, or for all of a payer's, since a time; None is the beginning.

    ``returns`` is whether what came back to the sessions is read too.
    """

    payer_id: UUID
    session: Session | None
    since: datetime | None
    returns: bool

    def length(self, most: int) -> int:
        """Return how many entries it has, at most so many."""
        found = 0
        for rows in self._sources():
            found += rows[: most - found].count()
            if found >= most:
                break
        return found

    def newest(self, count: int) -> datetime | None:
        """Return since when the newest so many entries are; None when there are no more than that."""
        times: Iterator[datetime] = heapq.merge(
            *(rows.reverse().values_list("created_at", flat=True)[: count + 1] for rows in self._sources()),
            reverse=True,
        )
        for place, at in enumerate(times):
            if place == count:
                return at
        return None

    def entries(self) -> Iterator[Past]:
        """Return the entries in the order of time, to be read within one database transaction."""
        streams = [_stream(rows) for rows in self._sources()]
        return heapq.merge(*streams, key=lambda past: past.at)

    def _sources(self) -> "list[QuerySet[Any]]":
        of: dict[str, Any] = {"payer_id": self.payer_id} if self.session is None else {"session_id": self.session.pk}
        payments = Payment.objects.filter(policy_version__isnull=False, **of).order_by("id")
        denials = Denial.objects.filter(**of).order_by("id")
        holds = Hold.objects.filter(policy_version__isnull=False, **of).order_by("created_at", "id")
        back = self._returns()
        if self.since is not None:
            first = _first_id(self.since)
            payments, denials = payments.filter(id__gte=first), denials.filter(id__gte=first)
            holds, back = holds.filter(created_at__gte=self.since), back.filter(created_at__gte=self.since)
        return [payments, denials, holds, *([back] if self.returns else [])]

    def _returns(self) -> "QuerySet[Transfer]":
        into = Q(receiver__session__pool__payer_id=self.payer_id)
        if self.session is not None:
            into = Q(receiver_id=self.session.account_id)
        given = Q(reason__in=[Reason.SESSION_OPEN, Reason.SESSION_TOP_UP])
        return Transfer.objects.filter(into).exclude(given).exclude(reason=Reason.PAYMENT).order_by("created_at", "id")


def _by_index() -> None:
    """Have the rows read in their order to the end of the database transaction, also where a session is half of a table."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('enable_sort', 'off', true), set_config('enable_seqscan', 'off', true)")


def _read_from(proposed: Policy, since: datetime) -> datetime | None:
    """Return from when on the past has to be read, to know what counts against a policy's limits since a time."""
    if proposed.max_total is not None or proposed.new_recipient_max is not None:
        return None
    slides = (proposed.max_per_hour, proposed.max_per_day, proposed.max_tx_per_minute)
    return since - WARM_UP if any(limit is not None for limit in slides) else since


def _fewer(past: History, most: int, now: datetime) -> str:
    """Return what would pass instead of a period with too much in it."""
    first = past.newest(most)
    fit = 0 if past.since is None or first is None else (now - first - WARM_UP).days
    if fit > 0:
        return str(fit)
    narrower = [] if past.session is not None else ["the session_id of one session"]
    if past.since is None:
        narrower.append("a policy without max_total and new_recipient_max, which count from the beginning")
    return ", or ".join(narrower) or "a session that has decided less"


def _first_id(at: datetime) -> UUID:
    """Return the smallest id of version 7 that is made at a time."""
    return UUID(int=int(at.astimezone(UTC).timestamp() * 1_000) << 80)


def _stream(rows: "QuerySet[Any]") -> Iterator[Past]:
    columns, read = _READERS[rows.model]
    return (read(*row) for row in rows.values_list(*columns).iterator(chunk_size=PAGE))


def _payment(at: datetime, session: UUID, to: str, pool: UUID, party: UUID, capability: str, micros: int) -> Past:
    return Past(at, session, Kind.PAYMENT, to, (pool, party), capability or None, micros, was_allowed=True)


def _hold(at: datetime, session: UUID, to: str, pool: UUID, party: UUID, capability: str, micros: int) -> Past:
    return Past(at, session, Kind.HOLD, to, (pool, party), capability or None, micros, was_allowed=True)


def _denial(
    at: datetime, session: UUID, kind: str, to: str, pool: UUID, party: UUID, capability: str, micros: int, rule: str
) -> Past:
    rule = _ASKED.get(rule, rule)
    return Past(at, session, kind, to, (pool, party), capability or None, micros, was_allowed=False, rule=rule)


def _return(at: datetime, session: UUID, micros: int) -> Past:
    return Past(at, session, backtest.RETURN, "", None, None, micros, was_allowed=True)


_READERS: Final[dict[type, tuple[tuple[Any, ...], Any]]] = {
    Payment: (("created_at", "session_id", "to", "pool_id", "party_id", "capability", "amount_micros"), _payment),
    Hold: (
        (
            *("created_at", "session_id", "to", "session__pool_id", "party_id", "capability"),
            F("account__received_micros"),
        ),
        _hold,
    ),
    Denial: (
        (
            *("created_at", "session_id", "kind", "to", "session__pool_id", "party_id", "capability"),
            *("amount_micros", "rule"),
        ),
        _denial,
    ),
    Transfer: (("created_at", "receiver__session__pk", "amount_micros"), _return),
}
