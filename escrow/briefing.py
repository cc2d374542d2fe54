"""Briefing: the facts that one must know before one does something about a row. Lives here: gathering them, from rows alone.

The web asks no node, so what is told of the chain is what a worker saw last, with its age; and of fees, the least that is
offered, because what the market asks for is known only when the relay signs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db.models import QuerySet

from escrow import gas, remedies, vitals
from escrow.models import ChainAction, ChainCursor, Pulse, Remedy, Setback, SignerNonce
from escrow.outlook import OUTCOMES, age, iso, newest_attempt
from escrow.remedies import Subject

Kind = Remedy.Kind


@dataclass(frozen=True)
class Fact:
    """A name and what is known under it; where actions are meant, they are named too."""

    name: str
    says: str
    actions: Sequence[ChainAction] = ()


def facts(subject: Subject, kind: Kind, *, now: datetime) -> list[Fact]:
    """Return what to know of a row before a remedy of a kind, the weightiest first. What is not known is left out."""
    if isinstance(subject, SignerNonce):
        found = _of_signer(subject, now)
    elif isinstance(subject, ChainCursor):
        found = _of_cursor(subject, now)
    elif isinstance(subject, Setback):
        found = _of_setback(subject, now)
    else:
        found = _of_action(subject, kind, now)
    return [fact for fact in found if fact.says]


def _of_action(action: ChainAction, kind: Kind, now: datetime) -> Iterator[Fact]:
    yield Fact("Error", action.error)
    yield Fact("Asked for", f"{_since(action.created_at, now)}, as {action.dedupe_key}")
    yield Fact("Pool", str(action.pool_id or ""))
    if action.status in (ChainAction.Status.PLANNED, ChainAction.Status.PARKED):
        yield Fact("Refused", f"{action.attempts} of {settings.RELAY_MAX_ATTEMPTS} times")
    if action.nonce is None:
        return
    yield Fact("Nonce", f"{action.nonce} of {action.signer_address}")
    if action.status in ChainAction.UNMINED:
        mine = ChainAction.objects.filter(signer_address=action.signer_address, status__in=ChainAction.UNMINED)
        before, behind = mine.filter(nonce__lt=action.nonce), mine.filter(nonce__gt=action.nonce)
        yield _these("Mined before it", before, "its nonce is the next one: nothing has to be mined before it")
        yield _these("Waits behind it", behind, "nothing")
        yield from _of_fees(action, kind, now)


def _of_fees(action: ChainAction, kind: Kind, now: datetime) -> Iterator[Fact]:
    last = newest_attempt(action)
    if last is None:
        return
    sent = f"first sent {_since(last.sent_at, now)}" if last.sent_at else "not sent yet"
    outcome = OUTCOMES.get(last.outcome, last.outcome)
    yield Fact("Newest attempt", f"{last.tx_hash}, {sent}: {outcome}")
    yield Fact(
        "Attempts", f"{action.signed_attempts.count()}; past {gas.MAX_REPLACEMENTS} the relay adds none by itself"
    )
    yield Fact("Offers now", _offer(last.max_fee_wei, last.tip_wei))
    if kind not in (Kind.BUMP, Kind.RELEASE):
        return
    fees = gas.least(last)
    limit = gas.CANCEL_GAS if kind == Kind.RELEASE or last.cancels else action.gas_limit or 0
    cost = f", so up to {fees.max_fee * limit / gas.ETHER:.9f} ETH for {limit:,} gas" if limit else ""
    yield Fact("Will offer at least", f"{_offer(fees.max_fee, fees.tip)}{cost}; more if the market asks for more")
    pulse = vitals.newest_look()
    if pulse is not None and pulse.gas_price_wei is not None:
        yield Fact("Market", f"{gwei(pulse.gas_price_wei)} at most, as {_seen(pulse, now)}")


def _of_signer(signer: SignerNonce, now: datetime) -> Iterator[Fact]:
    yield Fact("Stopped because", signer.stopped_reason)
    yield Fact("Our next nonce", str(signer.next_nonce))
    yield Fact("The chain's next nonce", _chain_nonce(signer, now))
    mine = ChainAction.objects.filter(signer_address=signer.address, status__in=ChainAction.IN_FLIGHT)
    yield _these("In flight", mine, "nothing: the chain's nonce may be taken")


def _chain_nonce(signer: SignerNonce, now: datetime) -> str:
    pulse = vitals.newest_look()
    seen = pulse.signers.get(signer.address) if pulse else None
    if pulse is None or seen is None:
        return "not known: no worker has looked; start one first"
    ours = signer.next_nonce - int(seen["nonce"])
    apart = "as ours" if not ours else f"{abs(ours)} {'behind' if ours > 0 else 'ahead of'} ours"
    late = ", too long ago to be taken" if now - pulse.at > remedies.FRESH else ""
    return f"{seen['nonce']}, {apart}, as {_seen(pulse, now)}{late}"


def _of_cursor(cursor: ChainCursor, now: datetime) -> Iterator[Fact]:
    yield Fact("Stopped because", cursor.stopped_reason)
    yield Fact("In the ledger up to", f"block {cursor.block_number}, {cursor.block_hash}, of {iso(cursor.block_time)}")
    head = f"block {cursor.head_number}" if cursor.head_number else ""
    yield Fact("Newest block that was read", head)
    yield Fact("Read", _since(cursor.read_at, now))


def _of_setback(setback: Setback, now: datetime) -> Iterator[Fact]:
    yield Fact("Error", setback.error)
    yield Fact("Sweep and row", f"{setback.sweep}, {setback.subject}")
    yield Fact("Failed", f"{setback.failures} times, first {_since(setback.first_at, now)}")
    yield Fact("Set aside", _since(setback.parked_at, now) if setback.parked_at else "")


def _these(name: str, actions: "QuerySet[ChainAction]", none: str) -> Fact:
    shown, n = list(actions.order_by("nonce")[:10]), actions.count()
    more = ", of which these have the lowest nonces" if n > len(shown) else ""
    return Fact(name, f"{n} chain action{'s' if n > 1 else ''}{more}" if n else none, shown)


def _seen(pulse: Pulse, now: datetime) -> str:
    return f"{pulse.worker} saw it {age(pulse.at, now)} ago"


def _since(at: datetime, now: datetime) -> str:
    return f"{iso(at)}, {age(at, now)} ago"


def _offer(max_fee_wei: int, tip_wei: int) -> str:
    return f"{gwei(max_fee_wei)} at most, of it {gwei(tip_wei)} as tip"


def gwei(wei: int) -> str:
    """Return a price of gas in gwei, whole."""
    return f"{wei / gas.GWEI:.9f}".rstrip("0").rstrip(".") + " gwei"
