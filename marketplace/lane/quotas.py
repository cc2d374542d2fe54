"""The lane's side of rate limits. Lives here: who is counted before an order waits for the database, and who after.

A key that has opened something before is counted at once, and refused without a question to the database. One that has not may
be made up: until the database has admitted it, only its address has a counter, so made-up keys fill no memory.
"""

from functools import lru_cache
from typing import Any

from escrow.errors import EscrowError
from marketplace.api import rates
from marketplace.api.rates import Standing
from marketplace.lane.statement import Order


def before(order: Order, scope: Any) -> Standing | None:
    """Count a payment of a key that has opened something; of another one, return how its address stands if it is refused."""
    if rates.is_live(order.secret_hash):
        return rates.count(order.key_id, pays=True)
    forwarded = next((value for name, value in reversed(scope["headers"]) if name == b"x-forwarded-for"), b"")
    address = rates.caller_at((scope.get("client") or ("",))[0], forwarded.decode("latin-1"))
    standing = rates.UNAUTHENTICATED.standing(address)
    return None if standing.is_within else standing


def admitted(order: Order) -> Standing:
    """Count the first payment of a key that the database has just admitted."""
    rates.note_live(order.secret_hash)
    return rates.count(order.key_id, pays=True)


def refused(order: Order, refusal: EscrowError) -> None:
    """Count a refusal that is kept."""
    if refusal.code in rates.STORED_REFUSALS:
        rates.REFUSALS.hit(order.key_id)


def headers(standing: Standing) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    """Return what an answer says of a quota."""
    return _policy(standing.quota.policy), (b"ratelimit", standing.text.encode())


@lru_cache(maxsize=10)
def _policy(policy: str) -> tuple[bytes, bytes]:
    return b"ratelimit-policy", policy.encode()
