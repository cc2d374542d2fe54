"""The SDK's words on the chain are the contract's and the service's, to the byte; and it imports neither."""

import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from agentmarket.chain import abi, batches, merkle, refusals
from agentmarket.errors import InvalidReply
from escrow import receipts
from escrow.chain import contract, wire
from escrow.chain.abi import codec, type_of
from escrow.chain.merkle import Leaf, MerkleTree
from escrow.chain.wire import Record

POOL, ROOT, SIGNATURE = b"\x11" * 32, b"\x22" * 32, b"\x33" * 65
ONE, TWO = "0x" + "a1" * 20, "0x" + "b2" * 20


def test_every_call_and_answer_is_the_contracts() -> None:
    for name, (arguments, outputs) in abi.FUNCTIONS.items():
        entry = codec("BudgetPool").function(name, len(arguments))
        assert tuple(type_of(item) for item in entry.inputs) == arguments
        fields = entry.outputs[0].get("components", entry.outputs) if entry.outputs else []
        kinds = [type_of(item).replace("enum", "uint8") for item in fields]
        assert kinds == [kind for _, kind in outputs], name
        if entry.outputs and entry.outputs[0].get("components"):
            assert [item["name"] for item in fields] == [field for field, _ in outputs]


def test_every_event_is_the_contracts() -> None:
    events = {entry.name: entry for entry in codec("BudgetPool").events.values()}
    for name, (indexed, rest) in abi.EVENTS.items():
        entry = events[name]
        assert abi.topic(name) == "0x" + entry.topic.hex(), name
        assert [(item["name"], type_of(item)) for item in entry.inputs] == [*indexed, *rest]
        assert [item["indexed"] for item in entry.inputs] == [True] * len(indexed) + [False] * len(rest)


def test_every_refusal_is_the_contracts() -> None:
    for signature, selector in refusals.signatures().items():
        entry = codec("BudgetPool").errors[selector]
        assert entry.signature == signature


def test_a_refusal_says_its_name_its_values_and_what_helps() -> None:
    entry = next(e for e in codec("BudgetPool").errors.values() if e.name == "NotEnded")
    error = refusals.reverted(entry.selector + (200).to_bytes(32, "big") + (100).to_bytes(32, "big"))
    assert (error.name, error.arguments) == ("NotEnded", {"endsAt": 200, "nowAt": 100})
    assert "Wait until endsAt" in str(error)
    assert refusals.reverted(b"").name == "no reason"
    assert refusals.reverted(b"\xde\xad\xbe\xef").name == "0xdeadbeef"


def test_calldata_is_the_services() -> None:
    assert abi.call("settle", POOL, b"\x01" * 31, ROOT, 9, SIGNATURE) == contract.settle(
        POOL, b"\x01" * 31, ROOT, 9, SIGNATURE
    )
    assert abi.call("withdraw", POOL, ONE) == contract.withdraw(POOL, ONE)
    assert abi.call("reclaim", POOL) == contract.reclaim(POOL)
    assert abi.call("resolveByTimeout", POOL, ONE, ROOT) == contract.resolve_by_timeout(POOL, ONE, ROOT)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    metadata=st.dictionaries(st.text(), json_values, max_size=4),
    count=st.integers(1, 9),
    amount=st.integers(1, wire.MAX_AMOUNT),
)
def test_leaves_roots_and_task_hashes_are_the_services(metadata: dict[str, Any], count: int, amount: int) -> None:
    ids = [uuid4() for _ in range(count)]
    leaves = [
        receipts.leaf(pool_key=POOL, seq=3, payment_id=payment, address=ONE, amount_micros=amount, metadata=metadata)
        for payment in ids
    ]
    tree = MerkleTree(leaves)
    for payment, leaf in zip(ids, leaves, strict=True):
        task = merkle.task_hash(metadata)
        assert (task, merkle.payment_word(payment)) == (leaf.task_hash, leaf.payment_id)
        ours = merkle.leaf_hash(
            pool_id=POOL, seq=3, payment_id=leaf.payment_id, provider=ONE, amount_micros=amount, task=task
        )
        assert ours == leaf.hash
        assert merkle.root_of(ours, tree.proof(leaf)) == tree.root


def test_a_known_leaf() -> None:
    leaf = Leaf(POOL, 1, b"\0" * 32, ONE, 8_000, keccak(b"{}"))
    assert merkle.task_hash({}) == keccak(b"{}")
    ours = merkle.leaf_hash(
        pool_id=POOL, seq=1, payment_id=b"\0" * 32, provider=ONE, amount_micros=8_000, task=keccak(b"{}")
    )
    assert ours.hex() == leaf.hash.hex() == "bbb31b1c401744a9fc01288f2eafdecdb9780b325fc2e2e77ec224ef0f506757"


def test_a_batch_file_credits_what_the_wire_says() -> None:
    packed = wire.encode_batch(7, [Record(ONE, 5), Record(TWO, 6), Record(ONE, 1)])
    document = {
        "contract": ONE, "chain_id": 1, "pool_key": "0x" + POOL.hex(), "packed": "0x" + packed.hex(),
        "root": "0x" + ROOT.hex(), "deadline": "2026-11-24T12:00:00Z", "signature": "0x" + SIGNATURE.hex(),
    }  # fmt: skip
    batch = batches.read(document)
    assert batch.first_seq == 7
    assert {name.lower(): micros for name, micros in batch.credits().items()} == {ONE: 6, TWO: 6}
    assert batch.deadline == 1795521600 == batches.read({**document, "deadline_unix": 1795521600}).deadline
    for spoilt in ({"packed": "0x00"}, {"root": "0x00"}, {"deadline": "2026-11-24T12:00:00"}, {"contract": "0x1"}):
        with pytest.raises(InvalidReply):
            batches.read({**document, **spoilt})
    with pytest.raises(InvalidReply, match="signature"):
        batches.read({name: value for name, value in document.items() if name != "signature"})


def test_the_base_package_starts_without_the_extra() -> None:
    """As where only httpx2 is installed: the import works, and what needs more says what to install."""
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"eth_abi", "eth_account", "eth_hash", "eth_utils", "django", "escrow"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import agentmarket
from agentmarket.chain import extra
try:
    extra.load("receipts")
except agentmarket.MissingExtra as error:
    print(error)
import sys
from agentmarket.__main__ import main
sys.argv[1:] = ["rescue"]
main()
"""
    sdk = Path(__file__).resolve().parents[2] / "sdk" / "src"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(sdk)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "pip install 'agentmarket[chain]'" in done.stdout
    assert "pip install 'agentmarket[chain]'" in done.stderr
    assert "Traceback" not in done.stderr
