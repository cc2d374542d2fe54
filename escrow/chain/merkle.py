"""Merkle proofs of single payments inside a settled batch.

Lives here: leaves, roots and proofs in OpenZeppelin's standard form, so `MerkleProof.verify` and the npm package
`@openzeppelin/merkle-tree` agree with us. Pure. Not here: what a batch is (wire.py).

leaf  = keccak256(keccak256(abi.encode(poolId, seq, paymentId, provider, amount, taskHash)))
node  = keccak256(smaller child || larger child)
tree  = complete binary tree of 2 n - 1 nodes in an array, root first, leaves sorted by hash and laid in from the end
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eth_utils.crypto import keccak

from escrow.chain.words import address_word, bytes32_word, uint_word


@dataclass(frozen=True)
class Leaf:
    """One payment of a batch. `seq` is its record's sequence number: payments netted into one record share it."""

    pool_id: bytes
    seq: int
    payment_id: bytes
    provider: str
    amount: int
    task_hash: bytes

    @property
    def hash(self) -> bytes:
        encoded = b"".join(
            (
                bytes32_word(self.pool_id),
                uint_word(self.seq),
                bytes32_word(self.payment_id),
                address_word(self.provider),
                uint_word(self.amount),
                bytes32_word(self.task_hash),
            )
        )
        return keccak(keccak(encoded))


class MerkleTree:
    """The tree over a batch's leaves, whatever their order. At least one leaf; equal leaves are refused."""

    def __init__(self, leaves: Sequence[Leaf]) -> None:
        hashes = sorted(leaf.hash for leaf in leaves)
        if not hashes:
            raise ValueError("a Merkle tree needs at least one leaf")
        if len(set(hashes)) != len(hashes):
            raise ValueError("two equal leaves: payment ids must be unique within a batch")
        size = 2 * len(hashes) - 1
        self._nodes = [b""] * size
        self._places = {}
        for i, leaf_hash in enumerate(hashes):
            self._nodes[size - 1 - i] = leaf_hash
            self._places[leaf_hash] = size - 1 - i
        for i in reversed(range(size - len(hashes))):
            self._nodes[i] = hash_pair(self._nodes[2 * i + 1], self._nodes[2 * i + 2])

    @property
    def root(self) -> bytes:
        return self._nodes[0]

    def proof(self, leaf: Leaf) -> list[bytes]:
        """Sibling hashes from the leaf up. Raises KeyError for a leaf that is not in the tree."""
        place = self._places[leaf.hash]
        siblings = []
        while place > 0:
            siblings.append(self._nodes[place + 1 if place % 2 else place - 1])
            place = (place - 1) // 2
        return siblings


def merkle_root(leaves: Sequence[Leaf]) -> bytes:
    return MerkleTree(leaves).root


def verify_proof(root: bytes, leaf: Leaf, proof: Sequence[bytes]) -> bool:
    """Whether `leaf` belongs to the batch whose event published `root`."""
    node = leaf.hash
    for sibling in proof:
        node = hash_pair(node, sibling)
    return node == root


def hash_pair(one: bytes, other: bytes) -> bytes:
    return keccak(min(one, other) + max(one, other))
