"""A signed batch as a file: what `GET /v1/batches/{id}` answers is all that landing it needs.

Reads and checks; not here: sending (sending.py).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from eth_utils.address import is_address, to_checksum_address

from agentmarket.chain import abi
from agentmarket.chain.errors import Denied
from agentmarket.chain.rpc import Rpc
from agentmarket.chain.views import view
from agentmarket.errors import InvalidReply

_HEAD, _ADDRESS, _RECORD = 5, 20, 6


@dataclass(frozen=True)
class SignedBatch:
    """One batch with its authorizer's signature. `deadline` is seconds, the last at which it may land."""

    contract: str
    chain_id: int
    pool_id: bytes
    packed: bytes = field(repr=False)
    root: bytes
    deadline: int
    signature: bytes = field(repr=False)

    @property
    def first_seq(self) -> int:
        return int.from_bytes(self.packed[:4], "big")

    def calldata(self) -> bytes:
        return abi.call("settle", self.pool_id, self.packed, self.root, self.deadline, self.signature)

    def credits(self) -> dict[str, int]:
        """What each provider would be credited, micro-USDC. Raises InvalidReply when `packed` is no batch."""
        found: dict[str, int] = {}
        for provider, micros in records(self.packed)[1]:
            found[provider] = found.get(provider, 0) + micros
        return found


def records(packed: bytes) -> tuple[int, list[tuple[str, int]]]:
    """The first sequence number, and each record's provider and micro-USDC. Raises InvalidReply for what is no batch."""
    start = _HEAD + _ADDRESS * packed[4] if len(packed) >= _HEAD else 0
    if start <= _HEAD or len(packed) <= start or (len(packed) - start) % _RECORD:
        raise InvalidReply("`packed` is not a batch: fetch the file again.")
    providers: list[str] = [to_checksum_address(packed[at : at + _ADDRESS]) for at in range(_HEAD, start, _ADDRESS)]
    found = []
    for at in range(start, len(packed), _RECORD):
        if packed[at] >= len(providers):
            raise InvalidReply("`packed` names a provider that it does not list: fetch the file again.")
        found.append((providers[packed[at]], int.from_bytes(packed[at + 1 : at + _RECORD], "big")))
    return int.from_bytes(packed[:4], "big"), found


def read(document: Any) -> SignedBatch:
    """A batch from its JSON. Raises InvalidReply naming what is missing."""
    if not isinstance(document, Mapping):
        raise InvalidReply("A batch is a JSON object.")
    try:
        contract = document["contract"]
        if not is_address(contract):
            raise InvalidReply(f"The batch's contract {contract!r} is not an address.")
        batch = SignedBatch(
            contract=to_checksum_address(contract),
            chain_id=_whole(document, "chain_id"),
            pool_id=_bytes(document, "pool_key", 32),
            packed=_bytes(document, "packed"),
            root=_bytes(document, "root", 32),
            deadline=_deadline(document),
            signature=_bytes(document, "signature"),
        )
    except KeyError as missing:
        raise InvalidReply(f"The batch has no {missing}: save the answer of GET /v1/batches/{{id}} as it is.") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise InvalidReply(f"The batch cannot be read: {error}.") from None
    batch.credits()
    return batch


def must_land_here(batch: SignedBatch, rpc: Rpc) -> None:
    """Raises Denied or NotAContract for what cannot land on this chain now, before the contract is tried."""
    if (chain_id := rpc.chain_id()) != batch.chain_id:
        raise Denied(f"The batch is of chain {batch.chain_id}, the node is on {chain_id}: use a node of the first.")
    rpc.must_be_contract(batch.contract)
    if (now := rpc.head().timestamp) > batch.deadline:
        raise Denied(
            f"The batch could land until {batch.deadline}, and it is {now}: the service signs its debts in a new batch."
        )


def has_landed(batch: SignedBatch, rpc: Rpc) -> bool:
    """Whether the contract has settled the batch's first record: then this batch has landed, or never will."""
    return bool(view(rpc, batch.contract, "isSettled", batch.pool_id, batch.first_seq)["settled"])


def _deadline(document: Mapping[str, Any]) -> int:
    if "deadline_unix" in document:
        return _whole(document, "deadline_unix")
    deadline = document["deadline"]
    if not isinstance(deadline, str):
        return _whole(document, "deadline")
    moment = datetime.fromisoformat(deadline)
    if moment.tzinfo is None:
        raise ValueError("deadline has no time zone")
    return int(moment.timestamp())


def _whole(document: Mapping[str, Any], name: str) -> int:
    value = document[name]
    if type(value) is not int or not 0 <= value < 2**64:
        raise ValueError(f"{name} is not a whole number below 2^64")
    return value


def _bytes(document: Mapping[str, Any], name: str, length: int | None = None) -> bytes:
    value = document[name]
    if not isinstance(value, str) or re.fullmatch("0x(?:[0-9a-fA-F]{2})*", value) is None:
        raise ValueError(f"{name} is not 0x and hex digits")
    if length is not None and len(value) != 2 + 2 * length:
        raise ValueError(f"{name} is not 0x and {2 * length} hex digits")
    return bytes.fromhex(value[2:])
