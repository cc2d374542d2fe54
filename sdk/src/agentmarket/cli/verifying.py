"""`agentmarket verify`: a receipt, proven or refused by the name of the check that failed."""

from dataclasses import asdict
from pathlib import Path

from agentmarket.chain import receipts
from agentmarket.chain.errors import Denied
from agentmarket.chain.rpc import Rpc
from agentmarket.cli.output import Exit, address, speaking, usdc
from agentmarket.proofs import Receipt


def verify(
    *,
    file: Path,
    rpc_url: str,
    contract: str | None,
    from_block: int,
    chunk: int,
    min_confirmations: int,
    as_json: bool,
) -> None:
    with speaking("verify", as_json=as_json) as output:
        receipt = Receipt.read(content(file))
        trusted = None if contract is None else address(contract)
        with Rpc(rpc_url, chunk=chunk) as rpc:
            proven = receipts.verify(
                receipt, rpc, contract=trusted, min_confirmations=min_confirmations, from_block=from_block,
                progress=output.progress,
            )  # fmt: skip
        lines = [
            f"Payment {receipt.payment_id} of {usdc(proven.amount_micros)} to {receipt.leaf.provider} is proven:",
            f"  contract {proven.contract} on chain {proven.chain_id}, record {receipt.seq} of pool {receipt.pool_key}",
            f"  block {proven.block}, transaction {proven.transaction}, {proven.confirmations} confirmations",
        ]
        output.finish({"payment_id": receipt.payment_id, "verified": asdict(proven)}, lines, Exit.DONE)


def content(file: Path) -> bytes:
    """A file's bytes. Raises Denied when it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise Denied(f"{file} cannot be read: {error.strerror}.") from None
