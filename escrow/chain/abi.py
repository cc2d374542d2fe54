"""Calls, answers, errors and events of the compiled contracts, by name, from the committed ABI.

Lives here: one codec per contract over eth_abi; pure. Not here: typed events (events.py), the verbs (contract.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from eth_abi.abi import decode, encode
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from escrow.chain.artifacts import Artifact, load_artifact

# Solidity's own two errors (Contract ABI Specification, "Errors").
_BUILT_IN_ERRORS = [
    {"type": "error", "name": "Error", "inputs": [{"name": "message", "type": "string"}]},
    {"type": "error", "name": "Panic", "inputs": [{"name": "code", "type": "uint256"}]},
]


@dataclass(frozen=True)
class Entry:
    """One function, error or event of an ABI."""

    name: str
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]

    @property
    def signature(self) -> str:
        return f"{self.name}({','.join(type_of(i) for i in self.inputs)})"

    @property
    def topic(self) -> bytes:
        return keccak(text=self.signature)

    @property
    def selector(self) -> bytes:
        return self.topic[:4]


def type_of(parameter: Mapping[str, Any]) -> str:
    """The canonical type of an ABI parameter, with structs spelled out."""
    kind: str = parameter["type"]
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(type_of(c) for c in parameter['components'])}){kind.removeprefix('tuple')}"


class Codec:
    """Encodes and decodes by the ABI of one contract. Overloaded names are told apart by their argument count."""

    def __init__(self, abi: Sequence[Mapping[str, Any]]) -> None:
        entries = [(e["type"], Entry(e.get("name", ""), e.get("inputs", []), e.get("outputs", []))) for e in abi]
        self._functions = [entry for kind, entry in entries if kind == "function"]
        self._constructor = next((entry for kind, entry in entries if kind == "constructor"), Entry("", [], []))
        self.events = {entry.topic: entry for kind, entry in entries if kind == "event"}
        self.errors = {entry.selector: entry for kind, entry in entries if kind == "error"}

    def function(self, name: str, arguments: int) -> Entry:
        """The function `name` of so many arguments; raises KeyError when there is none."""
        for entry in self._functions:
            if entry.name == name and len(entry.inputs) == arguments:
                return entry
        raise KeyError(f"no function {name} of {arguments} arguments")

    def call(self, name: str, *arguments: Any) -> bytes:
        """Calldata: the selector and the encoded arguments."""
        entry = self.function(name, len(arguments))
        return entry.selector + encode([type_of(i) for i in entry.inputs], arguments)

    def answer(self, name: str, arguments: int, returned: bytes) -> tuple[Any, ...]:
        """What a call of `name` returned; addresses checksummed."""
        return _decode(self.function(name, arguments).outputs, returned)

    def constructor(self, *arguments: Any) -> bytes:
        """Encoded constructor arguments, to follow the creation code."""
        return encode([type_of(i) for i in self._constructor.inputs], arguments)

    def error(self, returned: bytes) -> tuple[str, dict[str, Any]] | None:
        """Name and arguments of a custom error, `Error(string)` or `Panic(uint256)`; None if it is none we know."""
        entry = self.errors.get(returned[:4])
        if entry is None:
            return None
        try:
            values = _decode(entry.inputs, returned[4:])
        except Exception:  # noqa: BLE001  (eth_abi raises many kinds; undecodable is unknown)
            return None
        return entry.name, {i["name"]: value for i, value in zip(entry.inputs, values, strict=True)}

    def event(self, topics: Sequence[bytes], body: bytes) -> tuple[str, dict[str, Any]] | None:
        """Name and arguments of a log; None if it is none of this contract's events."""
        entry = self.events.get(topics[0]) if topics else None
        if entry is None:
            return None
        indexed = [i for i in entry.inputs if i["indexed"]]
        plain = [i for i in entry.inputs if not i["indexed"]]
        values = {i["name"]: _decode([i], topic)[0] for i, topic in zip(indexed, topics[1:], strict=True)}
        values |= {i["name"]: value for i, value in zip(plain, _decode(plain, body), strict=True)}
        return entry.name, values


def _decode(parameters: Sequence[Mapping[str, Any]], encoded: bytes) -> tuple[Any, ...]:
    values = decode([type_of(p) for p in parameters], encoded)
    return tuple(_checksummed(p, value) for p, value in zip(parameters, values, strict=True))


def _checksummed(parameter: Mapping[str, Any], value: Any) -> Any:
    kind: str = parameter["type"]
    if kind == "address":
        return str(to_checksum_address(value))
    if kind == "tuple":
        return tuple(_checksummed(c, v) for c, v in zip(parameter["components"], value, strict=True))
    if kind.endswith("]"):
        inner = {**parameter, "type": kind[: kind.rindex("[")]}
        return tuple(_checksummed(inner, v) for v in value)
    return value


@cache
def codec(name: str) -> Codec:
    """The codec of a committed artifact, by contract name."""
    artifact: Artifact = load_artifact(name)
    return Codec(artifact.abi)


@cache
def error_codec() -> Codec:
    """Every error a call to us can end in: the pool's, the token's, and Solidity's own."""
    entries = [e for name in ("BudgetPool", "TestUSDC") for e in load_artifact(name).abi if e["type"] == "error"]
    return Codec([*entries, *_BUILT_IN_ERRORS])
