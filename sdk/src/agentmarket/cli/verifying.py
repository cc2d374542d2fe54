"""`agentmarket verify`: a receipt, proven or refused by the name of the check that failed."""

from dataclasses import asdict
from pathlib import Path

from agentmarket.chain import extra, receipts
from agentmarket.chain.errors import Denied
from agentmarket.chain.rpc import Rpc
from agentmarket.cli.output import Exit, speaking, usdc
from agentmarket.proofs import Expected, Receipt


def verify(
    *,
    file: Path,
    rpc_url: str,
    expected: Expected,
    from_block: int,
    chunk: int,
    min_confirmations: int,
    as_json: bool,
) -> None:
    with speaking("verify", as_json=as_json) as output:
        receipt = Receipt.read(content(file))
        with Rpc(rpc_url, chunk=chunk) as rpc:
            proven = receipts.verify(
                receipt, rpc, expected=expected, min_confirmations=min_confirmations, from_block=from_block,
                progress=output.progress,
            )  # fmt: skip
        lines = [
            f"Payment {proven.payment_id} of {usdc(proven.amount_micros)} to {proven.provider} is proven:",
            f"  paid by {proven.payer}, from pool {proven.pool_key}",
            f"  contract {proven.contract} on chain {proven.chain_id}, record {proven.seq} of the pool",
            f"  block {proven.block}, transaction {proven.transaction}, {proven.confirmations} confirmations",
        ]
        output.finish({"payment_id": receipt.payment_id, "verified": asdict(proven)}, lines, Exit.DONE)


def content(file: Path) -> bytes:
    """A file's bytes, no more than are read of one. Raises Denied when it cannot be read."""
    try:
        with file.open("rb") as opened:
            return opened.read(extra.MOST_OF_A_FILE + 1)
    except OSError as error:
        raise Denied(f"{file} cannot be read: {error.strerror}.") from None
