"""`agentmarket land`: a signed batch file, checked here and on the contract, then sent by whoever pays the gas."""

from pathlib import Path
from typing import NoReturn

from eth_account.signers.local import LocalAccount

from agentmarket.chain import batches, extra, sending
from agentmarket.chain.batches import SignedBatch
from agentmarket.chain.claims import address
from agentmarket.chain.errors import Denied
from agentmarket.chain.rpc import Rpc
from agentmarket.chain.sending import Bounds
from agentmarket.cli import keys
from agentmarket.cli.output import Exit, Output, coin, moment, speaking, usdc
from agentmarket.cli.verifying import content

_LANDED = "Its first record has been settled before, by this batch or by one signed anew: withdraw."


def land(
    *, file: Path, rpc_url: str, contract: str | None, send: bool, key_file: Path | None, bounds: Bounds, as_json: bool
) -> None:
    with speaking("land", as_json=as_json) as output:
        batch = batches.read(extra.json_of(content(file)))
        if contract is None and send:
            raise Denied(
                "--send needs --contract: the batch's file may name any, and you pay the gas for what it does."
            )
        if contract is not None and address(contract) != batch.contract:
            raise Denied(f"The batch is of contract {batch.contract}, and you named {address(contract)}.")
        account = keys.sender(key_file) if send else keys.account(key_file)
        with Rpc(rpc_url) as rpc:
            output.facts = facts = _facts(batch)
            batches.must_land_here(batch, rpc)
            if batches.has_landed(batch, rpc):
                output.finish({**facts, "landed": True}, [_LANDED], Exit.NOTHING)
            if not send or account is None:
                _say(output, rpc, batch, None if account is None else account.address, bounds)
            _send(output, rpc, batch, account, bounds)


def _say(output: Output, rpc: Rpc, batch: SignedBatch, sender: str | None, bounds: Bounds) -> NoReturn:
    quoted = sending.quote(rpc, sender or batch.contract, batch.contract, batch.calldata(), bounds)
    lines = [
        *_lines(batch),
        f"The contract would take it now: {quoted.gas} gas, {coin(quoted.cost_wei)} at most.",
        "Nothing was sent: add --send.",
    ]
    output.finish(
        {**output.facts, "sent": False, "gas": quoted.gas, "cost_wei": str(quoted.cost_wei)}, lines, Exit.DONE
    )


def _send(output: Output, rpc: Rpc, batch: SignedBatch, account: LocalAccount, bounds: Bounds) -> NoReturn:
    output.note(f"sending from {account.address}")
    mined = sending.send(rpc, account, batch.contract, batch.calldata(), bounds=bounds, announce=output.announce)
    output.announced = None
    sent = {"sent": True, "transaction": mined.transaction, "block": mined.block, "gas_used": mined.gas_used}
    lines = [*_lines(batch), f"Landed in block {mined.block} by {mined.transaction}, {mined.gas_used} gas."]
    output.finish({**output.facts, **sent, "cost_wei": str(mined.cost_wei)}, lines, Exit.DONE)


def _facts(batch: SignedBatch) -> dict[str, object]:
    return {
        "contract": batch.contract,
        "chain_id": batch.chain_id,
        "pool_key": "0x" + batch.pool_id.hex(),
        "first_seq": batch.first_seq,
        "root": "0x" + batch.root.hex(),
        "deadline": batch.deadline,
        "credits_micros": {provider: str(micros) for provider, micros in batch.credits().items()},
    }


def _lines(batch: SignedBatch) -> list[str]:
    return [
        f"Batch of pool 0x{batch.pool_id.hex()}, records from {batch.first_seq} on, may land until {moment(batch.deadline)}",
        *(f"  {provider}: {usdc(micros)}" for provider, micros in batch.credits().items()),
    ]
