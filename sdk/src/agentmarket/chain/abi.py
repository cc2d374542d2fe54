"""The contract's words: calls, answers, events and errors of `BudgetPool`, by name. Pure.

Only what a way out or a proof needs, written as Solidity writes it; a test holds it to the compiled contract.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address

_TERMS = "(address,address,address,uint64,uint32,uint40,uint56,uint32,uint32,uint16,bytes32,bytes32)"

#: name -> (argument types, names and types of what is returned)
FUNCTIONS: Mapping[str, tuple[tuple[str, ...], tuple[tuple[str, str], ...]]] = {
    "pool": (
        ("bytes32",),
        (
            ("payer", "address"),
            ("authorizer", "address"),
            ("endsAt", "uint64"),
            ("closing", "bool"),
            ("closeDelay", "uint32"),
            ("perRecordCap", "uint40"),
            ("windowCap", "uint56"),
            ("windowLength", "uint32"),
            ("disputeWindow", "uint32"),
            ("feeBps", "uint16"),
            ("free", "uint64"),
            ("disputed", "uint64"),
            ("windowRemaining", "uint64"),
        ),
    ),
    "lineOf": (
        ("bytes32", "address"),
        (
            ("allowed", "bool"),
            ("matured", "uint64"),
            ("pending", "uint64"),
            ("nextAmount", "uint64"),
            ("nextAt", "uint64"),
        ),
    ),
    "disputeOf": (
        ("bytes32", "address", "bytes32"),
        (("status", "uint8"), ("amount", "uint64"), ("openedAt", "uint64"), ("timeoutAt", "uint64")),
    ),
    "isSettled": (("bytes32", "uint256"), (("settled", "bool"),)),
    "settle": (("bytes32", "bytes", "bytes32", "uint64", "bytes"), ()),
    "withdraw": (("bytes32", "address"), ()),
    "withdrawMany": (("(bytes32,address)[]",), ()),
    "resolveByTimeout": (("bytes32", "address", "bytes32"), ()),
    "requestClose": (("bytes32",), ()),
    "reclaim": (("bytes32",), ()),
}

#: name -> (indexed fields, fields in the data)
EVENTS: Mapping[str, tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]] = {
    "PoolOpened": (
        (("poolId", "bytes32"), ("payer", "address")),
        (("terms", _TERMS), ("deposit", "uint256")),
    ),
    "ProvidersAllowed": ((("poolId", "bytes32"),), (("providers", "address[]"),)),
    "BatchSettled": (
        (("poolId", "bytes32"),),
        (("firstSeq", "uint256"), ("count", "uint256"), ("total", "uint256"), ("root", "bytes32")),
    ),
    "Credited": (
        (("poolId", "bytes32"), ("provider", "address")),
        (("amount", "uint256"), ("firstSeq", "uint256")),
    ),
    "Withdrawn": (
        (("poolId", "bytes32"), ("provider", "address")),
        (("to", "address"), ("net", "uint256"), ("fee", "uint256")),
    ),
    "WithdrawalRejected": ((("poolId", "bytes32"), ("provider", "address")), (("reason", "bytes"),)),
    "Reclaimed": ((("poolId", "bytes32"), ("payer", "address")), (("amount", "uint256"),)),
    "Disputed": (
        (("poolId", "bytes32"), ("provider", "address"), ("ref", "bytes32")),
        (("amount", "uint256"),),
    ),
    "CloseRequested": ((("poolId", "bytes32"),), (("reclaimableAt", "uint256"),)),
    "DisputeResolved": (
        (("poolId", "bytes32"), ("provider", "address"), ("ref", "bytes32")),
        (("toProvider", "uint256"), ("toPayer", "uint256"), ("byTimeout", "bool")),
    ),
}


@dataclass(frozen=True)
class Log:
    """One event of the contract; `values` by the contract's own names, addresses checksummed."""

    name: str
    values: Mapping[str, Any]
    block: int
    transaction: str


def call(name: str, *arguments: Any) -> bytes:
    """Calldata. Raises eth_abi's EncodingError for a value that is not of its type."""
    types = FUNCTIONS[name][0]
    return _selector(f"{name}({','.join(types)})") + encode(types, arguments)


def arguments(name: str, data: bytes) -> tuple[Any, ...] | None:
    """What calldata asks of a function; None when it is no call of that one."""
    types = FUNCTIONS[name][0]
    if data[:4] != _selector(f"{name}({','.join(types)})"):
        return None
    try:
        return tuple(decode(list(types), data[4:]))
    except (DecodingError, OverflowError):
        return None


def answer(name: str, returned: bytes) -> dict[str, Any]:
    """What a view returned, by field. Raises ValueError for bytes that are no such answer."""
    return _named(FUNCTIONS[name][1], returned)


def topic(name: str) -> str:
    """An event's first topic, `0x` and 64 hex digits."""
    indexed, rest = EVENTS[name]
    # The signature has the fields in the order of the declaration, and ours declares the indexed ones first.
    return "0x" + keccak(f"{name}({','.join(kind for _, kind in (*indexed, *rest))})".encode()).hex()


_BY_TOPIC = {topic(name): name for name in EVENTS}


def log(raw: Mapping[str, Any]) -> Log | None:
    """The event of one JSON-RPC log object; None for one that is not told apart here. Raises ValueError if malformed."""
    topics: Sequence[str] = raw["topics"]
    name = _BY_TOPIC.get(topics[0]) if topics else None
    if name is None:
        return None
    indexed, rest = EVENTS[name]
    if len(topics) != 1 + len(indexed):
        raise ValueError(f"a {name} log has {1 + len(indexed)} topics, not {len(topics)}")
    values = _named(indexed, b"".join(bytes.fromhex(word[2:]) for word in topics[1:]))
    values |= _named(rest, bytes.fromhex(raw["data"][2:]))
    return Log(name, values, int(raw["blockNumber"], 16), raw["transactionHash"])


def _named(fields: Sequence[tuple[str, str]], data: bytes) -> dict[str, Any]:
    try:
        values = decode([kind for _, kind in fields], data)
    except DecodingError as error:
        raise ValueError(f"these bytes are not {', '.join(name for name, _ in fields)}: {error}") from None
    return {name: _shown(kind, value) for (name, kind), value in zip(fields, values, strict=True)}


def _shown(kind: str, value: Any) -> Any:
    if kind == "address":
        return to_checksum_address(value)
    return [to_checksum_address(item) for item in value] if kind == "address[]" else value


def _selector(signature: str) -> bytes:
    return keccak(signature.encode())[:4]
