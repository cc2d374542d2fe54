"""Proofs of single payments, checked by our own code and against OpenZeppelin's standard form."""

from __future__ import annotations

import dataclasses

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from escrow.chain.merkle import hash_pair
from escrow.chain.wire import Leaf, MerkleTree, merkle_root, verify_proof

PROVIDER = "0x0000000000000000000000000000000000001001"


def leaf(number: int) -> Leaf:
    return Leaf(b"\x01" * 32, number // 3, number.to_bytes(32, "big"), PROVIDER, 1_000 + number, b"\x02" * 32)


def test_a_leaf_is_the_double_hash_of_its_abi_encoding() -> None:
    one = leaf(4)
    encoded = encode(
        ["bytes32", "uint256", "bytes32", "address", "uint256", "bytes32"],
        [one.pool_id, one.seq, one.payment_id, one.provider, one.amount, one.task_hash],
    )
    assert one.hash == keccak(keccak(encoded))


def test_small_trees_by_hand() -> None:
    """The array form of `@openzeppelin/merkle-tree`: leaves sorted by hash, laid in from the end."""
    a, b, c = sorted((leaf(i) for i in range(3)), key=lambda one: one.hash)
    assert merkle_root([a]) == a.hash
    assert merkle_root([b, a]) == hash_pair(a.hash, b.hash)
    tree = MerkleTree([c, a, b])
    assert tree.root == hash_pair(hash_pair(a.hash, b.hash), c.hash)
    assert tree.proof(c) == [hash_pair(a.hash, b.hash)]
    assert tree.proof(a) == [b.hash, c.hash]


@given(count=st.integers(1, 70), order=st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_every_leaf_has_a_proof_whatever_the_order(count: int, order: object) -> None:
    leaves = [leaf(i) for i in range(count)]
    shuffled = list(leaves)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    tree = MerkleTree(shuffled)
    assert tree.root == merkle_root(leaves)
    for one in leaves:
        proof = tree.proof(one)
        assert verify_proof(tree.root, one, proof)
        assert not verify_proof(tree.root, dataclasses.replace(one, amount=one.amount + 1), proof)


def test_what_is_not_in_the_batch_has_no_proof() -> None:
    tree = MerkleTree([leaf(i) for i in range(5)])
    with pytest.raises(KeyError):
        tree.proof(leaf(5))
    assert not verify_proof(tree.root, leaf(5), tree.proof(leaf(0)))
    assert not verify_proof(tree.root, leaf(0), [])


def test_empty_and_doubled_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one leaf"):
        MerkleTree([])
    with pytest.raises(ValueError, match="two equal leaves"):
        MerkleTree([leaf(1), leaf(1)])
