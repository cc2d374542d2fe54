"""Where each role's key is: the one place that knows every kind of signer.

Lives here: reading the configuration `SIGNERS`, and making a role's signer the first time it is asked for.

    SIGNERS=socket:/run/signer/signer.sock                              every role
    SIGNERS=relayer=file,authorizer=aws-kms:alias/authorizer,...        each its own; a role that is not named: file

`file` (SIGNER_KEYS_DIR), `socket:PATH`, `rpc:URL#ADDRESS`, `aws-kms:KEY_ID`, `gcp-kms:RESOURCE`. Payers have one key each,
derived from a master secret, so theirs is `file` or `socket`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, NoReturn

from escrow.chain.keyring import Keyring, names_of, relayer_name
from escrow.chain.remote import RpcSigner
from escrow.chain.signer import KeyringError, Role, Signer, Signers
from escrow.chain.sockets import SocketSigner

FILE: Final = "file"
EVERYONE: Final = "*"
PAYERS_KEPT: Final = 4_096
"""Payers whose signer is remembered: its address is one question to the signing process, and never changes."""
_CLOUDS: Final = {"aws-kms": ("escrow.chain.kms_aws", "aws"), "gcp-kms": ("escrow.chain.kms_gcp", "gcp")}


class SourceError(Exception):
    """A configuration that names no signer. Says what would."""


@dataclass(frozen=True)
class Source:
    """One kind of place for a key, and where there."""

    kind: str
    at: str = ""


def parse(text: str) -> dict[str, Source]:
    """The sources by the name of a key, `*` for all that have none; raises SourceError."""
    found: dict[str, Source] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, rest = part.partition("=")
        # The address of a remote signer may hold an equals sign itself; a role's name has no colon.
        if not equals or ":" in name:
            name, rest = EVERYONE, part
        kind, _, at = rest.partition(":")
        if name != EVERYONE and Role.__members__.get(name.partition("-")[0].upper()) is None:
            raise SourceError(f"SIGNERS names {name}, which is none of {', '.join(Role)} and relayer-1, ...")
        if kind not in {FILE, "socket", "rpc", *_CLOUDS} or (kind != FILE and not at):
            raise SourceError(f"SIGNERS has {kind!r}, which is not file, socket:PATH, rpc:URL#ADDRESS or ...-kms:KEY")
        if name in {EVERYONE, Role.PAYER} and kind not in {FILE, "socket"}:
            raise SourceError(f"SIGNERS: payers have a key each, which {kind} cannot derive; file or socket:PATH can")
        found[name] = Source(kind, at)
    return found


class SourcedSigners:
    """The signers of a configuration. Keys in files are read at once, so that a missing one stops the start."""

    def __init__(self, sources: Mapping[str, Source], *, keys: Path | str, relayers: int, timeout: float) -> None:
        self._sources = sources
        self._timeout = timeout
        local = sorted(name for name in names_of(Role, relayers) if self._source(name).kind == FILE)
        self._keyring = Keyring.read(keys, local)
        self._made: dict[str, Signer] = {}
        self._payer = lru_cache(PAYERS_KEPT)(self._open_payer)

    def signer(self, role: Role | str) -> Signer:
        """The signer of a role; the payer role has one per payer, see `payer`."""
        chosen = Role(role)
        if chosen is Role.PAYER:
            raise KeyringError("payers have a key each; ask for payer(payer_id)")
        return self._named(str(chosen))

    def relayer(self, shard: int) -> Signer:
        """The relayer of a shard, 0 the first."""
        return self._named(relayer_name(shard))

    def payer(self, payer_id: str) -> Signer:
        """The signer that we keep for one payer."""
        return self._payer(payer_id)

    def _named(self, name: str) -> Signer:
        if name not in self._made:
            self._made[name] = self._open(name)
        return self._made[name]

    def _open(self, name: str) -> Signer:
        source = self._source(name)
        if source.kind == FILE:
            role, _, shard = name.partition("-")
            return self._keyring.relayer(int(shard)) if shard else self._keyring.signer(role)
        if source.kind == "socket":
            return SocketSigner(source.at, name, self._timeout)
        if source.kind == "rpc":
            url, _, address = source.at.rpartition("#")
            return RpcSigner(url, address, self._timeout)
        return _of_a_cloud(source, self._timeout)

    def _open_payer(self, payer_id: str) -> Signer:
        source = self._source(Role.PAYER)
        if source.kind == FILE:
            return self._keyring.payer(payer_id)
        return SocketSigner(source.at, f"{Role.PAYER}:{payer_id}", self._timeout)

    def _source(self, name: str) -> Source:
        """A relayer after the first has its key where the first has, unless that is one single key."""
        own = self._sources.get(name)
        if own is not None:
            return own
        shared = self._sources.get(str(Role.RELAYER)) if name.startswith(f"{Role.RELAYER}-") else None
        if shared is not None and shared.kind not in {FILE, "socket"}:
            raise SourceError(f"SIGNERS must name {name}: {shared.kind} of the first relayer is one key")
        return shared or self._sources.get(EVERYONE, Source(FILE))

    def __repr__(self) -> str:
        return f"SourcedSigners({ {name: source.kind for name, source in self._sources.items()} })"

    def __reduce__(self) -> NoReturn:
        raise TypeError("signers are not pickled: keys stay in this process")


def open_signers(text: str, *, keys: Path | str, relayers: int, timeout: float) -> Signers:
    """The signers that a configuration names; raises SourceError or KeyringError."""
    return SourcedSigners(parse(text), keys=keys, relayers=relayers, timeout=timeout)


def _of_a_cloud(source: Source, timeout: float) -> Signer:
    # By name, and only now: a cloud's library is an optional extra, which who does not use that cloud does not install.
    module, extra = _CLOUDS[source.kind]
    try:
        cloud = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise SourceError(f"{source.kind} needs {error.name}: pip install 'agent-market[{extra}]'") from None
    signer: Signer = cloud.signer(source.at, timeout)
    return signer
