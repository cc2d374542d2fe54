"""Leaves and roots of settled batches, in OpenZeppelin's standard form. Pure.

leaf  = keccak256(keccak256(abi.encode(poolId, seq, paymentId, provider, amount, taskHash)))
node  = keccak256(smaller child || larger child)
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from eth_abi.abi import encode
from eth_hash.auto import keccak

_LEAF = ("bytes32", "uint256", "bytes32", "address", "uint256", "bytes32")


def leaf_hash(*, pool_id: bytes, seq: int, payment_id: bytes, provider: str, amount_micros: int, task: bytes) -> bytes:
    """The hash of one payment in a batch. `seq` is its record's: payments netted into one record share it."""
    return keccak(keccak(encode(_LEAF, (pool_id, seq, payment_id, provider, amount_micros, task))))


def payment_word(payment_id: UUID) -> bytes:
    """A payment's id as the leaf has it: its 16 bytes, then zeros."""
    return payment_id.bytes.ljust(32, b"\0")


def task_hash(metadata: Mapping[str, Any]) -> bytes:
    """keccak256 of the metadata as canonical JSON: keys sorted, no spaces, everything outside ASCII escaped."""
    return keccak(json.dumps(metadata, sort_keys=True, separators=(",", ":")).encode())


def root_of(leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """The root that a leaf and its sibling hashes, from the leaf up, lead to."""
    node = leaf
    for sibling in proof:
        node = keccak(min(node, sibling) + max(node, sibling))
    return node
