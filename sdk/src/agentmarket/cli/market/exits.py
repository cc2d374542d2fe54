"""The exit codes of the market's commands, and which error ends with which."""

from enum import IntEnum

from agentmarket import errors
from agentmarket.chain.errors import Denied, MissingExtra


class Exit(IntEnum):
    """0 to 2 and 4 mean the same in every command; 3 is "nothing to do" in those that need a node."""

    DONE = 0
    #: it did not work: no connection, a limit on requests, a fault of the market; nothing was charged
    FAILED = 1
    #: the market or this package refused, and nothing was charged
    DENIED = 2
    #: less money is left than that; nothing was charged
    DRY = 3
    #: money was asked to move and no certain answer came
    UNKNOWN = 4
    #: the session, the pool, the key or the hold has expired; nothing was charged
    EXPIRED = 5


CODES = (
    "Exit codes: 0 done; 1 failed (no connection, too many requests, a fault of the market); 2 denied (refused, nothing "
    "charged; also: a person has to approve it first); 3 dry (less money is left than that); 4 unknown (money may have "
    "moved: run the printed command, it pays once); 5 expired (the session, pool, key or hold)."
)

#: a refusal that is about this request, and not about now
_REFUSALS = (
    errors.InvalidRequest,
    errors.Unauthenticated,
    errors.Forbidden,
    errors.NotFound,
    errors.Conflict,
    Denied,
    MissingExtra,
)


def exit_of(error: errors.AgentMarketError) -> Exit:
    """The exit code that an error ends with. What is not known about money comes first."""
    if isinstance(error, errors.OutcomeUnknown) or error.outcome == "unknown":
        return Exit.UNKNOWN
    if _expired(error):
        return Exit.EXPIRED
    if isinstance(error, errors.InsufficientFunds):
        return Exit.DRY
    return Exit.DENIED if isinstance(error, _REFUSALS) else Exit.FAILED


def _expired(error: errors.AgentMarketError) -> bool:
    if error.state == "expired" or error.rule == "expires_at":
        return True
    # A key's refusal has no facts besides its sentence.
    return isinstance(error, errors.Unauthenticated) and "has expired" in error.detail
