"""The tree over what is owed: every leaf is provable, and no sum can be claimed that is not the sum of the leaves."""

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escrow import sumtree
from escrow.sumtree import Leaf, SumTree


def leaves(amounts: list[int]) -> list[Leaf]:
    return [Leaf(f"{at:064x}", "payable", f"pool {at}", "", micros) for at, micros in enumerate(amounts)]


@given(st.lists(st.integers(1, 10**15), min_size=1, max_size=40))
def test_every_leaf_leads_to_the_root_and_to_the_sum(amounts: list[int]) -> None:
    tree = SumTree(leaves(amounts))
    assert tree.root[1] == sum(amounts)
    for leaf in leaves(amounts):
        assert sumtree.root_of(leaf, tree.proof(leaf)) == tree.root
        assert sumtree.root_of(replace(leaf, micros=leaf.micros + 1), tree.proof(leaf))[0] != tree.root[0]


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=20), st.data())
def test_a_sum_of_a_neighbour_cannot_be_made_smaller(amounts: list[int], draw: st.DataObject) -> None:
    leaf = draw.draw(st.sampled_from(leaves(amounts)))
    proof = SumTree(leaves(amounts)).proof(leaf)
    at = draw.draw(st.integers(0, len(proof) - 1))
    lower = [replace(step, micros=step.micros - 1) if place == at else step for place, step in enumerate(proof)]
    if proof[at].micros:
        assert sumtree.root_of(leaf, lower)[0] != SumTree(leaves(amounts)).root[0]


def test_nothing_below_zero_hides_a_debt() -> None:
    with pytest.raises(ValueError, match="below zero"):
        SumTree(leaves([5, -1]))
    leaf = leaves([5])[0]
    with pytest.raises(ValueError, match="below zero"):
        sumtree.root_of(leaf, [sumtree.Sibling("left", "00", -5)])


def test_it_can_be_made_by_hand() -> None:
    (one, two) = leaves([3, 4])
    hashes = sorted(
        hashlib.sha256(
            f"agentmarket-reserves-leaf-1|{leaf.salt}|payable|{leaf.pool}||{leaf.micros}".encode()
        ).hexdigest()
        + f"|{leaf.micros}"
        for leaf in (one, two)
    )
    root = hashlib.sha256(f"agentmarket-reserves-node-1|{hashes[0]}|{hashes[1]}".encode()).hexdigest()
    assert SumTree([two, one]).root == (root, 7)
    assert SumTree([]).root == (hashlib.sha256(b"agentmarket-reserves-empty-1").hexdigest(), 0)
