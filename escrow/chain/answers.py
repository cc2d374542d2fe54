"""What a node's answers mean: JSON becomes our own frozen types, or the answer is as good as none.

Lives here: the types and their readers, and which error a JSON-RPC error object is. Not here: asking (nodes.py, client.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from eth_abi.exceptions import DecodingError
from eth_utils.address import to_checksum_address

from escrow.chain.abi import error_codec
from escrow.chain.errors import ChainRefused, ChainReverted, ChainUnavailable
from escrow.chain.events import PoolEvent, decode_log

T = TypeVar("T")


@dataclass(frozen=True)
class Block:
    number: int
    hash: str
    parent_hash: str
    timestamp: int
    base_fee: int


@dataclass(frozen=True)
class Tiers:
    """How deep is what: `final` never goes away, `safe` only with the data of the chain below, `latest` any time."""

    latest: Block
    safe: Block
    final: Block


@dataclass(frozen=True)
class Fees:
    """Wei per gas. `max_fee` leaves room for the base fee to double."""

    base_fee: int
    tip: int
    max_fee: int


@dataclass(frozen=True)
class Receipt:
    """`ok` is False for a reverted chain transaction. `events` are the pool events among its logs."""

    transaction_hash: str
    ok: bool
    block_number: int
    block_hash: str
    gas_used: int
    effective_gas_price: int
    contract_address: str | None
    events: tuple[PoolEvent, ...]


@dataclass(frozen=True)
class Transaction:
    """`block_number` and `block_hash` are None while it is pending."""

    hash: str
    from_: str
    to: str | None
    nonce: int
    data: bytes
    max_fee_per_gas: int
    max_priority_fee_per_gas: int
    block_number: int | None
    block_hash: str | None


# ---------------------------------------------------------------------- errors


RATE_CODES: Final = frozenset({429, -32005})
"""HTTP's code, which some providers repeat inside, and EIP-1474's "limit exceeded"."""
RATE_TEXTS: Final = ("too many requests", "rate limit", "request limit", "request count exceeded", "compute units")
TOO_MUCH_TEXTS: Final = ("query returned", "block range", "more than")
"""Some providers use -32005 for too long an answer as well: that is about the question, and asking again is no use."""


def error_of(method: str, error: Any) -> Exception:
    """ChainUnavailable when the node would have answered another time, else what it says about the question."""
    if not isinstance(error, Mapping):
        return ChainRefused(method, 0, str(error))
    message, code, returned = str(error.get("message", "")), error.get("code", 0), error.get("data")
    if isinstance(returned, str) and returned.startswith("0x") and len(returned) > 2:
        try:
            decoded = error_codec().error(bytes.fromhex(returned[2:]))
        except ValueError:
            decoded = None
        return ChainReverted(*(decoded or ("", {})), detail=message)
    if code == 3 or "execution reverted" in message:
        return ChainReverted("", {}, detail=message)
    if _is_rate_limit(code, message.lower()):
        return ChainUnavailable(f"{method}: too many requests")
    return ChainRefused(method, code if isinstance(code, int) else 0, message)


def _is_rate_limit(code: Any, message: str) -> bool:
    if any(text in message for text in TOO_MUCH_TEXTS):
        return False
    return code in RATE_CODES or message.strip() == "limit exceeded" or any(text in message for text in RATE_TEXTS)


# ---------------------------------------------------------------------- readers


def shaped(method: str, reader: Callable[[Any], T], answer: Any) -> T:
    """Read an answer; one of another shape than the protocol's is as good as none."""
    try:
        return reader(answer)
    except (KeyError, TypeError, ValueError, AttributeError, DecodingError) as error:
        raise ChainUnavailable(f"{method}: malformed answer ({type(error).__name__})") from None


def optional(reader: Callable[[Any], T]) -> Callable[[Any], T | None]:
    """The reader of an answer that may be null."""
    return lambda answer: None if answer is None else reader(answer)


def integer(answer: Any) -> int:
    return int(answer, 16)


def octets(answer: Any) -> bytes:
    return bytes.fromhex(answer[2:])


def events(answer: Any) -> list[PoolEvent]:
    decoded = [event for log in answer if not log.get("removed") and (event := decode_log(log)) is not None]
    return sorted(decoded, key=lambda event: event.place)


def block(answer: Any) -> Block:
    return Block(
        number=integer(answer["number"]),
        hash=answer["hash"],
        parent_hash=answer["parentHash"],
        timestamp=integer(answer["timestamp"]),
        base_fee=integer(answer.get("baseFeePerGas") or "0x0"),
    )


def receipt(answer: Any) -> Receipt:
    created = answer.get("contractAddress")
    return Receipt(
        transaction_hash=answer["transactionHash"],
        ok=integer(answer["status"]) == 1,
        block_number=integer(answer["blockNumber"]),
        block_hash=answer["blockHash"],
        gas_used=integer(answer["gasUsed"]),
        effective_gas_price=integer(answer.get("effectiveGasPrice") or "0x0"),
        contract_address=to_checksum_address(created) if created else None,
        events=tuple(events(answer["logs"])),
    )


def transaction(answer: Any) -> Transaction:
    price = answer.get("gasPrice") or "0x0"
    mined = answer.get("blockNumber")
    return Transaction(
        hash=answer["hash"],
        from_=to_checksum_address(answer["from"]),
        to=to_checksum_address(answer["to"]) if answer.get("to") else None,
        nonce=integer(answer["nonce"]),
        data=octets(answer["input"]),
        max_fee_per_gas=integer(answer.get("maxFeePerGas") or price),
        max_priority_fee_per_gas=integer(answer.get("maxPriorityFeePerGas") or price),
        block_number=integer(mined) if mined else None,
        block_hash=answer.get("blockHash") if mined else None,
    )
