"""From escrow's rows to the shapes of the chain: receipts, signed batches and terms. No proof is made here."""

from collections.abc import Sequence
from dataclasses import asdict

from escrow import receipts
from escrow.models import Batch, BatchRecord, Payment, Pool
from escrow.receipts import Landing, Receipt
from marketplace.api import chain_shapes


def receipt(row: Payment, found: Receipt) -> chain_shapes.Receipt:
    """Show the proof of a payment."""
    leaf, batch = found.leaf, found.batch
    return chain_shapes.Receipt.model_validate(
        {
            "payment_id": row.pk,
            "status": "settled" if batch.status == Batch.Status.SETTLED else "settling",
            "amount": leaf.amount,
            "amount_micros": str(leaf.amount),
            "chain_id": batch.pool.chain_id,
            "contract": batch.pool.contract_address,
            "pool_key": batch.pool.pool_key,
            "seq": leaf.seq,
            "leaf": {
                "pool_id": _hex(leaf.pool_id),
                "seq": leaf.seq,
                "payment_id": _hex(leaf.payment_id),
                "provider": leaf.provider,
                "amount_micros": str(leaf.amount),
                "task_hash": _hex(leaf.task_hash),
            },
            "metadata": row.metadata,
            "proof": [_hex(sibling) for sibling in found.proof],
            "root": batch.root,
            "batch": {
                "id": batch.pk,
                "first_seq": batch.first_seq,
                "status": batch.status,
                **_landed(found.landing),
            },
        }
    )


def batches(rows: Sequence[Batch]) -> list[chain_shapes.Batch]:
    """Show signed batches as they are now, with the chain transaction that settled each."""
    landings = receipts.landings(rows)
    return [_batch(row, landings.get(row.pk)) for row in rows]


def batch(row: Batch) -> chain_shapes.Batch:
    """Show one signed batch as it is now."""
    return batches([row])[0]


def terms(row: Pool) -> chain_shapes.PoolTerms | None:
    """Show the terms of a pool; none before the payer's key has signed them."""
    if not row.terms:
        return None
    bound = {name: row.terms[name] for name in chain_shapes.PoolTerms.model_fields}
    for cap in ("per_record_cap", "window_cap"):
        bound[cap] = str(bound[cap])
    for word in ("providers_hash", "salt"):
        bound[word] = f"0x{bound[word]}"
    return chain_shapes.PoolTerms.model_validate(bound)


def _batch(row: Batch, landing: Landing | None) -> chain_shapes.Batch:
    return chain_shapes.Batch.model_validate(
        {
            "id": row.pk,
            "pool_id": row.pool_id,
            "pool_key": row.pool.pool_key,
            "chain_id": row.pool.chain_id,
            "contract": row.pool.contract_address,
            "status": row.status,
            "first_seq": row.first_seq,
            "packed": _hex(bytes(row.packed)),
            "root": row.root,
            "deadline": row.deadline,
            "deadline_unix": int(row.deadline.timestamp()),
            "signature": _hex(bytes(row.signature)),
            "records": [_record(record) for record in sorted(row.records.all(), key=lambda record: record.seq)],
            **_landed(landing),
            "calldata": _hex(receipts.calldata(row)),
            "created_at": row.created_at,
        }
    )


def _record(row: BatchRecord) -> dict[str, object]:
    return {
        "seq": row.seq,
        "provider_address": row.party.address,
        "amount": row.amount_micros,
        "amount_micros": str(row.amount_micros),
    }


def _landed(landing: Landing | None) -> dict[str, object]:
    return asdict(landing) if landing else {"transaction_hash": None, "block_number": None, "finality": None}


def _hex(data: bytes) -> str:
    return f"0x{data.hex()}"
