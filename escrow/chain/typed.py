"""EIP-712: the closed set of messages that our roles sign. Nothing else is ever signed but a chain transaction.

Lives here: one frozen dataclass per message, with the 32 bytes that are signed (`digest`) and the document that a remote
signer takes (`document`). Pure. Some carry more than is signed, for a signer that looks before it signs: see `Batch`
and `ReceiveWithAuthorization`. Not here: domains (domain.py), terms (terms.py), signing (signer.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from eth_utils.crypto import keccak

from escrow.chain.domain import Domain, providers_hash, typed_digest
from escrow.chain.merkle import Leaf
from escrow.chain.terms import Terms
from escrow.chain.words import address_word, bytes32_word, uint_word

Members = Mapping[str, tuple[str, str]]
"""Of a message: its attribute -> the member's name and type in Solidity, in the order that is signed."""

_DOMAIN_MEMBERS: Final = [
    {"name": "name", "type": "string"},
    {"name": "version", "type": "string"},
    {"name": "chainId", "type": "uint256"},
    {"name": "verifyingContract", "type": "address"},
]


class MalformedMessage(ValueError):
    """A document that is none of the messages here, or not exactly one of them."""


@dataclass(frozen=True)
class Message:
    """What all of them have. Pool ids, nonces and references are 32 bytes, amounts micro-USDC, times unix seconds."""

    NAME: ClassVar[str]
    MEMBERS: ClassVar[Members]

    domain: Domain

    @property
    def digest(self) -> bytes:
        """The 32 bytes that are signed; raises ValueError for a member outside its type."""
        type_string = f"{self.NAME}({','.join(f'{kind} {name}' for name, kind in self.MEMBERS.values())})"
        words = (_word(kind, getattr(self, attribute)) for attribute, (_, kind) in self.MEMBERS.items())
        return typed_digest(self.domain, type_string, b"".join(words))

    def document(self) -> dict[str, Any]:
        """The JSON that `eth_signTypedData_v4` takes: bytes as `0x` strings, numbers as decimal strings."""
        return {
            "types": {
                "EIP712Domain": _DOMAIN_MEMBERS,
                self.NAME: [{"name": name, "type": kind} for name, kind in self.MEMBERS.values()],
            },
            "primaryType": self.NAME,
            "domain": {
                "name": self.domain.name,
                "version": self.domain.version,
                "chainId": str(self.domain.chain_id),
                "verifyingContract": self.domain.verifying_contract,
            },
            "message": {name: _shown(getattr(self, attribute)) for attribute, (name, _) in self.MEMBERS.items()},
        }


