"""A payment's receipt: what the market claims, and `verify`, which believes none of it.

Read by `client.payment.receipt(payment_id)`. The proving itself is in `agentmarket.chain`, which needs the extra.
"""

import asyncio
import dataclasses
import json
from collections.abc import Iterable, Mapping
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

    payment_id: str
    amount_micros: int
    #: who opened the pool, by the contract
    payer: str
    provider: str
    pool_key: str
    seq: int
    contract: str
    chain_id: int
    root: str
    block: int
    transaction: str
    #: blocks from the batch's own to the latest, both counted
    confirmations: int
    #: what the batch credited this provider in all
    credited_micros: int
    #: what the payment's record paid, which other payments may share; None when the transaction is no plain `settle`
    record_micros: int | None


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the reader of a receipt knows by itself. A receipt of anything else is refused; None asks nothing."""

    contract: str | None = None
    payer: str | None = None
    provider: str | None = None
    #: the pool's id on the chain, `pool_key`
    pool: str | None = None


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
        self,
        *,
        rpc_url: str,
        contract: str | None = None,
        payer: str | None = None,
        provider: str | None = None,
        pool: str | None = None,
        min_confirmations: int = 1,
        from_block: int = 0,
    ) -> Verified:
        """Prove the payment on the chain behind your own node, for the contract that you trust.

        Leaf, metadata hash and root are computed anew; then the contract's own events must tell of a batch of this pool
        with this root and record, in a transaction that succeeded, and of a credit to this provider of at least as much.
        When the named transaction does not have it, the pool's events are searched, from the latest block back to
        `from_block` or the pool's opening. `contract` may be left out only on a chain where this package knows one.

        Anybody can open a pool and pay itself: name the `payer`, `provider` or `pool` that you know, or read them from
        the answer. What one receipt proves may be claimed by another too: `verify_all` counts them together.

        Blocks the thread; `averify` does not. Needs `agentmarket[chain]`. Raises ReceiptRefused (each check has its own
        kind, and `step`), Denied, NotAContract, RpcUnavailable or RpcRefused.
        """
        return verify_all(
            [self], rpc_url=rpc_url, expected=Expected(contract=contract, payer=payer, provider=provider, pool=pool),
            min_confirmations=min_confirmations, from_block=from_block,
        )[0]  # fmt: skip

    async def averify(
        self,
        *,
        rpc_url: str,
        contract: str | None = None,
        payer: str | None = None,
        provider: str | None = None,
        pool: str | None = None,
        min_confirmations: int = 1,
        from_block: int = 0,
    ) -> Verified:
        """`verify`, in a thread of its own."""
        expected = partial(self.verify, contract=contract, payer=payer, provider=provider, pool=pool)
        return await asyncio.to_thread(
            expected, rpc_url=rpc_url, min_confirmations=min_confirmations, from_block=from_block
        )


def verify_all(
    receipts: Iterable[Receipt],
    *,
    rpc_url: str,
    expected: Expected,
    min_confirmations: int = 1,
    from_block: int = 0,
) -> list[Verified]:
    """Prove payments one by one as `Receipt.verify` does, and that together they are no more than was credited.

    Raises what that raises; NotCredited too when payments of one provider in one batch, or of one record, are more than
    it paid, and ReceiptMismatch when one payment comes twice.
    """
    rpc, proving = extra.load("rpc"), extra.load("receipts")
    with rpc.Rpc(rpc_url) as node:
        proven: list[Verified] = [
            proving.verify(receipt, node, expected=expected, min_confirmations=min_confirmations, from_block=from_block)
            for receipt in receipts
        ]
    proving.must_fit_together(proven)
    return proven


def _stated(answer: Answer) -> dict[str, Any]:
    """An answer as JSON has it, with the fields that this version does not know."""
    own = {item.name: getattr(answer, item.name) for item in dataclasses.fields(answer) if item.name != "extra"}
    return {name: _stated(v) if isinstance(v, Answer) else v for name, v in own.items()} | dict(answer.extra)
