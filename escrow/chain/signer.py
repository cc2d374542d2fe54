"""Whoever holds a key, and what one can be asked for: a chain transaction, or one of our messages (typed.py). Nothing else.

Lives here: the protocols that every kind of signer satisfies, and the one whose key is in this process's memory. With
keyring.py it is all that touches a private key, and none leaves them: not by repr, log or error. Not here: signers that are
asked over a wire (remote.py, kms.py, sockets.py), which kind is used (sources.py), nonces and fees (the relay's).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NoReturn, Protocol

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_typing import Hash32

from escrow.chain.typed import Message

# Order of the secp256k1 group: a private key is 1 .. n - 1 (SEC 2, section 2.4.1).
CURVE_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


class KeyringError(Exception):
    """A key file that is missing, unreadable, open to others, or in the way. Names the file, never its content."""


@dataclass(frozen=True)
class TransactionFields:
    """An EIP-1559 chain transaction before it is signed. Fees are wei per gas; `to` is None to create a contract."""

    chain_id: int
    nonce: int
    to: str | None
    data: bytes
    gas: int
    max_fee_per_gas: int
    max_priority_fee_per_gas: int
    value: int = 0


@dataclass(frozen=True)
class SignedTransaction:
    """`raw` is what is broadcast, byte for byte; `hash` is its `0x` hash."""

    raw: bytes
    hash: str


class Role(StrEnum):
    """Who signs what: batches; chain transactions; rulings; and the master secret of the payers we keep keys for."""

    AUTHORIZER = "authorizer"
    RELAYER = "relayer"
    ARBITER = "arbiter"
    PAYER = "payer"


class Signer(Protocol):
    """Whoever holds a key."""

    @property
    def address(self) -> str: ...

    def sign_transaction(self, fields: TransactionFields) -> SignedTransaction: ...

    def sign_typed(self, message: Message) -> bytes:
        """r || s || v, 65 bytes, low s, v 27 or 28: what the contract and the token take."""
        ...


class Signers(Protocol):
    """The signers of all roles, wherever each has its key."""

    def signer(self, role: Role | str) -> Signer:
        """The signer of a role. The relayer's is the first one; the payer role has one per payer, see `payer`."""
        ...

    def relayer(self, shard: int) -> Signer:
        """The relayer of a shard, 0 the first."""
        ...

    def payer(self, payer_id: str) -> Signer:
        """The signer we keep for one payer."""
        ...


class LocalSigner:
    """A key in this process's memory."""

    __slots__ = ("_account", "address")

    def __init__(self, private_key: bytes) -> None:
        if len(private_key) != 32 or not 0 < int.from_bytes(private_key, "big") < CURVE_ORDER:
            raise KeyringError("not a private key: 32 bytes within the curve's order are needed")
        self._account: LocalAccount = Account.from_key(private_key)
        self.address: str = str(self._account.address)

    def sign_typed(self, message: Message) -> bytes:
        return self.sign_digest(message.digest)

    def sign_digest(self, digest: bytes) -> bytes:
        """Any 32 bytes: no other signer offers that, and no room asks for it."""
        if len(digest) != 32:
            raise ValueError(f"a digest has 32 bytes, not {len(digest)}")
        return bytes(self._account.unsafe_sign_hash(Hash32(digest)).signature)

    def sign_transaction(self, fields: TransactionFields) -> SignedTransaction:
        unsigned: dict[str, Any] = {
            "type": 2,
            "chainId": fields.chain_id,
            "nonce": fields.nonce,
            "data": fields.data,
            "gas": fields.gas,
            "maxFeePerGas": fields.max_fee_per_gas,
            "maxPriorityFeePerGas": fields.max_priority_fee_per_gas,
            "value": fields.value,
        }
        if fields.to is not None:
            unsigned["to"] = fields.to
        signed = self._account.sign_transaction(unsigned)
        return SignedTransaction(raw=bytes(signed.raw_transaction), hash="0x" + bytes(signed.hash).hex())

    def __repr__(self) -> str:
        return f"LocalSigner({self.address})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a signer is not pickled: its key stays in this process")
