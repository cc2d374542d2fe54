"""Receipts: what shows and what lands a signed batch without us. Lives here: the leaf of a payment, its proof, where on
chain a batch has landed, and the calldata that lands it.

Nothing here moves money or asks the chain. Making a batch is settlement's; reading what the chain tells is the indexer's.
"""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db.models import OuterRef, Subquery
from eth_utils.crypto import keccak

from escrow import money
from escrow.chain import contract
from escrow.chain.merkle import Leaf, MerkleTree
from escrow.errors import EscrowError, NotSettledYet, StateConflict
from escrow.models import DUE, Batch, ChainLog, Payment, Pool, Reason, Transfer

log = logging.getLogger(__name__)

TREES_KEPT: Final = 4
"""A tree of 10,000 payments takes half a second to make and 3 MB to keep; who proves one payment soon proves the next."""


@dataclass(frozen=True, slots=True)
class Landing:
    """The chain transaction that settled a batch, whoever sent it, and how final that is. The hash is a ``0x`` string."""

    transaction_hash: str
    block_number: int
    finality: str = ChainLog.Tier.FINAL.value


@dataclass(frozen=True, slots=True)
class Receipt:
    """A payment's proof: its leaf and the siblings from there up give the root of the batch. No landing: not on chain yet."""

    leaf: Leaf
    proof: Sequence[bytes]
    batch: Batch
    landing: Landing | None


def prove(*, payment: Payment, now: datetime) -> Receipt:
    """Return the proof of a payment that is in a signed batch.

    Raises NotSettledYet while the payment waits for a batch, StateConflict when it will be in none, and RuntimeError, with an
    alarm, when the payments of the batch no longer give the root that was signed: rather no proof than a false one.
    """
    if payment.record is None:
        raise _in_no_batch(payment, now)
    batch = Batch.objects.select_related("pool").get(pk=payment.record.batch_id)
    if batch.status == Batch.Status.VOID:
        raise _in_no_batch(_reread(payment), now)
    own = leaf(
        pool_key=batch.pool.key,
        seq=payment.record.seq,
        payment_id=payment.pk,
        address=payment.party.address,
        amount_micros=payment.due_micros,
        metadata=payment.metadata,
    )
    try:
        proof = _tree(batch.pk, own.pool_id, batch.root).proof(own)
    except LookupError as fault:
        current = _reread(payment)
        if current.record_id is None:  # the batch was voided while it was read
            raise _in_no_batch(current, now) from None
        log.critical("%s of %s cannot be proven: %s", payment, batch, fault)
        raise RuntimeError(f"{payment} of {batch} cannot be proven") from fault
    return Receipt(leaf=own, proof=proof, batch=batch, landing=_landed([batch]).get(batch.pk))


def leaf(
    *, pool_key: bytes, seq: int, payment_id: UUID, address: str, amount_micros: int, metadata: Mapping[str, object]
) -> Leaf:
    """Return the leaf of a debt, for what is due of it.

    Its id is left-aligned in 32 bytes; ``task_hash`` is keccak-256 of its canonical metadata.
    """
    canonical = json.dumps(metadata, sort_keys=True, separators=(",", ":")).encode()
    return Leaf(pool_key, seq, payment_id.bytes.ljust(32, b"\0"), address, amount_micros, keccak(canonical))


def calldata(batch: Batch) -> bytes:
    """Return the contract call that lands a signed batch. Anyone may send it until the deadline; it needs no other key."""
    return contract.settle(*arguments(batch))


def arguments(batch: Batch) -> tuple[bytes, bytes, bytes, int, bytes]:
    """Return what `settle` takes: pool, packed records, root, deadline in seconds, the authorizer's signature."""
    deadline = int(batch.deadline.timestamp())
    root = bytes.fromhex(batch.root[2:])
    return batch.pool.key, bytes(batch.packed), root, deadline, bytes(batch.signature)


