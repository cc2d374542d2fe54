"""Keys in files: one directory, one file per key, 64 hex digits each, mode 0600.

Lives here: reading and making them, and the keys that are derived for payers. Not here: what they sign (signer.py).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NoReturn

from escrow.chain.signer import CURVE_ORDER, KeyringError, LocalSigner, Role


class Keyring:
    """The keys of roles, one of each; of the relayer as many as there are shards: `relayer.key`, `relayer-1.key`, ..."""

    __slots__ = ("_directory", "_secrets")

    def __init__(self, directory: Path, secrets_by_name: Mapping[str, bytes]) -> None:
        self._directory = directory
        self._secrets = secrets_by_name

    @classmethod
    def load(cls, directory: Path | str, roles: Iterable[Role] = tuple(Role), *, relayers: int = 1) -> Keyring:
        """Read the files of these roles and no others; raises KeyringError naming the first that cannot be used."""
        return cls.read(directory, names_of(roles, relayers))

    @classmethod
    def read(cls, directory: Path | str, names: Iterable[str]) -> Keyring:
        """Read the keys of these names, as `relayer-1`; raises KeyringError naming the first that cannot be used."""
        folder = Path(directory)
        return cls(folder, {name: _read_secret(folder / f"{name}.key") for name in names})

    @classmethod
    def create(cls, directory: Path | str, *, relayers: int = 1) -> Keyring:
        """Make random keys for every role. Writes none if any of the files is already there."""
        folder = Path(directory)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = names_of(Role, relayers)
        for name in names:
            if (folder / f"{name}.key").exists():
                raise KeyringError(f"{folder / f'{name}.key'} is already there; keys are never overwritten")
        for name in names:
            _write_secret(folder / f"{name}.key", _random_key())
        return cls.load(folder, relayers=relayers)

    def signer(self, role: Role | str) -> LocalSigner:
        """The signer of a role; the payer role has one per payer, see `payer`."""
        chosen = Role(role)
        if chosen is Role.PAYER:
            raise KeyringError("the payer file is a master secret; ask for payer(payer_id)")
        return LocalSigner(self._secret(chosen))

    def relayer(self, shard: int) -> LocalSigner:
        """The relayer of a shard, 0 the first."""
        return LocalSigner(self._secret(relayer_name(shard)))

    def payer(self, payer_id: str) -> LocalSigner:
        """The key we keep for one payer, derived from the master secret; the same for ever."""
        return LocalSigner(derive_key(self._secret(Role.PAYER), payer_id))

    def _secret(self, name: str) -> bytes:
        if name not in self._secrets:
            raise KeyringError(f"{self._directory / f'{name}.key'} was not asked for when the keys were read")
        return self._secrets[name]

    def __repr__(self) -> str:
        return f"Keyring({str(self._directory)!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a keyring is not pickled: its keys stay in this process")


def relayer_name(shard: int) -> str:
    """What the key of a shard's relayer is called: `relayer`, `relayer-1`, ..."""
    if shard < 0:
        raise ValueError(f"no relayer {shard}")
    return f"{Role.RELAYER}-{shard}" if shard else str(Role.RELAYER)


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


def names_of(roles: Iterable[Role], relayers: int) -> list[str]:
    """What the keys of roles are called, with so many relayers."""
    names: list[str] = []
    for role in roles:
        names += [relayer_name(shard) for shard in range(relayers)] if role is Role.RELAYER else [str(role)]
    return names


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
