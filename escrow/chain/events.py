"""What the contract has told, as typed values. Every balance can be rebuilt from these alone (IBudgetPool says how).

Lives here: one dataclass per event, and the decoding of raw logs. Pure. Not here: fetching logs (client.py), acting on
them (the indexer).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from escrow.chain.abi import codec
from escrow.chain.wire import Terms


@dataclass(frozen=True, order=True)
class LogPlace:
    """Where a log stands on the chain. Ordered by block and index; hashes are `0x` strings."""

    block_number: int
    log_index: int
    block_hash: str
    transaction_hash: str
    address: str


@dataclass(frozen=True)
class PoolEvent:
    """The part every event has."""

    place: LogPlace


@dataclass(frozen=True)
class PoolOpened(PoolEvent):
    pool_id: bytes
    payer: str
    terms: Terms
    deposit: int


@dataclass(frozen=True)
class PoolToppedUp(PoolEvent):
    pool_id: bytes
    from_: str
    amount: int


@dataclass(frozen=True)
class ProvidersAllowed(PoolEvent):
    pool_id: bytes
    providers: tuple[str, ...]


@dataclass(frozen=True)
class BatchSettled(PoolEvent):
    """Comes after the `Credited` events of the same batch, in the same chain transaction."""

    pool_id: bytes
    first_seq: int
    count: int
    total: int
    root: bytes


@dataclass(frozen=True)
class Credited(PoolEvent):
    """The net credit of one provider in the batch that starts at `first_seq`."""

    pool_id: bytes
    provider: str
    amount: int
    first_seq: int


@dataclass(frozen=True)
class Withdrawn(PoolEvent):
    """`net` went `to` the provider or its payout address, `fee` stays in the contract; the line fell by both."""

    pool_id: bytes
    provider: str
    to: str
    net: int
    fee: int


@dataclass(frozen=True)
class FeesWithdrawn(PoolEvent):
    to: str
    amount: int


@dataclass(frozen=True)
class CloseRequested(PoolEvent):
    pool_id: bytes
    reclaimable_at: int


@dataclass(frozen=True)
class Reclaimed(PoolEvent):
    pool_id: bytes
    payer: str
    amount: int


@dataclass(frozen=True)
class Disputed(PoolEvent):
    pool_id: bytes
    provider: str
    ref: bytes
    amount: int


@dataclass(frozen=True)
class DisputeResolved(PoolEvent):
    """`to_provider` matured at once, `to_payer` is free money of the pool again."""

    pool_id: bytes
    provider: str
    ref: bytes
    to_provider: int
    to_payer: int
    by_timeout: bool


@dataclass(frozen=True)
class ItemRejected(PoolEvent):
    """`settleMany` left a batch of the pool out; `reason` is the revert data of `settle`."""

    pool_id: bytes
    reason: bytes


@dataclass(frozen=True)
class WithdrawalRejected(PoolEvent):
    """`withdrawMany` left a provider out; `reason` is the revert data of `withdraw`."""

    pool_id: bytes
    provider: str
    reason: bytes


@dataclass(frozen=True)
class AuthorizerChangeRequested(PoolEvent):
    """The payer named another authorizer, whose batches alone land once it is applied, from `effective_at` on.

    With `effective_at` zero, `next` is the one that it has, and an earlier request is taken back.
    """

    pool_id: bytes
    next: str
    effective_at: int


@dataclass(frozen=True)
class AuthorizerChanged(PoolEvent):
    pool_id: bytes
    authorizer: str


@dataclass(frozen=True)
class PayoutChangeRequested(PoolEvent):
    """From `effective_at` on a provider's money of this pool goes to `payout`."""

    pool_id: bytes
    provider: str
    payout: str
    effective_at: int


@dataclass(frozen=True)
class DepositsPaused(PoolEvent):
    paused: bool


@dataclass(frozen=True)
class TvlCapSet(PoolEvent):
    cap: int


_TYPES: dict[str, type[PoolEvent]] = {
    kind.__name__: kind
    for kind in (
        PoolOpened,
        PoolToppedUp,
        ProvidersAllowed,
        BatchSettled,
        Credited,
        Withdrawn,
        FeesWithdrawn,
        CloseRequested,
        Reclaimed,
        Disputed,
        DisputeResolved,
        ItemRejected,
        WithdrawalRejected,
        AuthorizerChangeRequested,
        AuthorizerChanged,
        PayoutChangeRequested,
        DepositsPaused,
        TvlCapSet,
    )
}
_FIELDS = {
    "poolId": "pool_id",
    "id": "pool_id",
    "from": "from_",
    "firstSeq": "first_seq",
    "reclaimableAt": "reclaimable_at",
    "effectiveAt": "effective_at",
    "toProvider": "to_provider",
    "toPayer": "to_payer",
    "byTimeout": "by_timeout",
}


def topics() -> list[str]:
    """The `0x` topics of all events above, to ask a node for nothing else."""
    return ["0x" + topic.hex() for topic, entry in codec("BudgetPool").events.items() if entry.name in _TYPES]


def decode_log(log: Mapping[str, Any]) -> PoolEvent | None:
    """The event of one JSON-RPC log object; None for a log of any other kind."""
    decoded = codec("BudgetPool").event(
        [bytes.fromhex(topic[2:]) for topic in log["topics"]], bytes.fromhex(log["data"][2:])
    )
    if decoded is None or decoded[0] not in _TYPES:
        return None
    name, values = decoded
    fields: dict[str, Any] = {_FIELDS.get(key, key): value for key, value in values.items()}
    if "terms" in fields:
        fields["terms"] = Terms(*fields["terms"])
    place = LogPlace(
        block_number=int(log["blockNumber"], 16),
        log_index=int(log["logIndex"], 16),
        block_hash=log["blockHash"],
        transaction_hash=log["transactionHash"],
        address=log["address"],
    )
    return _TYPES[name](place=place, **fields)
