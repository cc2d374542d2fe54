"""Why the contract refuses, and what helps: its errors by name, with advice. Pure.

A table for people: the names and types are the contract's (a test holds them to it), the advice is ours.
"""

from collections.abc import Mapping
from typing import Any

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address

from agentmarket.chain.errors import Reverted

#: signature with the names of its arguments -> advice
_TABLE: Mapping[str, str] = {
    "NoSuchPool(bytes32 poolId)": "No pool of this contract has that id: check the id and the contract.",
    "NotPayer(address caller, address payer)": "Only the payer's key may do this.",
    "BadSignature(address expectedSigner)": "The batch was signed by another key, for another contract or chain, "
    "or it was changed since: fetch it again.",
    "DeadlinePassed(uint256 deadline, uint256 nowAt)": "The signature is too old: the service signs the debts anew.",
    "PoolEnded(uint256 endsAt, uint256 nowAt)": "The pool has ended: nothing settles any more, and what is free is "
    "the payer's to reclaim.",
    "PoolClosing(uint256 endsAt)": "The payer has asked to close before: wait for the end.",
    "NotEnded(uint256 endsAt, uint256 nowAt)": "Wait until endsAt, or let the payer ask to close.",
    "BadWire(uint256 length)": "`packed` is not a batch: fetch the file again.",
    "SequenceOverflow(uint256 firstSeq, uint256 count)": "The sequence numbers leave 32 bits: no such batch can land.",
    "AlreadySettled(bytes32 poolId, uint256 seq)": "This batch has landed before: withdraw.",
    "BadProviderIndex(uint256 seq, uint256 index, uint256 providers)": "`packed` is not a batch: fetch the file again.",
    "ZeroRecord(uint256 seq)": "`packed` is not a batch: fetch the file again.",
    "RecordOverCap(uint256 seq, uint256 amount, uint256 cap)": "The pool's terms do not let one record carry that much.",
    "ProviderNotAllowed(bytes32 poolId, address provider)": "The payer has not allowed this provider: "
    "`allowProviders` comes first.",
    "UnusedProvider(address provider)": "`packed` is not a batch: fetch the file again.",
    "WindowOverCap(uint256 spent, uint256 cap)": "The pool's window is spent: try again in the next one.",
    "InsufficientFree(uint256 wanted, uint256 free)": "The pool has less free money than the batch credits.",
    "ItemOutOfGas(uint256 index)": "Send it again with more gas.",
    "NoOpenDispute(bytes32 poolId, address provider, bytes32 ref)": "That dispute has been ruled, or never was.",
    "TimeoutTooEarly(uint256 timeoutAt, uint256 nowAt)": "The arbiter has until timeoutAt.",
    "NothingToWithdraw(bytes32 poolId, address provider)": "Nothing has matured yet: `lineOf` tells when.",
    "NothingToReclaim(bytes32 poolId)": "The pool has no free money.",
}
_UNKNOWN = "This version does not know that error: look it up in the contract's interface."


def signatures() -> dict[str, bytes]:
    """Every known error's canonical signature, and its selector."""
    return {signature: _selector(signature) for signature in map(_canonical, _TABLE)}


def reverted(data: bytes) -> Reverted:
    """The error for what a reverted call returned."""
    known = _BY_SELECTOR.get(data[:4])
    if known is None:
        name, arguments, advice = _built_in(data)
    else:
        name, arguments, advice = known[0], _arguments(known[1], data[4:]), known[2]
    listed = ", ".join(f"{field} {value}" for field, value in arguments.items())
    said = f"{name}({listed})" if listed else name
    return Reverted(f"The contract refuses: {said}. {advice}", name=name, arguments=arguments)


def _built_in(data: bytes) -> tuple[str, dict[str, object], str]:
    """Solidity's own Error(string) and Panic(uint256), or the bare selector."""
    for kind, signature in (("string", "Error(string)"), ("uint256", "Panic(uint256)")):
        if data[:4] == _selector(signature):
            return signature.partition("(")[0], _arguments([("message", kind)], data[4:]), _UNKNOWN
    return f"0x{data[:4].hex()}" if data else "no reason", {}, _UNKNOWN


def _arguments(fields: list[tuple[str, str]], data: bytes) -> dict[str, object]:
    try:
        values = decode([kind for _, kind in fields], data)
    except DecodingError:
        return {}
    return {name: _shown(kind, value) for (name, kind), value in zip(fields, values, strict=True)}


def _shown(kind: str, value: Any) -> object:
    if kind == "address":
        return to_checksum_address(value)
    return f"0x{value.hex()}" if isinstance(value, bytes) else value


def _fields(entry: str) -> list[tuple[str, str]]:
    inner = entry.partition("(")[2].rstrip(")")
    pairs = (part.split() for part in inner.split(",") if part.strip())
    return [(name, kind) for kind, name in pairs]


def _canonical(entry: str) -> str:
    return f"{entry.partition('(')[0]}({','.join(kind for _, kind in _fields(entry))})"


def _selector(signature: str) -> bytes:
    return keccak(signature.encode())[:4]


_BY_SELECTOR = {
    _selector(_canonical(entry)): (entry.partition("(")[0], _fields(entry), advice) for entry, advice in _TABLE.items()
}
