"""Proving a payment's receipt on the chain, by the caller's own node and the caller's own contract.

The receipt is a claim. What it says of itself is computed anew (claims.py), and what it says of the chain is looked up
there. Not here: what a receipt looks like (`agentmarket.proofs`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentmarket.chain import abi, batches, claims
from agentmarket.chain.claims import Claim
from agentmarket.chain.errors import (
    Denied,
    NotCredited,
    NotFinal,
    NotOnChain,
    ReceiptMismatch,
    RpcUnavailable,
    TransactionReverted,
    WrongChain,
)
from agentmarket.chain.rpc import Progress, Rpc, silent
from agentmarket.chain.views import events, view
from agentmarket.errors import InvalidReply
from agentmarket.proofs import Verified

if TYPE_CHECKING:
    from agentmarket.proofs import Expected, Receipt


def verify(
    receipt: "Receipt",
    rpc: Rpc,
    *,
    expected: "Expected",
    min_confirmations: int,
    from_block: int = 0,
    progress: Progress = silent,
) -> Verified:
    """See `Receipt.verify`."""
    if min_confirmations < 1:
        raise Denied("min_confirmations is at least 1: the batch's own block.")
    claim = claims.believed(receipt, expected)
    if (chain_id := rpc.chain_id()) != receipt.chain_id:
        raise WrongChain(
            f"The receipt is of chain {receipt.chain_id}, the node is on {chain_id}: use a node of the first."
        )
    rpc.must_be_contract(claim.contract)
    batch = _named_batch(receipt, rpc, claim) or _searched_batch(rpc, claim, from_block, progress)
    if batch.values["firstSeq"] != receipt.batch.first_seq:
        raise ReceiptMismatch(
            f"The batch begins with record {batch.values['firstSeq']}, the receipt says {receipt.batch.first_seq}: "
            "it was changed.",
            step="batch",
        )
    credited = _credited(_receipt(rpc, batch.transaction), claim, batch)
    record = _record(rpc, claim, batch)
    payer = view(rpc, claim.contract, "pool", claim.pool_id)["payer"]
    claims.must_be_payer(payer, expected)
    confirmations = rpc.head().number - batch.block + 1
    if confirmations < min_confirmations:
        raise NotFinal(f"The batch has {confirmations} confirmations of {min_confirmations}: try again later.")
    return Verified(
        payment_id=receipt.payment_id, amount_micros=claim.amount, payer=payer, provider=claim.provider,
        pool_key="0x" + claim.pool_id.hex(), seq=claim.seq, contract=claim.contract, chain_id=chain_id,
        root="0x" + claim.root.hex(), block=batch.block, transaction=batch.transaction, confirmations=confirmations,
        credited_micros=credited, record_micros=record,
    )  # fmt: skip


def must_fit_together(proven: Sequence[Verified]) -> None:
    """Raises NotCredited when payments that are proven one by one are together more than was credited for them."""
    payments = Counter(one.payment_id.lower() for one in proven)
    for payment, times in payments.items():
        if times > 1:
            raise ReceiptMismatch(f"Payment {payment} is claimed {times} times.", step="payment")
    credits: Counter[tuple[object, ...]] = Counter()
    records: Counter[tuple[object, ...]] = Counter()
    for one in proven:
        batch = (one.chain_id, one.contract, one.transaction, one.pool_key, one.root)
        credits[*batch, one.provider] += one.amount_micros
        records[*batch, one.seq] += one.amount_micros
        if credits[*batch, one.provider] > one.credited_micros:
            raise _too_much(one.transaction, one.provider, one.credited_micros, credits[*batch, one.provider])
        if one.record_micros is not None and records[*batch, one.seq] > one.record_micros:
            raise _too_much(one.transaction, one.provider, one.record_micros, records[*batch, one.seq])


def _named_batch(receipt: "Receipt", rpc: Rpc, claim: Claim) -> abi.Log | None:
    """The batch in the transaction that the receipt names; None when it is not there, which proves nothing yet."""
    named = receipt.batch.transaction_hash
    settled = rpc.receipt(named) if named and _is_word(named) else None
    if settled is None or settled["status"] != "0x1":
        return None
    return next((log for log in events(settled["logs"], claim.contract) if _is_batch(log, claim)), None)


def _searched_batch(rpc: Rpc, claim: Claim, oldest: int, progress: Progress) -> abi.Log:
    """The batch among the pool's own events, newest first, no further than the pool's opening."""
    absent = (
        f"{claim.contract} has settled no batch of pool 0x{claim.pool_id.hex()} with root 0x{claim.root.hex()} and record "
        f"{claim.seq}: the payment is not proven. A batch that is still on its way can be asked for later."
    )
    if not view(rpc, claim.contract, "isSettled", claim.pool_id, claim.seq)["settled"]:
        raise NotOnChain(absent)
    topics = [[abi.topic("BatchSettled"), abi.topic("PoolOpened")], "0x" + claim.pool_id.hex()]
    chunks = rpc.logs_backwards(claim.contract, topics, newest=rpc.head().number, oldest=oldest, progress=progress)
    for raw in chunks:
        logs = events(raw, claim.contract)
        for log in logs:
            if _is_batch(log, claim):
                return log
        if any(log.name == "PoolOpened" and log.values["poolId"] == claim.pool_id for log in logs):
            break
    raise NotOnChain(absent)


def _credited(settled: Mapping[str, Any], claim: Claim, batch: abi.Log) -> int:
    """What the batch credited the provider in all. Raises NotCredited when that is less than the claim."""
    credited = sum(
        int(log.values["amount"])
        for log in events(settled["logs"], claim.contract)
        if log.name == "Credited"
        and log.values["poolId"] == claim.pool_id
        and log.values["provider"] == claim.provider
        and log.values["firstSeq"] == batch.values["firstSeq"]
    )
    if credited < claim.amount:
        raise _too_much(batch.transaction, claim.provider, credited, claim.amount)
    return credited


def _record(rpc: Rpc, claim: Claim, batch: abi.Log) -> int | None:
    """What the claim's own record paid, out of a transaction that is one plain `settle`; None where it is not.

    Raises NotCredited when the record is another provider's, or carries less than the claim.
    """
    sent = rpc.transaction(batch.transaction)
    if sent is None or str(sent.get("to")).lower() != claim.contract.lower():
        return None
    arguments = abi.arguments("settle", sent["input"])
    if arguments is None:
        return None
    pool_id, packed, root = arguments[:3]
    try:
        first, records = batches.records(packed)
    except InvalidReply:
        return None
    at = claim.seq - first
    if (pool_id, root, first) != (claim.pool_id, claim.root, batch.values["firstSeq"]) or at >= len(records):
        raise RpcUnavailable(f"The node's transaction {batch.transaction} and its events are of two batches.")
    provider, amount = records[at]
    if provider != claim.provider or amount < claim.amount:
        raise NotCredited(
            f"Record {claim.seq} of transaction {batch.transaction} is {amount} micro-USDC for {provider}, the receipt "
            f"says {claim.amount} for {claim.provider}: the root promises more than the batch paid."
        )
    return amount


def _too_much(transaction: str, provider: str, credited: int, said: int) -> NotCredited:
    return NotCredited(
        f"Transaction {transaction} credits {provider} with {credited} micro-USDC, the receipt says {said}: "
        "the root promises more than the batch paid."
    )


def _receipt(rpc: Rpc, transaction: str) -> Mapping[str, Any]:
    settled = rpc.receipt(transaction)
    if settled is None:
        raise RpcUnavailable(f"The node tells of transaction {transaction} in a log, and has no receipt of it.")
    if settled["status"] != "0x1":
        raise TransactionReverted(f"Transaction {transaction} failed on chain: it moved no money and proves nothing.")
    return settled


def _is_batch(log: abi.Log, claim: Claim) -> bool:
    values = log.values
    return (
        log.name == "BatchSettled"
        and values["poolId"] == claim.pool_id
        and values["root"] == claim.root
        and values["firstSeq"] <= claim.seq < values["firstSeq"] + values["count"]
    )


def _is_word(text: str) -> bool:
    try:
        return len(claims.word(text)) == 32
    except ValueError:
        return False
