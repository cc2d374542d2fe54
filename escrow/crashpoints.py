"""Crash points: named places where the harness of `manage.py crashtest` kills the process, as a power cut would.

Lives here: their names, and the kill. In production nothing can arm one: the settings refuse to start.
"""

import os
import signal
from typing import Final

POINTS: Final = (
    "settle.signed",  # the batch is signed, its database transaction not committed
    "settle.committed",  # debts are in the batch, no chain action carries it yet
    "dispatch.committed",  # a chain action carries it, nothing of it is signed
    "relay.signing",  # the chain transaction is signed, nonce and bytes not committed
    "relay.signed",  # nonce and bytes are committed, nothing is sent
    "relay.sent",  # the node has it, and we have not noted that
    "relay.broadcast",  # noted as sent, not seen mined
    "relay.mined",  # the receipt was read, and we have not noted that
    "relay.replacing",  # the replacement is committed, and not sent
    "relay.final",  # noted as final
    "index.read",  # the logs were read, their database transaction not committed
    "index.committed",  # logs, transfers and cursor are committed, the message is not acknowledged
    "void.committed",  # the debts of a batch that did not land are payable again
    "payout.planned",  # a withdrawal is planned
    "send.committed",  # a payment is committed, its answer not given
)
_armed: dict[str, int] = {}


def arm(point: str, *, passes: int = 0) -> None:
    """Kill this process with SIGKILL when it reaches a point after having passed it some times. Raises ValueError."""
    if point not in POINTS:
        raise ValueError(f"{point!r} is no crash point; there are {', '.join(POINTS)}")
    _armed[point] = passes


def reach(point: str) -> None:
    """Die here if this point is armed."""
    if point not in _armed:
        return
    if _armed[point]:
        _armed[point] -= 1
    else:
        os.kill(os.getpid(), signal.SIGKILL)


if _named := os.environ.get("CRASH_AT"):
    arm(_named)