def landings(batches: Collection[Batch]) -> dict[UUID, Landing]:
    """Return where on chain each batch has landed, by its id, as the indexer read it; one that has not is left out.

    One that is mined and not final is told with its tier, and the batch is still signed. The relay's own chain transaction
    need not be the one: anybody may land a signed batch.
    """
    found = _landed(batches)
    signed = [batch for batch in batches if batch.status == Batch.Status.SIGNED]
    if not signed:
        return found
    waiting: dict[tuple[object, ...], UUID] = {(row.pool_id, row.first_seq, row.root): row.pk for row in signed}
    mined = ChainLog.objects.filter(event="BatchSettled", orphaned_at=None, pool__in={row.pool_id for row in signed})
    for told in mined.filter(tier__in=[ChainLog.Tier.MINED, ChainLog.Tier.SAFE]):
        batch = waiting.get((told.pool_id, told.args["first_seq"], told.args["root"]))
        if batch is not None:
            found[batch] = Landing(told.tx_hash, told.block_number, told.tier)
    return found


def _landed(batches: Collection[Batch]) -> dict[UUID, Landing]:
    """Return the same of batches that have landed for good."""
    settled = [batch.pk for batch in batches if batch.status == Batch.Status.SETTLED]
    hashes = landed_by(settled) if settled else {}
    if not hashes:
        return {}
    logs = ChainLog.objects.filter(tx_hash__in=set(hashes.values()), event="BatchSettled", tier=ChainLog.Tier.FINAL)
    blocks = dict(logs.values_list("tx_hash", "block_number"))
    return {batch: Landing(tx_hash, blocks[tx_hash]) for batch, tx_hash in hashes.items() if tx_hash in blocks}


def landed_by(batches: Collection[UUID]) -> dict[UUID, str]:
    """Return the hash of the chain transaction that landed each batch, whoever sent it; one that has not landed is left out.

    One query, and in it one credit of each batch: all of them name the log that settled it.
    """
    credit = Transfer.objects.filter(sender=OuterRef("account"), reason=Reason.CREDIT).order_by("id").values("ref")[:1]
    rows = Batch.objects.filter(pk__in=batches).annotate(landed=Subquery(credit)).exclude(landed=None)
    return {batch: ref.partition(":")[0] for batch, ref in rows.values_list("pk", "landed")}


@lru_cache(maxsize=TREES_KEPT)
def _tree(batch_id: UUID, pool_key: bytes, root: str) -> MerkleTree:
    """Return the tree of a batch, made again from its payments. Raises LookupError when it has another root.

    Several who ask at once each make it, at most one in each thread of the web, and only of a batch that holds a payment
    which the asker may see. A lock would let one payer's slow tree hold up the proofs of all others.
    """
    rows = Payment.objects.filter(record__batch=batch_id).values_list(
        "record__seq", "pk", "party__address", DUE, "metadata"
    )
    leaves = [
        leaf(
            pool_key=pool_key,
            seq=seq,
            payment_id=payment_id,
            address=address,
            amount_micros=due_micros,
            metadata=metadata,
        )
        for seq, payment_id, address, due_micros, metadata in rows
    ]
    if not leaves:
        raise LookupError("there is no payment in it")
    tree = MerkleTree(leaves)
    if f"0x{tree.root.hex()}" != root:
        raise LookupError(f"its {len(leaves)} payments give the root 0x{tree.root.hex()}, and {root} was signed")
    return tree


def _in_no_batch(payment: Payment, now: datetime) -> EscrowError:
    """Say whether a payment will still be in a batch, and until when."""
    if payment.status != Payment.Status.PAYABLE:
        detail = f"The payment is {payment.status}; it lands in no batch, so there is nothing to prove."
        return StateConflict("payment", payment.status, detail)
    pool = payment.pool
    if pool.status == Pool.Status.CLOSED or now >= min(filter(None, [pool.expires_at, pool.reclaimable_at])):
        return StateConflict("pool", pool.status, "The pool has ended, and the payment landed in no batch before.")
    by = max(now, payment.created_at + timedelta(seconds=settings.SETTLE_MAX_AGE))
    enough = money.render(settings.SETTLE_MIN_MICROS)
    detail = (
        f"The payment is in no signed batch yet. It will be as soon as its pool owes {enough} USDC or closes, and soon after "
        f"{by.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} at the latest."
    )
    return NotSettledYet(payment.status, detail, settles_by=by)


def _reread(payment: Payment) -> Payment:
    return Payment.objects.select_related("pool").get(pk=payment.pk)
