"""What the market holds against what it owes, and the proof of one's own debts: `verify` believes none of it.

Only the standard library is needed: each hash is sha256 of a line of text.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from agentmarket.decode import Answer
from agentmarket.errors import InvalidReply

_LEAF = "agentmarket-reserves-leaf-1"
_NODE = "agentmarket-reserves-node-1"


@dataclass(frozen=True, kw_only=True)
class Reserves(Answer):
    """The contract's balance beside everything that is owed, at one block. Ask any node for the balance yourself."""

    id: str
    chain_id: int
    contract: str
    block: int
    held: str
    liabilities_total: str
    difference: str
    verdict: str
    root: str
    #: the address to ask for the balance of `contract`; an older market does not say it
    token: str | None = None
    unexplained: int = 0
    in_flight: str = "0.00"
    surplus: str = "0.00"
    others: str = "0.00"
    liabilities: Mapping[str, str] = field(default_factory=dict)
    at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Sibling(Answer):
    """The node beside, from the leaf up."""

    side: str
    hash: str
    #: micro-USDC, in decimal digits
    micros: str


@dataclass(frozen=True, kw_only=True)
class Inclusion(Answer):
    """One debt to you, and its way to the root."""

    owed_as: str
    pool_id: str
    party_id: str
    amount: str
    micros: str
    salt: str
    proof: tuple[Sibling, ...]

    def root(self) -> tuple[str, int]:
        """The hash and the sum that this debt leads to. Raises InvalidReply for a number that is none, or below zero."""
        text = f"{_LEAF}|{self.salt}|{self.owed_as}|{self.pool_id}|{self.party_id}|{self.micros}"
        node = _sha256(text), _count(self.micros)
        for step in self.proof:
            beside = step.hash, _count(step.micros)
            if step.side not in ("left", "right"):
                raise InvalidReply(f"A proof's step is on the side {step.side!r}, which is none.")
            left, right = (beside, node) if step.side == "left" else (node, beside)
            node = _sha256(f"{_NODE}|{left[0]}|{left[1]}|{right[0]}|{right[1]}"), left[1] + right[1]
        return node


@dataclass(frozen=True, kw_only=True)
class ReservesProof(Answer):
    """Everything that the market says it owes you, each with its way to the root that all are shown."""

    report_id: str
    block: int
    root: str
    root_micros: str
    items: tuple[Inclusion, ...]
    at: datetime | None = None

    @property
    def micros(self) -> int:
        """What is owed to you by this proof, in micro-USDC. Compare it with what you know."""
        return sum(_count(item.micros) for item in self.items)

    def verify(self, *, root: str | None = None) -> int:
        """Check every debt against the root; return what they come to, in micro-USDC.

        `root` is the one that you trust, because others were shown it too; without it, the proof's own. Raises InvalidReply
        when a debt is not in it, comes twice, or when the sum is another than the root commits to.
        """
        wanted = (root or self.root, _count(self.root_micros))
        debts = [(item.owed_as, item.pool_id, item.party_id) for item in self.items]
        if len(set(debts)) < len(debts):
            raise InvalidReply("The market's proof has the same debt twice.")
        for item in self.items:
            if item.root() != wanted:
                debt = f"{item.owed_as} in pool {item.pool_id or 'none'}"
                raise InvalidReply(
                    f"What is owed as {debt} is not in the root {wanted[0]} over {wanted[1]} micro-USDC."
                )
        return self.micros


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise InvalidReply(f"{text!r} is no number of micro-USDC.")
    return int(text)
