"""Signed batches, made again from what they were made of: roots from payments, and records from the signed bytes."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from django.conf import settings

from escrow import receipts
from escrow.chain import wire
from escrow.chain.merkle import Leaf, MerkleTree
from escrow.findings import Cause, Difference
from escrow.models import DUE, Batch, BatchRecord, Payment

Fault = tuple[int, int, tuple[str, str], str]
"""What the rows add up to, what was signed, the two sources, and what is wrong."""
AT_ONCE: Final = 200
"""Batches read with their records and payments by three statements."""


def again(pool_id: UUID | None) -> list[Difference]:
    """Make the roots of the newest batches again from their payments, and read their bytes again."""
    batches = Batch.objects.filter(pool__contract_address=settings.ESCROW_ADDRESS).exclude(status=Batch.Status.VOID)
    if pool_id is not None:
        batches = batches.filter(pool=pool_id)
    newest = batches.select_related("pool").order_by("-created_at", "-pk")
    found: list[Difference] = []
    begin, left = 0, settings.RECONCILE_REPROVEN
    while left > 0 and (some := list(newest[begin : begin + AT_ONCE])):
        begin += AT_ONCE
        left -= _reprove(some, found)
    return found


def _reprove(batches: Sequence[Batch], found: list[Difference]) -> int:
    """Hold batches against their payments and their bytes; return how many payments they have."""
    chosen = [batch.pk for batch in batches]
    records: dict[UUID, list[tuple[int, str, int]]] = defaultdict(list)
    lines = BatchRecord.objects.filter(batch__in=chosen).order_by("seq")
    for pk, seq, address, micros in lines.values_list("batch", "seq", "party__address", "amount_micros"):
        records[pk].append((seq, address, micros))
    debts: dict[UUID, list[Any]] = defaultdict(list)
    fields = ("record__batch", "record__seq", "pk", "party__address", DUE, "metadata")
    for pk, *debt in Payment.objects.filter(record__batch__in=chosen).values_list(*fields):
        debts[pk].append(debt)
    for batch in batches:
        for ours, other, sources, detail in (*_bytes(batch, records[batch.pk]), *_root(batch, debts[batch.pk])):
            what = f"batch {batch.pk}"
            found.append(Difference("R6", str(batch.pool_id), what, ours, other, Cause.BUG, sources, detail))
    return sum(len(rows) for rows in debts.values())


def _bytes(batch: Batch, records: Sequence[tuple[int, str, int]]) -> list[Fault]:
    try:
        packed = wire.decode_batch(bytes(batch.packed))
    except wire.WireError as error:
        return [(sum(row[2] for row in records), 0, ("batch records", "signed bytes"), str(error))]
    signed = [(packed.first_seq + at, record.provider, record.amount) for at, record in enumerate(packed.records)]
    if signed == list(records):
        return []
    ours, other = sum(row[2] for row in records), sum(row[2] for row in signed)
    return [(ours, other, ("batch records", "signed bytes"), "other records than were signed")]


def _root(batch: Batch, debts: Sequence[Any]) -> list[Fault]:
    key = batch.pool.key
    leaves: list[Leaf] = [
        receipts.leaf(pool_key=key, seq=seq, payment_id=pk, address=address, amount_micros=due, metadata=metadata)
        for seq, pk, address, due, metadata in debts
    ]
    root = f"0x{MerkleTree(leaves).root.hex()}" if leaves else "none"
    if root == batch.root:
        return []
    owed = sum(debt[3] for debt in debts)
    return [(owed, owed, ("payments", "signed root"), f"its payments give {root}, and {batch.root} was signed")]