@dataclass(frozen=True)
class Batch(Message):
    """What the authorizer signs for `settle`. `leaves` are not signed, their root is: they say what is being paid."""

    NAME = "Batch"
    MEMBERS = {
        "pool_id": ("poolId", "bytes32"),
        "packed": ("packed", "bytes"),
        "root": ("root", "bytes32"),
        "deadline": ("deadline", "uint64"),
    }

    pool_id: bytes
    packed: bytes
    root: bytes
    deadline: int
    leaves: tuple[Leaf, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class TopUp(Message):
    """Its digest is the ERC-3009 nonce of a top-up, which binds the payer's signature to the pool."""

    NAME = "TopUp"
    MEMBERS = {"pool_id": ("poolId", "bytes32"), "nonce_salt": ("nonceSalt", "bytes32")}

    pool_id: bytes
    nonce_salt: bytes


@dataclass(frozen=True)
class AllowProviders(Message):
    """What the payer signs for `allowProvidersWithSig`."""

    NAME = "AllowProviders"
    MEMBERS = {
        "pool_id": ("poolId", "bytes32"),
        "providers": ("providers", "address[]"),
        "nonce": ("nonce", "bytes32"),
        "deadline": ("deadline", "uint64"),
    }

    pool_id: bytes
    providers: tuple[str, ...]
    nonce: bytes
    deadline: int


@dataclass(frozen=True)
class Dispute(Message):
    """What the payer signs for `disputeWithSig`."""

    NAME = "Dispute"
    MEMBERS = {
        "pool_id": ("poolId", "bytes32"),
        "provider": ("provider", "address"),
        "amount": ("amount", "uint64"),
        "ref": ("ref", "bytes32"),
        "deadline": ("deadline", "uint64"),
    }

    pool_id: bytes
    provider: str
    amount: int
    ref: bytes
    deadline: int


@dataclass(frozen=True)
class RequestClose(Message):
    """What the payer signs for `requestCloseWithSig`."""

    NAME = "RequestClose"
    MEMBERS = {"pool_id": ("poolId", "bytes32"), "deadline": ("deadline", "uint64")}

    pool_id: bytes
    deadline: int


@dataclass(frozen=True)
class SetAuthorizer(Message):
    """What the payer signs for `setAuthorizerWithSig`."""

    NAME = "SetAuthorizer"
    MEMBERS = {
        "pool_id": ("poolId", "bytes32"),
        "successor": ("next", "address"),
        "nonce": ("nonce", "bytes32"),
        "deadline": ("deadline", "uint64"),
    }

    pool_id: bytes
    successor: str
    nonce: bytes
    deadline: int


@dataclass(frozen=True)
class SetPayout(Message):
    """What a provider signs for `setPayoutWithSig`."""

    NAME = "SetPayout"
    MEMBERS = {
        "pool_id": ("poolId", "bytes32"),
        "provider": ("provider", "address"),
        "payout": ("payout", "address"),
        "nonce": ("nonce", "bytes32"),
        "deadline": ("deadline", "uint64"),
    }

    pool_id: bytes
    provider: str
    payout: str
    nonce: bytes
    deadline: int


@dataclass(frozen=True)
class Deposit:
    """What a deposit's nonce was made of: the terms it opens a pool with, or, with a `salt`, tops it up under."""

    terms: Terms
    salt: bytes | None = None


@dataclass(frozen=True)
class _Authorization(Message):
    """ERC-3009. The domain is the token's."""

    MEMBERS = {
        "from_": ("from", "address"),
        "to": ("to", "address"),
        "value": ("value", "uint256"),
        "valid_after": ("validAfter", "uint256"),
        "valid_before": ("validBefore", "uint256"),
        "nonce": ("nonce", "bytes32"),
    }

    from_: str
    to: str
    value: int
    valid_after: int
    valid_before: int
    nonce: bytes


@dataclass(frozen=True)
class ReceiveWithAuthorization(_Authorization):
    """What the payer signs so that `to`, and only `to`, may pull `value`. `deposit` is not signed: it explains the nonce."""

    NAME = "ReceiveWithAuthorization"

    deposit: Deposit | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class TransferWithAuthorization(_Authorization):
    """What a payer signs so that anybody may move `value` to `to`. Our roles never do: it is what others pay with."""

    NAME = "TransferWithAuthorization"


MESSAGES: Final[Mapping[str, type[Message]]] = {
    kind.NAME: kind
    for kind in (
        Batch,
        TopUp,
        AllowProviders,
        Dispute,
        RequestClose,
        SetAuthorizer,
        SetPayout,
        ReceiveWithAuthorization,
        TransferWithAuthorization,
    )
}


def read(document: Mapping[str, Any]) -> Message:
    """The message of a document that `Message.document` made, and of no other; raises MalformedMessage."""
    try:
        kind, at, said = MESSAGES[document["primaryType"]], document["domain"], document["message"]
        domain = Domain(at["name"], at["version"], _number(at["chainId"]), at["verifyingContract"])
        members = {attribute: _read(type_, said[name]) for attribute, (name, type_) in kind.MEMBERS.items()}
        message = kind(domain, **members)
        same = message.document() == document and len(message.digest) == 32
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedMessage(f"not one of the messages that are signed here: {type(error).__name__}") from None
    if not same:
        raise MalformedMessage(f"not exactly a {kind.NAME}")
    return message


def _word(kind: str, value: Any) -> bytes:
    if kind == "bytes32":
        return bytes32_word(value)
    if kind == "address":
        return address_word(value)
    if kind == "address[]":
        return providers_hash(value)
    if kind == "bytes":
        return keccak(value)
    return uint_word(value, int(kind.removeprefix("uint")))


def _shown(value: Any) -> Any:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, tuple):
        return list(value)
    return str(value)


def _read(kind: str, value: Any) -> Any:
    if kind.startswith("bytes"):
        return bytes.fromhex(value.removeprefix("0x"))
    if kind == "address[]":
        return tuple(value)
    return value if kind == "address" else _number(value)


def _number(value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 78:
        raise MalformedMessage("a number is written in decimal digits")
    return int(value)
