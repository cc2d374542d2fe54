"""The commands and their options. What each does is in the module of its name."""

import math
from pathlib import Path
from typing import Annotated

import typer

from agentmarket.chain.rpc import CHUNK
from agentmarket.chain.sending import MAX_FEE_GWEI, WAIT, Bounds
from agentmarket.cli import landing, rescuing, verifying
from agentmarket.proofs import Expected

app = typer.Typer(
    help="Proofs and ways out that need no market: a node's RPC URL, the contract's address, and what you hold.\n\n"
    "Nothing is sent without --send. Exit codes: 0 done, 1 failed, 2 refused before anything was sent, "
    "3 nothing to do, 4 sent with an unknown outcome.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RpcUrl = Annotated[
    str, typer.Option(envvar="RPC_URL", show_envvar=True, help="The node to ask: your own, or one you trust.")
]
Contract = Annotated[str, typer.Option(help="The escrow contract (BudgetPool).")]
PoolId = Annotated[str, typer.Option(help="The pool's id on the chain: `pool_key` of the API.")]
Send = Annotated[bool, typer.Option("--send", help="Send. Without it, say what would be sent, and its cost.")]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        help="The key that pays the gas: 64 hex digits or a keystore, mode 0600. Else the variable RESCUE_KEY."
    ),
]
Wait = Annotated[float, typer.Option(min=1, help="Seconds to wait for each transaction.")]
MaxFee = Annotated[float, typer.Option(min=0, help="What one gas may cost, whatever the node asks.")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")]
FromBlock = Annotated[int, typer.Option(min=0, help="Search no further back than this block.")]
Chunk = Annotated[int, typer.Option(min=1, help="Blocks for one search of logs.")]


@app.command()
def rescue(
    rpc_url: RpcUrl,
    contract: Contract,
    pool: PoolId,
    send: Send = False,
    close: Annotated[bool, typer.Option("--close", help="Ask to close the pool: the payer's key only.")] = False,
    key_file: KeyFile = None,
    from_block: FromBlock = 0,
    chunk: Chunk = CHUNK,
    max_fee_gwei: MaxFee = MAX_FEE_GWEI,
    wait: Wait = WAIT,
    as_json: AsJson = False,
) -> None:
    """Get money out of a pool with the market off: show the pool, and reclaim, withdraw and end what is overdue."""
    rescuing.rescue(
        rpc_url=rpc_url, contract=contract, pool=pool, send=send, close=close, key_file=key_file,
        from_block=from_block, chunk=chunk, bounds=_bounds(max_fee_gwei, wait), as_json=as_json,
    )  # fmt: skip


@app.command()
def land(
    batch: Annotated[Path, typer.Argument(help="The batch: what GET /v1/batches/{id} answered.")],
    rpc_url: RpcUrl,
    contract: Annotated[str | None, typer.Option(help="The contract that you trust: needed to send.")] = None,
    send: Send = False,
    key_file: KeyFile = None,
    max_fee_gwei: MaxFee = MAX_FEE_GWEI,
    wait: Wait = WAIT,
    as_json: AsJson = False,
) -> None:
    """Land a signed batch: its debts are credited on the chain, whoever sends it."""
    landing.land(
        file=batch, rpc_url=rpc_url, contract=contract, send=send, key_file=key_file,
        bounds=_bounds(max_fee_gwei, wait), as_json=as_json,
    )  # fmt: skip


@app.command()
def withdraw(
    rpc_url: RpcUrl,
    contract: Contract,
    pool: PoolId,
    provider: Annotated[list[str], typer.Option(help="Whose matured money to pay out; may be repeated.")],
    send: Send = False,
    key_file: KeyFile = None,
    max_fee_gwei: MaxFee = MAX_FEE_GWEI,
    wait: Wait = WAIT,
    as_json: AsJson = False,
) -> None:
    """Pay providers what has matured for them in a pool. Only they are paid, whoever sends it."""
    rescuing.withdraw(
        rpc_url=rpc_url, contract=contract, pool=pool, providers=provider, send=send, key_file=key_file,
        bounds=_bounds(max_fee_gwei, wait), as_json=as_json,
    )  # fmt: skip


@app.command()
def verify(
    receipt: Annotated[Path, typer.Argument(help="The receipt: what GET /v1/payments/{id}/receipt answered.")],
    rpc_url: RpcUrl,
    contract: Annotated[str | None, typer.Option(help="The contract that you trust.")] = None,
    payer: Annotated[str | None, typer.Option(help="Refuse a payment of any other payer.")] = None,
    provider: Annotated[str | None, typer.Option(help="Refuse a payment to any other provider.")] = None,
    pool: Annotated[str | None, typer.Option(help="Refuse a payment of any other pool (`pool_key`).")] = None,
    from_block: FromBlock = 0,
    chunk: Chunk = CHUNK,
    min_confirmations: Annotated[int, typer.Option(min=1, help="Confirmations below which it is not proven.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Prove on the chain that a payment was settled, believing nothing of its receipt."""
    verifying.verify(
        file=receipt, rpc_url=rpc_url, from_block=from_block, chunk=chunk,
        expected=Expected(contract=contract, payer=payer, provider=provider, pool=pool),
        min_confirmations=min_confirmations, as_json=as_json,
    )  # fmt: skip


def _bounds(max_fee_gwei: float, wait: float) -> Bounds:
    if not (math.isfinite(max_fee_gwei) and math.isfinite(wait)):
        raise typer.BadParameter("--max-fee-gwei and --wait are numbers.")
    return Bounds(max_fee=int(max_fee_gwei * 10**9), wait=wait)
