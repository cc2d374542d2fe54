"""Keys and what they sign. The only module that touches a private key, and none leaves it: not by repr, log or error.

Lives here: the `Signer` protocol that a signing process or a KMS can also satisfy, a local one, and a keyring of files.
Not here: what is signed (wire.py), nonces and fees (the relay's).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_typing import Hash32

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


class Signer(Protocol):
    """Whoever holds a key."""

    @property
    def address(self) -> str: ...

    def sign_digest(self, digest: bytes) -> bytes:
        """r || s || v, 65 bytes, low s, v 27 or 28: what the contract and the token take."""
        ...

    def sign_transaction(self, fields: TransactionFields) -> SignedTransaction: ...


class LocalSigner:
    """A key in this process's memory."""

    __slots__ = ("_account", "address")

    def __init__(self, private_key: bytes) -> None:
        if len(private_key) != 32 or not 0 < int.from_bytes(private_key, "big") < CURVE_ORDER:
            raise KeyringError("not a private key: 32 bytes within the curve's order are needed")
        self._account: LocalAccount = Account.from_key(private_key)
        self.address: str = str(self._account.address)

    def sign_digest(self, digest: bytes) -> bytes:
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


class Role(StrEnum):
    """Who signs what: batches; chain transactions; rulings; and the master secret of the payers we keep keys for."""

    AUTHORIZER = "authorizer"
    RELAYER = "relayer"
    ARBITER = "arbiter"
    PAYER = "payer"


class Keyring:
    """One file per role in one directory, each 64 hex digits, mode 0600."""

    __slots__ = ("_directory", "_secrets")

    def __init__(self, directory: Path, secrets_by_role: dict[Role, bytes]) -> None:
        self._directory = directory
        self._secrets = secrets_by_role

    @classmethod
    def load(cls, directory: Path | str, roles: Iterable[Role] = tuple(Role)) -> Keyring:
        """Read the files of these roles and no others; raises KeyringError naming the first that cannot be used."""
        folder = Path(directory)
        return cls(folder, {role: _read_secret(folder / f"{role}.key") for role in roles})

    @classmethod
    def create(cls, directory: Path | str) -> Keyring:
        """Make four random keys. Writes none if any of the files is already there."""
        folder = Path(directory)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for role in Role:
            if (folder / f"{role}.key").exists():
                raise KeyringError(f"{folder / f'{role}.key'} is already there; keys are never overwritten")
        for role in Role:
            _write_secret(folder / f"{role}.key", _random_key())
        return cls.load(folder)

    def signer(self, role: Role | str) -> LocalSigner:
        """The signer of a role; the payer role has one per payer, see `payer`."""
        chosen = Role(role)
        if chosen is Role.PAYER:
            raise KeyringError("the payer file is a master secret; ask for payer(payer_id)")
        return LocalSigner(self._secret(chosen))

    def payer(self, payer_id: str) -> LocalSigner:
        """The key we keep for one payer, derived from the master secret; the same for ever."""
        return LocalSigner(derive_key(self._secret(Role.PAYER), payer_id))

    def _secret(self, role: Role) -> bytes:
        if role not in self._secrets:
            raise KeyringError(f"{self._directory / f'{role}.key'} was not asked for when the keys were read")
        return self._secrets[role]

    def __repr__(self) -> str:
        return f"Keyring({str(self._directory)!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a keyring is not pickled: its keys stay in this process")


def derive_key(master: bytes, payer_id: str) -> bytes:
    """HMAC-SHA256(master, counter || payer id), the first counter whose value is a private key.

    Rejection, not reduction: every key is equally likely, and a second round happens once in 2^128.
    """
    if not payer_id:
        raise ValueError("a payer id is needed")
    counter = 0
    while True:
        message = b"agent-market/payer/" + counter.to_bytes(4, "big") + payer_id.encode()
        candidate = hmac.digest(master, message, hashlib.sha256)
        if 0 < int.from_bytes(candidate, "big") < CURVE_ORDER:
            return candidate
        counter += 1


def _random_key() -> bytes:
    return (1 + secrets.randbelow(CURVE_ORDER - 1)).to_bytes(32, "big")


def _write_secret(path: Path, secret: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeyringError(f"{path} is already there; keys are never overwritten") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(secret.hex() + "\n")


def _read_secret(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(128)
    except OSError as error:
        raise KeyringError(f"{path} cannot be read: {error.strerror}") from None
    if mode & 0o077:
        raise KeyringError(f"{path} is open to others (mode {mode:04o}); make it 0600")
    text = content.strip().removeprefix(b"0x")
    try:
        secret = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        raise KeyringError(f"{path} does not hold 64 hex digits") from None
    if len(secret) != 32 or not 0 < int.from_bytes(secret, "big") < CURVE_ORDER:
        raise KeyringError(f"{path} does not hold a private key")
    return secret
