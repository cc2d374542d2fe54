"""What became of a broadcast, read from the node's words. Lives here: our own table of geth's and anvil's texts.

Not here: what follows from an outcome (the relay's). An unknown text is UNKNOWN, never a refusal: a chain transaction
taken for refused and sent anew under another nonce would be sent twice. And no outcome but NONCE_TOO_LOW says that the
bytes cannot be mined: another node may have them from an earlier attempt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class SendOutcome(StrEnum):
    """What a node's answer stands for, the most knowing first."""

    OK = "ok"  # the node took it
    ALREADY_KNOWN = "already_known"  # the node has these very bytes
    NONCE_TOO_LOW = "nonce_too_low"  # the nonce is mined: look up all our hashes
    UNDERPRICED = "underpriced"  # as it is, it will not be taken: raise both fees, same nonce
    UNFUNDED = "unfunded"  # the signer cannot pay for it now: the same bytes again when it can
    REFUSED = "refused"  # these bytes can never be taken as things stand
    UNKNOWN = "unknown"  # nobody knows: same bytes again


_KNOWING: Final = tuple(SendOutcome)
TAKEN: Final = (SendOutcome.OK, SendOutcome.ALREADY_KNOWN)
"""The node has the bytes."""


@dataclass(frozen=True)
class SendResult:
    """`transaction_hash` is ours, computed from the bytes; `detail` is what the node said."""

    outcome: SendOutcome
    transaction_hash: str
    detail: str


# In order: the first text found inside the message decides. Compared in lower case.
_TEXTS: tuple[tuple[str, SendOutcome], ...] = (
    ("already known", SendOutcome.ALREADY_KNOWN),  # geth
    ("known transaction", SendOutcome.ALREADY_KNOWN),  # geth before 1.9.15, op-geth proxies
    ("already imported", SendOutcome.ALREADY_KNOWN),  # anvil
    ("alreadyknown", SendOutcome.ALREADY_KNOWN),  # nethermind behind some providers
    ("nonce too low", SendOutcome.NONCE_TOO_LOW),  # geth, anvil
    ("replacement transaction underpriced", SendOutcome.UNDERPRICED),  # geth, anvil
    ("transaction underpriced", SendOutcome.UNDERPRICED),  # geth: below the pool's price limit
    ("max fee per gas less than block base fee", SendOutcome.UNDERPRICED),  # geth, anvil
    ("fee cap less than block base fee", SendOutcome.UNDERPRICED),  # geth, older
    ("gas price below minimum", SendOutcome.UNDERPRICED),  # geth since 1.16
    ("insufficient funds", SendOutcome.UNFUNDED),  # geth, anvil
    ("insufficientfunds", SendOutcome.UNFUNDED),  # nethermind behind some providers
    ("intrinsic gas too low", SendOutcome.REFUSED),  # geth, anvil
    ("floor data gas", SendOutcome.REFUSED),  # geth since EIP-7623
    ("exceeds block gas limit", SendOutcome.REFUSED),  # geth
    ("gas limit too high", SendOutcome.REFUSED),  # geth since EIP-7825
    ("gas too high", SendOutcome.REFUSED),  # anvil
    ("max priority fee per gas higher than max fee per gas", SendOutcome.REFUSED),  # geth, anvil
    ("exceeds the configured cap", SendOutcome.REFUSED),  # geth: --rpc.txfeecap
    ("max initcode size exceeded", SendOutcome.REFUSED),  # geth, anvil
    ("oversized data", SendOutcome.REFUSED),  # geth
    ("invalid sender", SendOutcome.REFUSED),  # geth
    ("invalid chain id", SendOutcome.REFUSED),  # geth, anvil
    ("transaction type not supported", SendOutcome.REFUSED),  # geth
    ("failed to decode", SendOutcome.REFUSED),  # anvil
)


def classify(message: str) -> SendOutcome:
    """The outcome a node's error message stands for."""
    lowered = message.lower()
    return next((outcome for text, outcome in _TEXTS if text in lowered), SendOutcome.UNKNOWN)


def most_knowing(results: Sequence[SendResult]) -> SendResult:
    """What several nodes said together: who has the bytes, or knows their nonce, knows more than who refuses them."""
    return min(results, key=lambda result: _KNOWING.index(result.outcome))
