"""One chain transaction from one key: what it would cost, sending it once, and waiting for what became of it.

The key is an eth_account account, in memory only. Not here: where the key comes from (cli/keys.py).
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address

from agentmarket.chain import abi
from agentmarket.chain.errors import Denied, RpcRefused, RpcUnavailable, SendFailed, SendUnknown
from agentmarket.chain.rpc import Rpc
from agentmarket.chain.views import events

#: EIP-7825: no transaction may use more
GAS_CAP = 16_777_216
#: seconds until an unanswered transaction is reported as unknown
WAIT = 120.0
#: gwei for each gas; a rollup asks for a small part of it even when it is crowded
MAX_FEE_GWEI = 100.0
_POLL, _REPEAT = 0.5, 10.0


@dataclass(frozen=True)
class Bounds:
    """How far one transaction may go: wei for each gas, and seconds of waiting for its receipt."""

    max_fee: int = int(MAX_FEE_GWEI * 10**9)
    wait: float = WAIT


@dataclass(frozen=True)
class Quote:
    """What a transaction would take: gas units with a quarter to spare, and wei at most (a rollup adds its own data fee)."""

    gas: int
    max_fee: int
    tip: int

    @property
    def cost_wei(self) -> int:
        return self.gas * self.max_fee


@dataclass(frozen=True)
class Mined:
    """A transaction that succeeded."""

    transaction: str
    block: int
    gas_used: int
    cost_wei: int
    logs: tuple[abi.Log, ...]


def quote(rpc: Rpc, sender: str, to: str, data: bytes, bounds: Bounds) -> Quote:
    """Try it on the latest state. Raises Reverted, with the contract's reason, for what would revert, and Denied for what
    would cost more than the bounds allow: a node may name any price."""
    rpc.call(to, data, sender=sender)  # first, because nodes tell the reason better here than while estimating
    gas = rpc.estimate_gas(sender, to, data)
    if gas > GAS_CAP:
        raise Denied(f"It would use {gas} gas, and one transaction may use {GAS_CAP}.")
    tip, base = rpc.tip(), rpc.head().base_fee
    if base + tip > bounds.max_fee:
        raise Denied(
            f"The node asks {(base + tip) / 10**9:g} gwei for each gas, and {bounds.max_fee / 10**9:g} are allowed: ask "
            "another node, wait, or raise --max-fee-gwei."
        )
    return Quote(gas=min(gas + gas // 4, GAS_CAP), max_fee=min(2 * base + tip, bounds.max_fee), tip=tip)


def send(
    rpc: Rpc, account: LocalAccount, to: str, data: bytes, *, bounds: Bounds, announce: Callable[[str], None]
) -> Mined:
    """Sign, broadcast and wait, within the bounds. `announce` is told the hash before a byte leaves.

    Raises Reverted or Denied before anything is sent, RpcRefused when the node did not take it, SendFailed when it failed
    on chain, and SendUnknown when no answer says which.
    """
    quoted = quote(rpc, account.address, to, data, bounds)
    if (balance := rpc.balance(account.address)) < quoted.cost_wei:
        raise Denied(
            f"{account.address} has {balance} wei, and the gas may cost {quoted.cost_wei}: send it some of the chain's coin."
        )
    signed = account.sign_transaction(
        {
            "type": 2,
            "chainId": rpc.chain_id(),
            "nonce": rpc.nonce(account.address),
            "to": to_checksum_address(to),
            "value": 0,
            "data": data,
            "gas": quoted.gas,
            "maxFeePerGas": quoted.max_fee,
            "maxPriorityFeePerGas": quoted.tip,
        }
    )
    raw, transaction = bytes(signed.raw_transaction), "0x" + bytes(signed.hash).hex()
    announce(transaction)
    try:
        rpc.send_raw(raw)
    except RpcUnavailable:
        pass  # it may have arrived: the receipt tells
    except RpcRefused as refused:
        if "already known" not in str(refused).lower():
            raise
    receipt = _awaited(rpc, raw, transaction, bounds.wait)
    block, gas_used = int(receipt["blockNumber"], 16), int(receipt["gasUsed"], 16)
    if receipt["status"] != "0x1":
        raise SendFailed(
            f"Transaction {transaction} failed on chain in block {block}: no money moved. Somebody may have done the same "
            "just before: look again.",
            transaction=transaction,
        )
    try:
        logs = tuple(events(receipt["logs"], to))
    except RpcUnavailable as unusable:
        raise SendUnknown(
            f"Transaction {transaction} is in block {block}. {unusable.detail}", transaction=transaction
        ) from None
    return Mined(transaction, block, gas_used, gas_used * int(receipt.get("effectiveGasPrice", "0x0"), 16), logs)


def _awaited(rpc: Rpc, raw: bytes, transaction: str, wait: float) -> Mapping[str, Any]:
    """The receipt. The same signed bytes are sent again now and then: they can land only once."""
    started = repeated = time.monotonic()
    while time.monotonic() - started < wait:
        try:
            if (receipt := rpc.receipt(transaction)) is not None:
                return receipt
            if time.monotonic() - repeated > _REPEAT:
                repeated = time.monotonic()
                rpc.send_raw(raw)
        except (RpcUnavailable, RpcRefused):
            pass  # neither says what became of it
        time.sleep(_POLL)
    raise SendUnknown(
        f"Transaction {transaction} was sent, and {wait:g} s brought no receipt. Look it up before sending again.",
        transaction=transaction,
    )
