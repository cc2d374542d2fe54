"""Where the gas of a transaction goes: by class of opcode, and by contract. `python -m benchmarks.gas --profile` prints it.

Lives here: reading the struct logs of `debug_traceTransaction`. An opcode is charged what it took by itself: a call without
what its callee used. Not here: which transactions are looked at (scenes.py).
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.gas import scenes
from benchmarks.gas.yard import Yard

CALLS: Final = {"CALL": 2, "STATICCALL": 2, "DELEGATECALL": 2, "CALLCODE": 2}
CALLDATA: Final = ("CALLDATALOAD", "CALLDATACOPY", "CALLDATASIZE")
_NEW: Final = 20_000
_WARM: Final = 100
_PRECOMPILES: Final = 0x200


def profiles(yard: Yard) -> str:
    """Profile one opening, one batch and one ending, as Markdown."""
    parts = []
    for name, transaction_hash in scenes.profiled(yard):
        parts.append(f"## {name}\n\n{_profile(yard, transaction_hash)}\n")
    return "\n".join(parts)


def _profile(yard: Yard, transaction_hash: str) -> str:
    trace = yard.client.request("debug_traceTransaction", [transaction_hash, {}])
    sent = yard.client.request("eth_getTransactionByHash", [transaction_hash])
    used = int(yard.client.request("eth_getTransactionReceipt", [transaction_hash])["gasUsed"], 16)
    data = bytes.fromhex(sent["input"][2:])
    calldata = sum(16 if byte else 4 for byte in data)
    names = {int(yard.contract.address, 16): "escrow", int(yard.token.address, 16): "token"}
    spent, times = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for where, what, gas in _steps(trace["structLogs"], names):
        spent[where, what] += gas
        times[where, what] += 1
    execution = sum(spent.values())
    by_contract = Counter[str]()
    for (where, _), gas in spent.items():
        by_contract[where] += gas
    lines = [
        (
            f"gas used {used:,} = intrinsic 21,000 + calldata {calldata:,} + execution {execution:,}"
            f" - refund {21_000 + calldata + execution - used:,} ({len(data):,} bytes, {data.count(0):,} of them zero)"
        ),
        "",
        ", ".join(f"{where} {gas:,}" for where, gas in by_contract.most_common()),
        "",
        "| gas | times | contract | class |",
        "| ---: | ---: | --- | --- |",
        *(f"| {gas:,} | {times[key]:,} | {key[0]} | {key[1]} |" for key, gas in spent.most_common()),
    ]
    return "\n".join(lines)


def _steps(logs: Sequence[dict[str, Any]], names: dict[int, str]) -> list[tuple[str, str, int]]:
    """Return the contract, the class and the own gas of every opcode."""
    begun: list[int] = []  # gas with which each open frame began, but the outermost
    callers: list[tuple[int, str, str]] = []  # gas before the call, whose, which
    where = ["escrow"]
    found = []
    for at, log in enumerate(logs):
        follower = logs[at + 1] if at + 1 < len(logs) else None
        op, gas = log["op"], log["gas"]
        callee = int(log["stack"][-2], 16) if op in CALLS else 0
        if follower is not None and follower["depth"] > log["depth"]:
            callers.append((gas, where[-1], _class(op, 0, callee)))
            begun.append(follower["gas"])
            where.append(where[-1] if op == "DELEGATECALL" else names.get(callee, hex(callee)))
            continue
        if follower is None or follower["depth"] < log["depth"]:
            cost = log["gasCost"]
            found.append((where[-1], _class(op, cost, callee), cost))
            if follower is not None:
                where.pop()
                before, who, which = callers.pop()
                callee_used = begun.pop() - (gas - cost)
                found.append((who, which, before - follower["gas"] - callee_used))
            continue
        cost = gas - follower["gas"]
        found.append((where[-1], _class(op, cost, callee), cost))
    return found


def _class(op: str, cost: int, callee: int) -> str:
    if op == "SSTORE":
        return "SSTORE new" if cost >= _NEW else "SSTORE again" if cost <= _WARM else "SSTORE update"
    if op == "SLOAD":
        return "SLOAD cold" if cost > _WARM else "SLOAD warm"
    if op in CALLS:
        return f"precompile {callee}" if callee < _PRECOMPILES else f"{op}, by itself"
    if op.startswith("LOG"):
        return "LOG"
    if op in {"TSTORE", "TLOAD"}:
        return "TSTORE, TLOAD"
    if op in {"KECCAK256", "SHA3"}:
        return "KECCAK256"
    if op in CALLDATA:
        return "reading calldata"
    if op in {"EXTCODESIZE", "EXTCODEHASH", "BALANCE", "EXTCODECOPY"}:
        return op
    if op in {"MLOAD", "MSTORE", "MSTORE8", "MCOPY"}:
        return "memory"
    if op in {"JUMP", "JUMPI", "JUMPDEST"}:
        return "jumps"
    return "rest"
