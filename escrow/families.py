"""Sessions that come out of sessions. Lives here: who is above and below a session, and the accounts between them.

A child's budget is its parent's money. What comes back from a closed session goes to the nearest session above it that is
not closed, else to the pool.
"""

from datetime import datetime, timedelta
from typing import Final

from escrow import ledger
from escrow.errors import InvalidInput, StateConflict
from escrow.models import Account, Session

MAX_DEPTH: Final = 5
"""Sessions above each other: more is a mistake, and each step back through them is a query."""

MAX_OPEN: Final = 500
"""Sessions inside one of a pool, however deep, that are open or paused. A session's own key opens them, each with as little as
a micro-USDC, and whoever pauses or closes the one above has to lock them all: some 3 ms each."""

MAX_CLOSED_A_DAY: Final = 5_000
"""Sessions right inside one: their shares of its limits count for a span after their end, so each payment of it reads them."""


def above(session: Session) -> list[Session]:
    """Return the sessions above one, nearest first."""
    found: list[Session] = []
    parent_id = session.parent_id
    while parent_id is not None:
        found.append(Session.objects.select_related("pool", "account").get(pk=parent_id))
        parent_id = found[-1].parent_id
    return found


def below(session: Session) -> list[Session]:
    """Return the sessions below one that are not closed, nearest first."""
    found: list[Session] = []
    level = [session.pk]
    while level:
        children = list(
            Session.objects.filter(parent__in=level)
            .exclude(status=Session.Status.CLOSED)
            .select_related("pool", "account")
            .order_by("pk")
        )
        found += children
        level = [child.pk for child in children]
    return found


def lock(session: Session) -> tuple[dict[int, Account], list[Session]]:
    """Lock the accounts of a session, of those below it and of what their money goes back to; return them, and those below.

    All at once, in primary-key order. Raises StateConflict when a session was opened below it meanwhile.
    """
    listed = below(session)
    locked = ledger.lock([session.account, *ways_back(session), *(child.account for child in listed)])
    found = below(session)
    if any(child.account_id not in locked for child in found):
        raise StateConflict("session", "changing", "A session is being opened inside it; repeat the request.")
    return locked, found


def ways_back(session: Session) -> list[Account]:
    """Return the accounts that money of a session may go back to once it is closed, to be locked with its own."""
    return [*(parent.account for parent in above(session)), ledger.free(session.pool)]


def return_account(session: Session) -> Account:
    """Return where money that comes back to a session goes now. The caller has locked it: see `ways_back`."""
    for candidate in [session, *above(session)]:
        if candidate.status != Session.Status.CLOSED:
            return candidate.account
    return ledger.free(session.pool)


def require_room(parent: Session, now: datetime) -> None:
    """Return when a session may have another below it. Raises InvalidInput or StateConflict."""
    path = above(parent)
    if len(path) + 1 >= MAX_DEPTH:
        raise InvalidInput("session_id", f"already is {MAX_DEPTH} sessions deep", "a session nearer to the pool")
    top = path[-1] if path else parent
    if len(below(top)) >= MAX_OPEN:
        detail = f"There are {MAX_OPEN} sessions inside session {top.pk}, and no more may be open: close one first."
        raise StateConflict("session", "full", detail)
    if parent.children.filter(closed_at__gt=now - timedelta(days=1)).count() >= MAX_CLOSED_A_DAY:
        detail = f"{MAX_CLOSED_A_DAY} sessions inside it were closed within a day; open another one later."
        raise StateConflict("session", "full", detail)
