"""A payment's receipt: what the market claims, and `verify`, which believes none of it.

Read by `client.payment.receipt(payment_id)`. The proving itself is in `agentmarket.chain`, which needs the extra.
"""

import asyncio
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from agentmarket.chain import extra
from agentmarket.decode import Answer, decode

#: the contracts that this package itself knows, by chain id; until one is published there, the caller names its own
DEPLOYMENTS: Mapping[int, str] = {}


@dataclass(frozen=True, kw_only=True)
class Leaf(Answer):
    """A payment as its batch's Merkle tree has it. Ids and hashes are `0x` and 64 hex digits."""

    pool_id: str
    seq: int
    payment_id: str
    provider: str
    #: micro-USDC, in decimal digits
    amount_micros: str
    task_hash: str


@dataclass(frozen=True, kw_only=True)
class ReceiptBatch(Answer):
    """The batch that carries the payment. Without a transaction hash while it has not landed."""

    id: str
    first_seq: int
    status: str
    transaction_hash: str | None = None
    block_number: int | None = None


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What the chain itself says of a payment."""

    block: int
    transaction: str
    root: str
    #: blocks from the batch's own to the latest, both counted
    confirmations: int
    contract: str
    chain_id: int
    amount_micros: int


@dataclass(frozen=True, kw_only=True)
class Receipt(Answer):
    """That a payment was settled on chain, with all that proves it to somebody who does not trust the market."""

    payment_id: str
    chain_id: int
    contract: str
    pool_key: str
    seq: int
    leaf: Leaf
    metadata: Mapping[str, Any]
    proof: tuple[str, ...]
    root: str
    batch: ReceiptBatch
    status: str

    @classmethod
    def read(cls, text: str | bytes) -> "Receipt":
        """A receipt from its JSON. Raises InvalidReply for what is none."""
        return decode(cls, extra.json_of(text))

    def json(self) -> str:
        """The receipt as a file keeps it: `agentmarket verify` and `Receipt.read` read it again."""
        return json.dumps(_stated(self), indent=2, ensure_ascii=False)

    def verify(
        self, *, rpc_url: str, contract: str | None = None, min_confirmations: int = 1, from_block: int = 0
    ) -> Verified:
        """Prove the payment on the chain behind your own node, for the contract that you trust.

        Leaf, metadata hash and root are computed anew; then the contract's own events must tell of a batch of this pool
        with this root and record, in a transaction that succeeded, and of a credit to this provider of at least as much.
        When the named transaction does not have it, the pool's events are searched, from the latest block back to
        `from_block` or the pool's opening. `contract` may be left out only on a chain where this package knows one.

        Blocks the thread; `averify` does not. Needs `agentmarket[chain]`. Raises ReceiptRefused (each check has its own
        kind, and `step`), NotAContract, RpcUnavailable or RpcRefused.
        """
        rpc, receipts = extra.load("rpc"), extra.load("receipts")
        with rpc.Rpc(rpc_url) as node:
            verified: Verified = receipts.verify(
                self, node, contract=contract, min_confirmations=min_confirmations, from_block=from_block
            )
        return verified

    async def averify(
        self, *, rpc_url: str, contract: str | None = None, min_confirmations: int = 1, from_block: int = 0
    ) -> Verified:
        """`verify`, in a thread of its own."""
        work = partial(self.verify, rpc_url=rpc_url, contract=contract, from_block=from_block)
        return await asyncio.to_thread(work, min_confirmations=min_confirmations)


def _stated(answer: Answer) -> dict[str, Any]:
    """An answer as JSON has it, with the fields that this version does not know."""
    own = {item.name: getattr(answer, item.name) for item in dataclasses.fields(answer) if item.name != "extra"}
    return {name: _stated(v) if isinstance(v, Answer) else v for name, v in own.items()} | dict(answer.extra)
