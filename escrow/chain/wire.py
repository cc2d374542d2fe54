"""What is sent, byte for byte: batches, and the words that are needed with them.

Lives here: pure encoding, equal to the contract's to the bit (the tests hold both to it). Neither web3 nor a key nor
a socket. Ids and digests are 32 raw bytes; addresses are checksummed strings; amounts are micro-USDC.
Not here: calldata (contract.py), what is signed (typed.py), signing (signer.py). Terms (terms.py), domains (domain.py) and
proofs (merkle.py) are named here too: this is the one door to all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eth_utils.address import to_checksum_address

from escrow.chain.domain import Domain, pool_domain, providers_hash
from escrow.chain.merkle import Leaf, MerkleTree, merkle_root, verify_proof
from escrow.chain.terms import Terms, pool_id
from escrow.chain.words import address_bytes

__all__ = [
    "Batch",
    "Domain",
    "Leaf",
    "MerkleTree",
    "Record",
    "Terms",
    "WireError",
    "decode_batch",
    "encode_batch",
    "merkle_root",
    "pool_domain",
    "pool_id",
    "providers_hash",
    "verify_proof",
]

MAX_AMOUNT = (1 << 40) - 1  # one record: u40, a little over a million dollars
MAX_PROVIDERS = 255  # one batch: u8
MAX_SEQUENCES = 1 << 32  # one pool: u32
_HEAD, _ADDRESS, _RECORD = 5, 20, 6


class WireError(ValueError):
    """Bytes or records that the contract would refuse as a batch."""


@dataclass(frozen=True)
class Record:
    """One credit of a batch."""

    provider: str
    amount: int


@dataclass(frozen=True)
class Batch:
    """A decoded batch: record i has sequence number `first_seq + i`."""

    first_seq: int
    records: tuple[Record, ...]


# ---------------------------------------------------------------------- the packed batch


def encode_batch(first_seq: int, records: Sequence[Record]) -> bytes:
    """`u32 firstSeq | u8 M | M x address | N x (u8 providerIdx, u40 amount)`, providers in order of appearance."""
    if not records:
        raise WireError("a batch needs at least one record")
    if first_seq < 0 or first_seq + len(records) > MAX_SEQUENCES:
        raise WireError(f"sequence numbers {first_seq}..{first_seq + len(records) - 1} leave 32 bits")
    indexes: dict[bytes, int] = {}
    body = bytearray()
    for record in records:
        if not 0 < record.amount <= MAX_AMOUNT:
            raise WireError(f"a record carries 1 to {MAX_AMOUNT}, not {record.amount}")
        body.append(indexes.setdefault(address_bytes(record.provider), len(indexes)) & 0xFF)
        body += record.amount.to_bytes(5, "big")
        if len(indexes) > MAX_PROVIDERS:
            raise WireError(f"a batch names at most {MAX_PROVIDERS} providers")
    return b"".join((first_seq.to_bytes(4, "big"), bytes([len(indexes)]), *indexes, bytes(body)))


def decode_batch(packed: bytes) -> Batch:
    """The inverse of `encode_batch`; raises WireError for whatever the contract's scan refuses, caps aside."""
    start = _HEAD + _ADDRESS * packed[4] if len(packed) >= _HEAD else 0
    if start <= _HEAD or len(packed) <= start or (len(packed) - start) % _RECORD:
        raise WireError(f"{len(packed)} bytes are not 5 + 20 M + 6 N with M and N at least one")
    first_seq = int.from_bytes(packed[:4], "big")
    providers = [to_checksum_address(packed[at : at + _ADDRESS]) for at in range(_HEAD, start, _ADDRESS)]
    records: list[Record] = []
    for at in range(start, len(packed), _RECORD):
        index, amount = packed[at], int.from_bytes(packed[at + 1 : at + _RECORD], "big")
        if index >= len(providers) or amount == 0:
            raise WireError(f"record {len(records)}: index {index} of {len(providers)}, amount {amount}")
        records.append(Record(providers[index], amount))
    if first_seq + len(records) > MAX_SEQUENCES:
        raise WireError(f"sequence numbers from {first_seq} leave 32 bits")
    if {record.provider for record in records} != set(providers):
        raise WireError("a listed provider has no record")
    return Batch(first_seq, tuple(records))
