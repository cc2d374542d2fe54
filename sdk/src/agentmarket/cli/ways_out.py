"""The commands that need a node and no market, and their options. What each does is in the module of its name."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from agentmarket.chain.rpc import CHUNK
from agentmarket.chain.sending import MAX_FEE_GWEI, WAIT, Bounds
from agentmarket.cli import landing, rescuing, verifying
from agentmarket.proofs import Expected

F = TypeVar("F", bound=Callable[..., Any])

_CODES = (
    "Nothing is sent without --send. Exit codes: 0 done, 1 failed, 2 refused before anything was sent, 3 nothing to do, "
    "4 sent with an unknown outcome."
)
_FILE = click.Path(path_type=Path)

_rpc_url = click.option(
    "--rpc-url", envvar="RPC_URL", show_envvar=True, required=True, help="The node to ask: your own, or one you trust."
)
_contract = click.option("--contract", required=True, help="The escrow contract (BudgetPool).")
_trusted = click.option("--contract", help="The contract that you trust.")
_pool = click.option("--pool", required=True, help="The pool's id on the chain: `pool_key` of the API.")
_from_block = click.option(
    "--from-block", type=click.IntRange(min=0), default=0, show_default=True,
    help="Search no further back than this block.",
)  # fmt: skip
_chunk = click.option(
    "--chunk", type=click.IntRange(min=1), default=CHUNK, show_default=True, help="Blocks for one search of logs."
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Answer with one JSON object.")


def _sending(command: F) -> F:
    """The options of what may send."""
    for option in (
        click.option(
            "--wait", type=click.FloatRange(min=1), default=WAIT, show_default=True,
            help="Seconds to wait for each transaction.",
        ),
        click.option(
            "--max-fee-gwei", type=click.FloatRange(min=0), default=MAX_FEE_GWEI, show_default=True,
            help="What one gas may cost, whatever the node asks.",
        ),
        click.option(
            "--key-file", type=_FILE,
            help="The key that pays the gas: 64 hex digits or a keystore, mode 0600. Else the variable RESCUE_KEY.",
        ),
        click.option("--send", is_flag=True, help="Send. Without it, say what would be sent, and its cost."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command(epilog=_CODES)
@_rpc_url
@_contract
@_pool
@click.option("--close", is_flag=True, help="Ask to close the pool: the payer's key only.")
@_from_block
@_chunk
@_sending
@_as_json
def rescue(max_fee_gwei: float, wait: float, **given: Any) -> None:
    """Get money out of a pool with the market off: show the pool, and reclaim, withdraw and end what is overdue."""
    rescuing.rescue(**given, bounds=_bounds(max_fee_gwei, wait))


@click.command(epilog=_CODES)
@click.argument("batch", type=_FILE)
@_rpc_url
@_trusted
@_sending
@_as_json
def land(batch: Path, max_fee_gwei: float, wait: float, **given: Any) -> None:
    """Land a signed BATCH (what GET /v1/batches/{id} answered): its debts are credited on the chain, whoever sends it."""
    landing.land(file=batch, **given, bounds=_bounds(max_fee_gwei, wait))


@click.command(epilog=_CODES)
@_rpc_url
@_contract
@_pool
@click.option("--provider", multiple=True, required=True, help="Whose matured money to pay out; may be repeated.")
@_sending
@_as_json
def withdraw(provider: tuple[str, ...], max_fee_gwei: float, wait: float, **given: Any) -> None:
    """Pay providers what has matured for them in a pool. Only they are paid, whoever sends it."""
    rescuing.withdraw(providers=provider, **given, bounds=_bounds(max_fee_gwei, wait))


@click.command(epilog=_CODES)
@click.argument("receipt", type=_FILE)
@_rpc_url
@_trusted
@click.option("--payer", help="Refuse a payment of any other payer.")
@click.option("--provider", help="Refuse a payment to any other provider.")
@click.option("--pool", help="Refuse a payment of any other pool (`pool_key`).")
@_from_block
@_chunk
@click.option(
    "--min-confirmations", type=click.IntRange(min=1), default=1, show_default=True,
    help="Confirmations below which it is not proven.",
)  # fmt: skip
@_as_json
def verify(
    receipt: Path, contract: str | None, payer: str | None, provider: str | None, pool: str | None, **given: Any
) -> None:
    """Prove on the chain that the payment of a RECEIPT was settled, believing nothing of what the receipt says."""
    expected = Expected(contract=contract, payer=payer, provider=provider, pool=pool)
    verifying.verify(file=receipt, expected=expected, **given)


def _bounds(max_fee_gwei: float, wait: float) -> Bounds:
    if not (math.isfinite(max_fee_gwei) and math.isfinite(wait)):
        raise click.BadParameter("--max-fee-gwei and --wait are numbers.")
    return Bounds(max_fee=int(max_fee_gwei * 10**9), wait=wait)
