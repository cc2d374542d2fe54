"""What the lane says when a batch could not be decided. Lives here: which fault is sure to have had no effect, which is not."""

from typing import Final

from marketplace.api import errors
from marketplace.api.errors import Problem
from marketplace.lane.batches import OUTAGES, TIMEOUTS, Full, GivenUp

_RETRY_AFTER: Final = {"Retry-After": str(errors.RETRY_AFTER_SECONDS)}


def problem_of(fault: Exception) -> Problem:
    """Return the fault of a batch as a problem."""
    if isinstance(fault, Full):
        return _unavailable("Too many payments are waiting already; this one was not tried.", untouched=True)
    if isinstance(fault, (GivenUp, *TIMEOUTS)):
        detail = "The accounts of this payment were busy for too long; nothing of it was done."
        return _unavailable(detail, untouched=True)
    if isinstance(fault, OUTAGES):
        return _unavailable("The database did not answer in time.", untouched=False)
    # Logged where it was caught; what is not known is not said to have had no effect.
    return Problem("internal", "Something broke here; the fault is logged.", retryable=True)


def _unavailable(detail: str, *, untouched: bool) -> Problem:
    return Problem("unavailable", detail, headers=_RETRY_AFTER, retryable=True, untouched=untouched)
