"""Pausing: while the chain stands still, what is owed may grow up to a bound. Lives here: when new spending stops and goes on.

What is owed is in the contract already, and waits there. But it has to land before its pool ends, and while no block comes
nobody knows when that will be: so no more is sold on trust than the bound. What was set aside before is still claimed.
"""

import logging
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import F, Sum

from escrow import money
from escrow.models import Account, ChainCursor

log = logging.getLogger(__name__)
Kind = Account.Kind


def look(*, now: datetime) -> bool:
    """Stop new spending once the chain is silent and enough is owed; let it go on with the next block.

    Returns whether that changed. The chain is silent, too, when no node answers or the indexer has stopped: for what is owed
    it is the same. `escrow_judge` reads the outcome, so it holds for the next request on every web.
    """
    ours = ChainCursor.objects.filter(chain_id=settings.CHAIN_ID, contract_address=settings.ESCROW_ADDRESS)
    cursor = ours.first()
    if cursor is None or cursor.head_time is None:  # nothing was read yet, so nothing is known of the chain
        return False
    silent = cursor.head_time < now - timedelta(seconds=settings.CHAIN_SILENT_SECONDS)
    if not silent:
        resumed = ours.filter(paused_at__isnull=False).update(paused_at=None)
        if resumed:
            log.warning("The chain goes on: pools spend again")
        return bool(resumed)
    if cursor.paused_at is not None or (owed := unsettled_micros()) < settings.UNSETTLED_MICROS:
        return False
    log.error(
        "No block since %s, and %s USDC wait to be settled: nothing new is spent until one comes",
        cursor.head_time,
        money.render(owed),
    )
    return bool(ours.filter(paused_at=None).update(paused_at=now))


def unsettled_micros() -> int:
    """Return what pools owe and the chain has not credited, signed or not, in micro-USDC."""
    owed = Account.objects.filter(
        kind__in=[Kind.PAYABLE, Kind.SETTLING],
        pool__chain_id=settings.CHAIN_ID,
        pool__contract_address=settings.ESCROW_ADDRESS,
    )
    return owed.aggregate(held=Sum(F("received_micros") - F("sent_micros")))["held"] or 0
