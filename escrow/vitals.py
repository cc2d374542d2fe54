"""Vitals: is everything there that the service stands on? Lives here: judging it by what the database knows.

Each vital is one question with a yes or no, and the facts that answer it. What a worker saw of the chain is in its pulse.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.conf import settings
from django.db.models import Min, Q

from escrow.models import ChainAction, ChainCursor, Pulse, SignerNonce

SETTLEMENT_GAS: Final = 250_000
"""A batch with twenty records: docs/GAS.md."""


@dataclass(frozen=True)
class Vital:
    """A question, whether all is well, and what was seen."""

    name: str
    ok: bool
    detail: str


def of_chain(now: datetime) -> list[Vital]:
    """Judge what needs the chain and the workers, in the order in which one would look."""
    pulse = newest_pulse()
    return [
        _worker(pulse, now),
        _chain_id(pulse),
        _contract(pulse),
        *_signers(pulse),
        _oldest_action(now),
        _indexer(now),
    ]


def newest_pulse() -> Pulse | None:
    """Return what a worker has seen last."""
    return Pulse.objects.order_by("-at").first()


def newest_look() -> Pulse | None:
    """Return what a worker has seen last of our chain."""
    return Pulse.objects.filter(chain_id=settings.CHAIN_ID).order_by("-at").first()


def enough_wei(pulse: Pulse) -> int | None:
    """Return what a signer should have: the gas of some settlements at today's price; none while that is not known."""
    if pulse.gas_price_wei is None:
        return None
    return settings.SIGNER_RESERVE_SETTLEMENTS * SETTLEMENT_GAS * pulse.gas_price_wei


def age_of_oldest_action(now: datetime) -> float | None:
    """Return for how many seconds the oldest action has waited for the chain to take it; none when nothing waits.

    What the relay has put off on purpose counts too: whoever waits for it waits.
    """
    oldest = ChainAction.objects.filter(status__in=ChainAction.WAITING).aggregate(at=Min("created_at"))["at"]
    return None if oldest is None else max((now - oldest).total_seconds(), 0.0)


def _worker(pulse: Pulse | None, now: datetime) -> Vital:
    if pulse is None:
        return Vital("worker", ok=False, detail="no worker has written a heartbeat yet")
    age = max((now - pulse.at).total_seconds(), 0.0)
    said = f"{pulse.worker} wrote its heartbeat {age:.0f} s ago"
    return Vital("worker", age <= settings.PULSE_STALE_SECONDS, said)


def _unasked(pulse: Pulse | None) -> str:
    """Say why something of the chain is not known: the node gave no answer, or nobody has asked it."""
    return (pulse.error if pulse else "") or "no worker has asked the node yet"


def _chain_id(pulse: Pulse | None) -> Vital:
    if pulse is None or pulse.chain_id is None:
        return Vital("chain_id", ok=False, detail=_unasked(pulse))
    if pulse.chain_id != settings.CHAIN_ID:
        said = f"the node is on chain {pulse.chain_id}, and the service on chain {settings.CHAIN_ID}"
        return Vital("chain_id", ok=False, detail=said)
    return Vital("chain_id", ok=True, detail=f"chain {pulse.chain_id}")


def _contract(pulse: Pulse | None) -> Vital:
    if pulse is None or pulse.code_present is None:
        return Vital("contract", ok=False, detail=_unasked(pulse))
    where = settings.ESCROW_ADDRESS or "ESCROW_ADDRESS, which is not set"
    if not pulse.code_present:
        return Vital("contract", ok=False, detail=f"there is no code at {where}")
    return Vital("contract", ok=True, detail=f"there is code at {where}")


def _signers(pulse: Pulse | None) -> Iterator[Vital]:
    """One for all that signs: what stands out of it is said."""
    stopped = SignerNonce.objects.filter(~Q(stopped_reason=""), chain_id=settings.CHAIN_ID).order_by("pk")
    said = [f"{signer.address} is stopped: {signer.stopped_reason}" for signer in stopped]
    yield Vital("signers", not said, "; ".join(said) or "none is stopped")
    enough = enough_wei(pulse) if pulse else None
    if pulse is None or enough is None:
        yield Vital("signer_funds", ok=False, detail=_unasked(pulse))
        return
    funds = {address: int(seen["balance_wei"]) for address, seen in pulse.signers.items()}
    poor = [f"{address} has {has} wei, and {enough} are wanted" for address, has in funds.items() if has < enough]
    many = f"each of {len(funds)} has at least {enough} wei"
    yield Vital("signer_funds", not poor, "; ".join(poor) or many)


def _oldest_action(now: datetime) -> Vital:
    age = age_of_oldest_action(now)
    if age is None:
        return Vital("oldest_action", ok=True, detail="no chain action waits")
    return Vital("oldest_action", age <= settings.ACTION_STALE_SECONDS, f"the oldest has waited for {age:.0f} s")


def _indexer(now: datetime) -> Vital:
    cursor = ChainCursor.objects.filter(chain_id=settings.CHAIN_ID).order_by("-read_at").first()
    if cursor is None:
        return Vital("indexer", ok=False, detail="the chain has not been read yet")
    if cursor.stopped_reason:
        return Vital("indexer", ok=False, detail=f"reading the chain has stopped: {cursor.stopped_reason}")
    age = max((now - cursor.read_at).total_seconds(), 0.0)
    said = f"read up to block {cursor.block_number}, {age:.0f} s ago"
    return Vital("indexer", age <= settings.INDEX_STALE_SECONDS, said)
