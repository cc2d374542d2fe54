"""The way out of a pool with the service off: what the contract and its events tell, and what can be done now.

Reads only. Everything found here anyone may send (the close request aside), and the contract pays only whom it owes.
Not here: sending (sending.py), words for people (cli).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentmarket.chain import abi
from agentmarket.chain.errors import Denied, Reverted
from agentmarket.chain.rpc import Progress, Rpc, silent
from agentmarket.chain.views import events, view

#: claims in one transaction, well within its gas
MOST_CLAIMS = 50
_OPEN = 1  # DisputeStatus.Open
_EVENTS = ("PoolOpened", "ProvidersAllowed", "Credited", "Disputed")


@dataclass(frozen=True)
class Place:
    """A pool of a contract. `pool_id` is 32 bytes."""

    contract: str
    pool_id: bytes


@dataclass(frozen=True)
class Known:
    """Whom a pool's events name: providers, and (provider, ref) of each dispute ever opened.

    `whole`: the search reached the pool's opening; without it there may be more.
    """

    providers: tuple[str, ...]
    disputes: tuple[tuple[str, bytes], ...]
    whole: bool = True


@dataclass(frozen=True)
class Line:
    """A provider's money in the pool, micro-USDC. `next_at`: seconds, 0 when nothing is pending."""

    provider: str
    matured: int
    pending: int
    next_amount: int
    next_at: int


@dataclass(frozen=True)
class OpenDispute:
    provider: str
    ref: bytes
    amount: int
    timeout_at: int


@dataclass(frozen=True)
class State:
    """A pool by the contract alone. Amounts are micro-USDC; times are seconds; `now` is the latest block's time."""

    payer: str
    free: int
    disputed: int
    ends_at: int
    closing: bool
    close_delay: int
    now: int
    lines: tuple[Line, ...]
    disputes: tuple[OpenDispute, ...]

    @property
    def ended(self) -> bool:
        return self.now >= self.ends_at


@dataclass(frozen=True)
class Step:
    """One transaction that would do something now. `marks` name what it is about, so that it is not tried twice."""

    kind: str
    data: bytes = field(repr=False)
    what: str
    marks: frozenset[tuple[str, ...]]


def discover(rpc: Rpc, place: Place, *, oldest: int = 0, progress: Progress = silent) -> Known:
    """Whom the pool's events name, read from the latest block back to `oldest` or the pool's opening.

    Raises Denied when the contract has no such pool.
    """
    rpc.must_be_contract(place.contract)
    _pool(rpc, place)
    providers: dict[str, None] = {}
    disputes: dict[tuple[str, bytes], None] = {}
    topics = [[abi.topic(name) for name in _EVENTS], "0x" + place.pool_id.hex()]
    whole = False
    chunks = rpc.logs_backwards(place.contract, topics, newest=rpc.head().number, oldest=oldest, progress=progress)
    for raw in chunks:
        logs = events(raw, place.contract)
        for log in logs:
            named = log.values["providers"] if log.name == "ProvidersAllowed" else [log.values.get("provider")]
            providers.update(dict.fromkeys(provider for provider in named if provider))
            if log.name == "Disputed":
                disputes[log.values["provider"], log.values["ref"]] = None
        if whole := any(log.name == "PoolOpened" for log in logs):
            break
    return Known(tuple(sorted(providers)), tuple(disputes), whole)


def look(rpc: Rpc, place: Place, known: Known) -> State:
    """The pool now."""
    pool = _pool(rpc, place)
    lines = [line(rpc, place, provider) for provider in known.providers]
    disputes = [_dispute(rpc, place, provider, ref) for provider, ref in known.disputes]
    return State(
        payer=pool["payer"],
        free=pool["free"],
        disputed=pool["disputed"],
        ends_at=pool["endsAt"],
        closing=pool["closing"],
        close_delay=pool["closeDelay"],
        now=rpc.head().timestamp,
        lines=tuple(lines),
        disputes=tuple(dispute for dispute in disputes if dispute is not None),
    )


def line(rpc: Rpc, place: Place, provider: str) -> Line:
    """One provider's money in the pool now."""
    found = view(rpc, place.contract, "lineOf", place.pool_id, provider)
    return Line(provider, found["matured"], found["pending"], found["nextAmount"], found["nextAt"])


def steps(state: State, place: Place, *, close: bool, skip: Collection[tuple[str, ...]] = ()) -> list[Step]:
    """What can be sent now, in the order that lets most money out. What a step brings about shows in the next look."""
    found = []
    if close and not state.ended and not state.closing:
        what = f"ask to close: reclaimable {state.close_delay} s later, or at its end if that is sooner"
        found.append(Step("request_close", abi.call("requestClose", place.pool_id), what, _marks("request_close")))
    found.extend(_timeout(place, dispute) for dispute in state.disputes if state.now >= dispute.timeout_at)
    owed = [line for line in state.lines if line.matured and ("withdraw", line.provider) not in skip]
    found += [withdrawal(place, owed[at : at + MOST_CLAIMS]) for at in range(0, len(owed), MOST_CLAIMS)]
    if state.ended and state.free:
        what = f"reclaim {state.free} micro-USDC for the payer {state.payer}"
        found.append(Step("reclaim", abi.call("reclaim", place.pool_id), what, _marks("reclaim", str(state.free))))
    return [step for step in found if not step.marks <= set(skip)]


def withdrawal(place: Place, owed: Sequence[Line]) -> Step:
    """Pay some providers what has matured; one that the token refuses stops no other."""
    total = sum(line.matured for line in owed)
    marks = frozenset(("withdraw", line.provider) for line in owed)
    if len(owed) == 1:
        data, whom = abi.call("withdraw", place.pool_id, owed[0].provider), owed[0].provider
    else:
        claims = [(place.pool_id, line.provider) for line in owed]
        data, whom = abi.call("withdrawMany", claims), f"{len(owed)} providers"
    return Step("withdraw", data, f"pay {whom} {total} micro-USDC, the fee included", marks)


def _dispute(rpc: Rpc, place: Place, provider: str, ref: bytes) -> OpenDispute | None:
    """A dispute while it waits for a ruling."""
    found = view(rpc, place.contract, "disputeOf", place.pool_id, provider, ref)
    return OpenDispute(provider, ref, found["amount"], found["timeoutAt"]) if found["status"] == _OPEN else None


def _timeout(place: Place, dispute: OpenDispute) -> Step:
    data = abi.call("resolveByTimeout", place.pool_id, dispute.provider, dispute.ref)
    what = f"end the dispute 0x{dispute.ref.hex()}: its {dispute.amount} micro-USDC go to {dispute.provider}"
    return Step("resolve_by_timeout", data, what, _marks("resolve", dispute.provider, dispute.ref.hex()))


def _pool(rpc: Rpc, place: Place) -> dict[str, Any]:
    try:
        return view(rpc, place.contract, "pool", place.pool_id)
    except Reverted as refused:
        raise Denied(refused.detail) from None


def _marks(*mark: str) -> frozenset[tuple[str, ...]]:
    return frozenset({mark})
