"""Proving a payment's receipt on the chain, by the caller's own node and the caller's own contract.

The receipt is a claim. What it says of itself is computed anew, and what it says of the chain is looked up there.
Not here: what a receipt looks like (`agentmarket.proofs`).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from eth_abi.exceptions import EncodingError

from agentmarket.chain import abi, merkle
from agentmarket.chain.errors import (
    NotCredited,
    NotFinal,
    NotOnChain,
    ReceiptMismatch,
    RpcUnavailable,
    TransactionReverted,
    WrongChain,
)
from agentmarket.chain.rpc import Progress, Rpc, silent
from agentmarket.proofs import DEPLOYMENTS, Verified

if TYPE_CHECKING:
    from agentmarket.proofs import Receipt


def verify(
    receipt: "Receipt",
    rpc: Rpc,
    *,
    contract: str | None,
    min_confirmations: int,
    from_block: int = 0,
    progress: Progress = silent,
) -> Verified:
    """See `Receipt.verify`."""
    contract = contract or DEPLOYMENTS.get(receipt.chain_id)
    if contract is None:
        raise ReceiptMismatch(
            f"No deployment on chain {receipt.chain_id} is known here: name the contract that you trust, contract=….",
            step="contract",
        )
    pool_id, root = _believed(receipt, contract)
    if (chain_id := rpc.chain_id()) != receipt.chain_id:
        raise WrongChain(
            f"The receipt is of chain {receipt.chain_id}, the node is on {chain_id}: use a node of the first."
        )
    rpc.must_be_contract(contract)
    batch = _named_batch(receipt, rpc, contract, pool_id, root)
    if batch is None:
        batch = _searched_batch(receipt, rpc, contract, pool_id, root, from_block, progress)
    settled = _receipt(rpc, batch.transaction)
    _must_be_credited(receipt, settled, contract, pool_id, batch)
    confirmations = rpc.head().number - batch.block + 1
    if confirmations < min_confirmations:
        raise NotFinal(f"The batch has {confirmations} confirmations of {min_confirmations}: try again later.")
    return Verified(
        block=batch.block, transaction=batch.transaction, root=receipt.root, confirmations=confirmations,
        contract=contract, chain_id=chain_id, amount_micros=int(receipt.leaf.amount_micros),
    )  # fmt: skip


def _believed(receipt: "Receipt", contract: str) -> tuple[bytes, bytes]:
    """The pool's id and the batch's root, once all that the receipt says of itself fits together."""
    leaf = receipt.leaf
    if receipt.contract.lower() != contract.lower():
        raise ReceiptMismatch(
            f"The receipt is of contract {receipt.contract}, and you trust {contract}: it proves nothing there.",
            step="contract",
        )
    _same("seq", "the leaf's sequence number", leaf.seq, receipt.seq)
    _same("pool", "the leaf's pool", leaf.pool_id.lower(), receipt.pool_key.lower())
    try:
        pool_id, payment_id = _word(leaf.pool_id), _word(leaf.payment_id)
        _same("payment", "the leaf's payment id", payment_id, merkle.payment_word(UUID(receipt.payment_id)))
        task = merkle.task_hash(receipt.metadata)
        _same("metadata", "the hash of the metadata", task, _word(leaf.task_hash))
        hashed = merkle.leaf_hash(
            pool_id=pool_id, seq=leaf.seq, payment_id=payment_id, provider=leaf.provider,
            amount_micros=int(leaf.amount_micros), task=task,
        )  # fmt: skip
        root = _word(receipt.root)
        _same(
            "root", "the root that the proof leads to", merkle.root_of(hashed, [_word(w) for w in receipt.proof]), root
        )
    except (ValueError, EncodingError) as error:
        raise ReceiptMismatch(f"The receipt cannot be read: {error}. Fetch it again.", step="form") from None
    return pool_id, root


def _named_batch(receipt: "Receipt", rpc: Rpc, contract: str, pool_id: bytes, root: bytes) -> abi.Log | None:
    """The batch in the transaction that the receipt names; None when it is not there, which proves nothing yet."""
    named = receipt.batch.transaction_hash
    settled = rpc.receipt(named) if named and _is_word(named) else None
    if settled is None:
        return None
    _must_have_succeeded(settled, str(named))
    return next((log for log in _logs(settled, contract) if _is_batch(log, receipt, pool_id, root)), None)


def _searched_batch(
    receipt: "Receipt", rpc: Rpc, contract: str, pool_id: bytes, root: bytes, oldest: int, progress: Progress
) -> abi.Log:
    """The batch among the pool's own events, newest first, no further than the pool's opening."""
    absent = (
        f"{contract} has settled no batch of pool {receipt.pool_key} with root {receipt.root} and record {receipt.seq}: "
        "the payment is not proven. A batch that is still on its way can be asked for later."
    )
    if not abi.answer("isSettled", rpc.call(contract, abi.call("isSettled", pool_id, receipt.seq)))["settled"]:
        raise NotOnChain(absent)
    topics = [[abi.topic("BatchSettled"), abi.topic("PoolOpened")], "0x" + pool_id.hex()]
    chunks = rpc.logs_backwards(contract, topics, newest=rpc.head().number, oldest=oldest, progress=progress)
    for raw in chunks:
        logs = [log for log in map(abi.log, raw) if log is not None]
        for log in logs:
            if _is_batch(log, receipt, pool_id, root):
                return log
        if any(log.name == "PoolOpened" for log in logs):
            break
    raise NotOnChain(absent)


def _must_be_credited(
    receipt: "Receipt", settled: Mapping[str, Any], contract: str, pool_id: bytes, batch: abi.Log
) -> None:
    amount, provider = int(receipt.leaf.amount_micros), receipt.leaf.provider
    credited = sum(
        int(log.values["amount"])
        for log in _logs(settled, contract)
        if log.name == "Credited"
        and log.values["poolId"] == pool_id
        and log.values["provider"].lower() == provider.lower()
        and log.values["firstSeq"] == batch.values["firstSeq"]
    )
    if credited < amount:
        raise NotCredited(
            f"Transaction {batch.transaction} credits {provider} with {credited} micro-USDC, the receipt says {amount}: "
            "the root promises more than the batch paid."
        )


def _receipt(rpc: Rpc, transaction: str) -> Mapping[str, Any]:
    settled = rpc.receipt(transaction)
    if settled is None:
        raise RpcUnavailable(f"The node tells of transaction {transaction} in a log, and has no receipt of it.")
    _must_have_succeeded(settled, transaction)
    return settled


def _must_have_succeeded(settled: Mapping[str, Any], transaction: str) -> None:
    if settled["status"] != "0x1":
        raise TransactionReverted(f"Transaction {transaction} failed on chain: it moved no money and proves nothing.")


def _logs(settled: Mapping[str, Any], contract: str) -> list[abi.Log]:
    """The events of this contract in one transaction: any other contract may emit the same bytes."""
    ours = [raw for raw in settled["logs"] if str(raw.get("address")).lower() == contract.lower()]
    return [log for log in map(abi.log, ours) if log is not None]


def _is_batch(log: abi.Log, receipt: "Receipt", pool_id: bytes, root: bytes) -> bool:
    values = log.values
    return (
        log.name == "BatchSettled"
        and values["poolId"] == pool_id
        and values["root"] == root
        and values["firstSeq"] <= receipt.leaf.seq < values["firstSeq"] + values["count"]
    )


def _same(step: str, what: str, found: object, said: object) -> None:
    if found != said:
        raise ReceiptMismatch(
            f"{what[0].upper()}{what[1:]} is {_shown(found)}, the receipt says {_shown(said)}: it was changed.",
            step=step,
        )


def _shown(value: object) -> str:
    return f"0x{value.hex()}" if isinstance(value, bytes) else str(value)


def _is_word(text: str) -> bool:
    try:
        return len(_word(text)) == 32
    except ValueError:
        return False


def _word(text: str) -> bytes:
    """32 bytes from `0x` and 64 hex digits."""
    value = bytes.fromhex(text.removeprefix("0x"))
    if len(value) != 32 or not text.startswith("0x"):
        raise ValueError(f"{text!r} is not 0x and 64 hex digits")
    return value
