"""What is signed and what is sent, byte for byte: terms, batches, EIP-712 digests.

Lives here: pure encoding, equal to the contract's to the bit (the tests hold both to it). Neither web3 nor a key nor
a socket. Ids and digests are 32 raw bytes; addresses are checksummed strings; amounts are micro-USDC.
Not here: calldata (contract.py), signing (signer.py), proofs (merkle.py, named here too because both make a batch).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from escrow.chain.merkle import Leaf, MerkleTree, merkle_root, verify_proof
from escrow.chain.words import address_bytes, address_word, bytes32_word, uint_word

__all__ = [
    "Batch",
    "Domain",
    "Leaf",
    "MerkleTree",
    "Record",
    "Terms",
    "WireError",
    "allow_providers_digest",
    "batch_digest",
    "decode_batch",
    "dispute_digest",
    "encode_batch",
    "merkle_root",
    "pool_domain",
    "pool_id",
    "providers_hash",
    "receive_authorization_digest",
    "request_close_digest",
    "top_up_nonce",
    "transfer_authorization_digest",
    "verify_proof",
]

MAX_AMOUNT = (1 << 40) - 1  # one record: u40, a little over a million dollars
MAX_PROVIDERS = 255  # one batch: u8
MAX_SEQUENCES = 1 << 32  # one pool: u32
_HEAD, _ADDRESS, _RECORD = 5, 20, 6


class WireError(ValueError):
    """Bytes or records that the contract would refuse as a batch."""


@dataclass(frozen=True)
class Domain:
    """An EIP-712 domain. The token's name and version are read from the token, never assumed."""

    name: str
    version: str
    chain_id: int
    verifying_contract: str

    @property
    def separator(self) -> bytes:
        type_hash = keccak(text="EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
        return keccak(
            type_hash
            + keccak(text=self.name)
            + keccak(text=self.version)
            + uint_word(self.chain_id)
            + address_word(self.verifying_contract)
        )


def pool_domain(chain_id: int, address: str) -> Domain:
    """The domain of the `BudgetPool` at `address`."""
    return Domain("BudgetPool", "1", chain_id, address)


@dataclass(frozen=True)
class Terms:
    """What a payer accepts for good; field by field `IBudgetPool.Terms`, where each is explained."""

    payer: str
    authorizer: str
    arbiter: str
    expiry: int
    close_delay: int
    per_record_cap: int
    window_cap: int
    window_length: int
    dispute_window: int
    fee_bps: int
    providers_hash: bytes
    salt: bytes

    def words(self) -> bytes:
        """The ABI encoding; raises ValueError for a field outside its type."""
        return b"".join(
            (
                address_word(self.payer),
                address_word(self.authorizer),
                address_word(self.arbiter),
                uint_word(self.expiry, 64),
                uint_word(self.close_delay, 32),
                uint_word(self.per_record_cap, 48),
                uint_word(self.window_cap, 56),
                uint_word(self.window_length, 32),
                uint_word(self.dispute_window, 32),
                uint_word(self.fee_bps, 16),
                bytes32_word(self.providers_hash),
                bytes32_word(self.salt),
            )
        )

    def as_tuple(self) -> tuple[object, ...]:
        """The fields in order, as the ABI codec takes them."""
        return (
            self.payer,
            self.authorizer,
            self.arbiter,
            self.expiry,
            self.close_delay,
            self.per_record_cap,
            self.window_cap,
            self.window_length,
            self.dispute_window,
            self.fee_bps,
            self.providers_hash,
            self.salt,
        )


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


# ---------------------------------------------------------------------- EIP-712


def providers_hash(providers: Sequence[str]) -> bytes:
    """keccak256(abi.encodePacked(address[])): each address padded to 32 bytes, in this order, without a length."""
    return keccak(b"".join(address_word(provider) for provider in providers))


def pool_id(domain: Domain, terms: Terms) -> bytes:
    """The digest of the terms: the pool's id, and the nonce of the payer's ERC-3009 authorization."""
    return _digest(
        domain,
        "Terms(address payer,address authorizer,address arbiter,uint64 expiry,uint32 closeDelay,uint48 perRecordCap,"
        "uint56 windowCap,uint32 windowLength,uint32 disputeWindow,uint16 feeBps,bytes32 providersHash,bytes32 salt)",
        terms.words(),
    )


def batch_digest(domain: Domain, pool_id: bytes, packed: bytes, root: bytes, deadline: int) -> bytes:
    """What the authorizer signs for `settle`."""
    words = bytes32_word(pool_id) + keccak(packed) + bytes32_word(root) + uint_word(deadline, 64)
    return _digest(domain, "Batch(bytes32 poolId,bytes packed,bytes32 root,uint64 deadline)", words)


def top_up_nonce(domain: Domain, pool_id: bytes, nonce_salt: bytes) -> bytes:
    """The ERC-3009 nonce of a top-up, which binds the signature to the pool."""
    return _digest(domain, "TopUp(bytes32 poolId,bytes32 nonceSalt)", bytes32_word(pool_id) + bytes32_word(nonce_salt))


def allow_providers_digest(
    domain: Domain, pool_id: bytes, providers: Sequence[str], nonce: bytes, deadline: int
) -> bytes:
    """What the payer signs for `allowProvidersWithSig`."""
    words = bytes32_word(pool_id) + providers_hash(providers) + bytes32_word(nonce) + uint_word(deadline, 64)
    return _digest(domain, "AllowProviders(bytes32 poolId,address[] providers,bytes32 nonce,uint64 deadline)", words)


def dispute_digest(domain: Domain, pool_id: bytes, provider: str, amount: int, ref: bytes, deadline: int) -> bytes:
    """What the payer signs for `disputeWithSig`."""
    words = b"".join(
        (
            bytes32_word(pool_id),
            address_word(provider),
            uint_word(amount, 64),
            bytes32_word(ref),
            uint_word(deadline, 64),
        )
    )
    return _digest(domain, "Dispute(bytes32 poolId,address provider,uint64 amount,bytes32 ref,uint64 deadline)", words)


def request_close_digest(domain: Domain, pool_id: bytes, deadline: int) -> bytes:
    """What the payer signs for `requestCloseWithSig`."""
    return _digest(
        domain, "RequestClose(bytes32 poolId,uint64 deadline)", bytes32_word(pool_id) + uint_word(deadline, 64)
    )


def receive_authorization_digest(
    token: Domain, *, from_: str, to: str, value: int, valid_after: int, valid_before: int, nonce: bytes
) -> bytes:
    """What the payer signs so that `to`, and only `to`, may pull `value` (ERC-3009 receiveWithAuthorization)."""
    return _authorization(token, "Receive", from_, to, value, valid_after, valid_before, nonce)


def transfer_authorization_digest(
    token: Domain, *, from_: str, to: str, value: int, valid_after: int, valid_before: int, nonce: bytes
) -> bytes:
    """What a payer signs so that anybody may move `value` to `to` (ERC-3009 transferWithAuthorization)."""
    return _authorization(token, "Transfer", from_, to, value, valid_after, valid_before, nonce)


def _authorization(
    token: Domain, verb: str, from_: str, to: str, value: int, valid_after: int, valid_before: int, nonce: bytes
) -> bytes:
    words = b"".join(
        (
            address_word(from_),
            address_word(to),
            uint_word(value),
            uint_word(valid_after),
            uint_word(valid_before),
            bytes32_word(nonce),
        )
    )
    return _digest(
        token,
        f"{verb}WithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,"
        "bytes32 nonce)",
        words,
    )


def _digest(domain: Domain, type_string: str, words: bytes) -> bytes:
    return keccak(b"\x19\x01" + domain.separator + keccak(keccak(text=type_string) + words))
