"""`agentmarket rescue` and `agentmarket withdraw`: a pool from the contract alone, and the transactions that empty it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from eth_account.signers.local import LocalAccount

from agentmarket.chain import rescue as ways
from agentmarket.chain import sending
from agentmarket.chain.claims import address
from agentmarket.chain.errors import Denied, Reverted
from agentmarket.chain.refusals import reverted
from agentmarket.chain.rescue import Line, Place, State, Step
from agentmarket.chain.rpc import Rpc
from agentmarket.chain.sending import Bounds
from agentmarket.cli import keys
from agentmarket.cli.output import NOTHING_LEFT, Exit, Output, coin, moment, pool_id, speaking, usdc


@dataclass
class Run:
    """What one command has done so far."""

    output: Output
    rpc: Rpc
    place: Place
    bounds: Bounds
    done: list[dict[str, Any]] = field(default_factory=list)
    tried: set[tuple[str, ...]] = field(default_factory=set)
    rejected: list[dict[str, str]] = field(default_factory=list)

    @property
    def code(self) -> Exit:
        if self.rejected:
            return Exit.FAILED
        return Exit.DONE if self.done else Exit.NOTHING


def rescue(
    *, rpc_url: str, contract: str, pool: str, send: bool, close: bool, key_file: Path | None,
    from_block: int, chunk: int, bounds: Bounds, as_json: bool,
) -> None:  # fmt: skip
    with speaking("rescue", as_json=as_json) as output:
        place = Place(address(contract), pool_id(pool))
        account = keys.sender(key_file) if send else keys.account(key_file)
        with Rpc(rpc_url, chunk=chunk) as rpc:
            run = Run(output, rpc, place, bounds)
            known = ways.discover(rpc, place, oldest=from_block, progress=output.progress)
            if not known.whole:
                output.note(f"The search ended at block {from_block}, before the pool's opening: there may be more.")
            state = ways.look(rpc, place, known)
            output.facts = {"pool": _facts(place, state), "whole": known.whole}
            if close and account is not None and account.address != state.payer:
                raise Denied(
                    f"--close is the payer's to ask: the key is {account.address}'s, the payer is {state.payer}."
                )
            if not send or account is None:
                _say(run, state, ways.steps(state, place, close=close), account)
            while found := ways.steps(state, place, close=close, skip=run.tried):
                _try(run, found[0], account)
                state = ways.look(rpc, place, known)
            _end(run, _facts(place, state), _lines(place, state))


def withdraw(
    *, rpc_url: str, contract: str, pool: str, providers: Sequence[str], send: bool, key_file: Path | None,
    bounds: Bounds, as_json: bool,
) -> None:  # fmt: skip
    with speaking("withdraw", as_json=as_json) as output:
        place = Place(address(contract), pool_id(pool))
        named = list(dict.fromkeys(map(address, providers)))
        account = keys.sender(key_file) if send else keys.account(key_file)
        with Rpc(rpc_url) as rpc:
            rpc.must_be_contract(place.contract)
            run = Run(output, rpc, place, bounds)
            state = ways.look(rpc, place, ways.Known(tuple(named), ()))
            output.facts = {"pool": _facts(place, state)}
            owed = [line for line in state.lines if line.matured]
            found = [
                ways.withdrawal(place, owed[at : at + ways.MOST_CLAIMS]) for at in range(0, len(owed), ways.MOST_CLAIMS)
            ]
            if not send or account is None:
                _say(run, state, found, account)
            for step in found:
                _try(run, step, account)
            state = ways.look(rpc, place, ways.Known(tuple(named), ()))
            _end(run, _facts(place, state), _lines(place, state))


def _say(run: Run, state: State, found: Sequence[Step], account: LocalAccount | None) -> NoReturn:
    """A dry run: what would be sent now. What comes after a step, like its withdrawal, is seen when that was sent."""
    lines, told = _lines(run.place, state), []
    for step in found:
        sender = state.payer if account is None else account.address
        entry: dict[str, Any] = {"kind": step.kind, "what": step.what, "calldata": "0x" + step.data.hex()}
        try:
            quoted = sending.quote(run.rpc, sender, run.place.contract, step.data, run.bounds)
        except (Reverted, Denied) as refused:
            entry["refused"] = refused.detail
            lines.append(f"Not possible: {step.what}. {refused.detail}")
        else:
            entry |= {"gas": quoted.gas, "cost_wei": str(quoted.cost_wei)}
            lines.append(f"Would {step.what}: {quoted.gas} gas, {coin(quoted.cost_wei)} at most.")
        told.append(entry)
    possible = any("gas" in entry for entry in told)
    lines.append("Nothing was sent: add --send." if possible else "Nothing can be done now.")
    code = Exit.DONE if possible else Exit.DENIED if told else Exit.NOTHING
    run.output.finish({**run.output.facts, "sent": False, "steps": told}, lines, code)


def _try(run: Run, step: Step, account: LocalAccount) -> None:
    """Send a step. One that the contract refuses is left out and told, and stops no other."""
    run.tried |= step.marks
    try:
        _send(run, step, account)
    except Reverted as refused:
        run.output.announced = None
        run.output.note(f"not sent: {refused.detail}")
        if refused.name not in NOTHING_LEFT:
            run.rejected.append({"kind": step.kind, "what": step.what, "reason": refused.detail})
            run.output.facts["rejected"] = run.rejected


def _send(run: Run, step: Step, account: LocalAccount) -> None:
    run.output.note(f"{account.address} sends: {step.what}")
    mined = sending.send(
        run.rpc, account, run.place.contract, step.data, bounds=run.bounds, announce=run.output.announce
    )
    run.output.announced = None
    run.done.append(
        {
            "kind": step.kind,
            "what": step.what,
            "transaction": mined.transaction,
            "block": mined.block,
            "gas_used": mined.gas_used,
            "cost_wei": str(mined.cost_wei),
        }
    )
    run.rejected += [
        {
            "kind": step.kind,
            "what": f"pay {log.values['provider']}",
            "provider": log.values["provider"],
            "reason": reverted(log.values["reason"]).detail,
        }
        for log in mined.logs
        if log.name == "WithdrawalRejected"
    ]
    # What was done is told even if the next step fails.
    run.output.done.append(f"Done: {step.what}, by {mined.transaction} in block {mined.block}.")
    run.output.facts |= {"sent": True, "steps": run.done, "rejected": run.rejected}


def _end(run: Run, facts: dict[str, Any], lines: list[str]) -> NoReturn:
    lines += run.output.done
    lines += [f"Left out: {left['what']}. {left['reason']}" for left in run.rejected]
    if not run.done and not run.rejected:
        lines.append("Nothing can be done now.")
    told = {"sent": bool(run.done), "steps": run.done, "rejected": run.rejected}
    run.output.finish({**run.output.facts, "pool": facts, **told}, lines, run.code)


def _facts(place: Place, state: State) -> dict[str, Any]:
    return {
        "contract": place.contract,
        "pool_key": "0x" + place.pool_id.hex(),
        "payer": state.payer,
        "free_micros": str(state.free),
        "disputed_micros": str(state.disputed),
        "ended": state.ended,
        "closing": state.closing,
        "reclaimable_at": state.ends_at,
        "now": state.now,
        "lines": [
            {
                "provider": line.provider,
                "matured_micros": str(line.matured),
                "pending_micros": str(line.pending),
                "next_micros": str(line.next_amount),
                "next_at": line.next_at or None,
            }
            for line in state.lines
        ],
        "disputes": [
            {
                "provider": dispute.provider,
                "ref": "0x" + dispute.ref.hex(),
                "amount_micros": str(dispute.amount),
                "timeout_at": dispute.timeout_at,
            }
            for dispute in state.disputes
        ],
    }


def _lines(place: Place, state: State) -> list[str]:
    ending = "ended, and reclaimable since" if state.ended else "closing, reclaimable from" if state.closing else "ends"
    return [
        f"Pool 0x{place.pool_id.hex()} of {place.contract}: {ending} {moment(state.ends_at)}",
        f"  payer {state.payer}: {usdc(state.free)} free, {usdc(state.disputed)} disputed",
        *(f"  provider {_line(line)}" for line in state.lines),
        *(
            f"  dispute 0x{dispute.ref.hex()} of {usdc(dispute.amount)} with {dispute.provider}: "
            f"{dispute.provider} gets it from {moment(dispute.timeout_at)} on, unless it is ruled before"
            for dispute in state.disputes
        ),
    ]


def _line(line: Line) -> str:
    later = f", {usdc(line.next_amount)} of it from {moment(line.next_at)} on" if line.next_at else ""
    return f"{line.provider}: {usdc(line.matured)} to withdraw, {usdc(line.pending)} held{later}"
