"""A Merkle sum tree over what is owed: each node commits to the sums of both its children, so no debt can be left out of it.

The construction is Maxwell's summation tree for proofs of liabilities, with both children's sums inside the hash, not
only their total: without that a prover can claim less than it owes (Hu, Zhang, Guo, "Breaking the binding", 2019;
Chalkias, Lewi, Mohassel, Nikolaenko, "Distributed Auditing Proofs of Liabilities", 2020). Each leaf has a salt of its
own, so that nobody can guess whose a neighbour is. Pure, and text all the way: `printf` and `sha256sum` check it by hand.

leaf = sha256("agentmarket-reserves-leaf-1|<salt>|<class>|<pool>|<party>|<micros>")
node = sha256("agentmarket-reserves-node-1|<left hash>|<left micros>|<right hash>|<right micros>")
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LEAF: Final = "agentmarket-reserves-leaf-1"
NODE: Final = "agentmarket-reserves-node-1"
EMPTY: Final = hashlib.sha256(b"agentmarket-reserves-empty-1").hexdigest()
"""The root when nothing is owed."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One debt: of a class, in a pool (empty for the market's fees), to a party (empty for the pool's payer)."""

    salt: str
    owed_as: str
    pool: str
    party: str
    micros: int

    @property
    def hash(self) -> str:
        """What stands for it in the tree."""
        return _sha256(f"{LEAF}|{self.salt}|{self.owed_as}|{self.pool}|{self.party}|{self.micros}")


@dataclass(frozen=True, slots=True)
class Sibling:
    """A step of a proof, from the leaf up: the node beside, on which side it is, and what is owed below it."""

    side: str
    hash: str
    micros: int


Node = tuple[str, int]


class SumTree:
    """The tree over leaves, whatever their order: sorted by hash, paired, and an odd one goes up as it is."""

    def __init__(self, leaves: Sequence[Leaf]) -> None:
        if any(leaf.micros < 0 for leaf in leaves):
            raise ValueError("a debt below zero would hide another")
        self._levels: list[list[Node]] = [sorted((leaf.hash, leaf.micros) for leaf in leaves)]
        while len(self._levels[-1]) > 1:
            level = self._levels[-1]
            pairs = [_join(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
            self._levels.append(pairs + level[len(pairs) * 2 :])
        self._places = {node: at for at, node in enumerate(self._levels[0])}

    @property
    def root(self) -> Node:
        """The hash, and the sum of everything that is owed."""
        return self._levels[-1][0] if self._levels[0] else (EMPTY, 0)

    def proof(self, leaf: Leaf) -> list[Sibling]:
        """Return the siblings from a leaf up. Raises KeyError for one that is not in the tree."""
        place, steps = self._places[leaf.hash, leaf.micros], []
        for level in self._levels[:-1]:
            beside = place ^ 1
            if beside < len(level):
                steps.append(Sibling("left" if place % 2 else "right", *level[beside]))
            place //= 2
        return steps


def root_of(leaf: Leaf, proof: Sequence[Sibling]) -> Node:
    """Return the root that a leaf and its siblings give. Raises ValueError for a sum below zero."""
    node: Node = (leaf.hash, leaf.micros)
    for step in proof:
        if step.micros < 0:
            raise ValueError("a sum below zero would hide a debt")
        beside: Node = (step.hash, step.micros)
        node = _join(beside, node) if step.side == "left" else _join(node, beside)
    return node


def _join(left: Node, right: Node) -> Node:
    return _sha256(f"{NODE}|{left[0]}|{left[1]}|{right[0]}|{right[1]}"), left[1] + right[1]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()
