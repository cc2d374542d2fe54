"""What callers get of the chain: shapes for a proof of a payment, a signed batch and a pool's terms.

Hashes, ids and bytes are ``0x`` and lower-case hexadecimal; addresses are checksummed. Filling the shapes from rows is
`marketplace.api.show_chain`'s.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from marketplace.api.fields import Amount, Id, JsonObject, Moment, Shape
from marketplace.api.queries import BatchStatus

Hash = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-f]{64}$")]
Hex = Annotated[str, StringConstraints(pattern=r"^0x([0-9a-f]{2})*$")]
Address = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-fA-F]{40}$")]
Finality = Literal["mined", "safe", "final"]
Micros = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]+$"),
    Field(description="Micro-USDC: the contract's unit.", examples=["8000"]),
]


class ChainStep(Shape):
    kind: str
    status: str
    tx_hash: str | None
    gas_used: int | None


class PoolTerms(Shape):
    """What the payer signed for good. Their EIP-712 digest under the contract's domain is `pool_key`; every key in them acts
    on the contract without this service. Times are unix seconds, spans are seconds."""

    payer: Address
    authorizer: Annotated[Address, Field(description="Whose signature a batch needs.")]
    arbiter: Annotated[Address, Field(description="Who rules on disputes on chain.")]
    expiry: Annotated[int, Field(description="From then on anyone may have what is free sent back to the payer.")]
    close_delay: Annotated[int, Field(description="Between the payer's request to close and that moment.")]
    per_record_cap: Micros
    window_cap: Micros
    window_length: int
    dispute_window: int
    fee_bps: int
    providers_hash: Hash
    salt: Hash


class Leaf(Shape):
    """`keccak256(keccak256(abi.encode(pool_id, seq, payment_id, provider, amount_micros, task_hash)))`, of the types
    `bytes32, uint256, bytes32, address, uint256, bytes32`."""

    pool_id: Annotated[Hash, Field(description="The contract's id of the pool: `pool_key`.")]
    seq: Annotated[int, Field(description="Of the record that carries the payment; netted payments share it.")]
    payment_id: Annotated[Hash, Field(description="The payment's UUID as 16 bytes, then 16 zero bytes.")]
    provider: Address
    amount_micros: Micros
    task_hash: Annotated[
        Hash,
        Field(
            description="keccak256 of `metadata` as JSON with sorted keys, no white space and every character beyond ASCII "
            "as \\uXXXX."
        ),
    ]


class ReceiptBatch(Shape):
    """The batch whose root the proof leads to, and the chain transaction that settled it: null until it has landed."""

    id: Id
    first_seq: int
    status: BatchStatus
    transaction_hash: Hash | None
    block_number: int | None
    finality: Finality | None = None


class Receipt(Shape):
    """Proof of one payment. Hash the leaf, fold `proof` into it (keccak256 of the smaller and the larger hash), and compare
    with the root in the contract's `BatchSettled` event of `batch.transaction_hash`: nothing else here needs to be believed."""

    payment_id: Id
    status: Literal["settling", "settled"]
    amount: Annotated[Amount, Field(description="What of the payment landed: without what was given back before.")]
    amount_micros: Micros
    chain_id: int
    contract: Address
    pool_key: Hash
    seq: int
    leaf: Leaf
    metadata: JsonObject
    proof: Annotated[list[Hash], Field(description="The siblings, from the leaf up; empty in a batch of one payment.")]
    root: Hash
    batch: ReceiptBatch


class BatchRecord(Shape):
    seq: int
    provider_address: Address
    amount: Amount
    amount_micros: Micros


class Batch(Shape):
    """Debts of one pool, netted and signed by the pool's authorizer. Whoever has this can land it: send `calldata` to
    `contract` from any wallet before `deadline`. It lands whole, once, and pays only the providers in it."""

    id: Id
    pool_id: Id
    pool_key: Hash
    chain_id: int
    contract: Address
    status: BatchStatus
    first_seq: int
    packed: Annotated[Hex, Field(description="The records in the contract's form; `records` says the same.")]
    root: Annotated[Hash, Field(description="Of the Merkle tree over the batch's payments.")]
    deadline: Annotated[
        Moment, Field(description="Until then the contract takes it; after it the debts are signed anew.")
    ]
    deadline_unix: Annotated[int, Field(description="The same in unix seconds, as it was signed.")]
    signature: Annotated[
        Hex, Field(description="The authorizer's, over the EIP-712 digest of pool key, packed, root and deadline.")
    ]
    records: Annotated[
        list[BatchRecord], Field(description="All of them, by seq: those of others are needed to land one's own.")
    ]
    transaction_hash: Annotated[Hash | None, Field(description="What settled it, whoever sent it; null until then.")]
    block_number: int | None
    finality: Annotated[
        Finality | None,
        Field(
            description="How final that is. Before it is final the batch is still signed, and its block may go away again."
        ),
    ] = None
    calldata: Annotated[
        Hex,
        Field(description="`settle(pool_key, packed, root, deadline, signature)` of the contract, ready to be sent."),
    ]
    created_at: Moment
