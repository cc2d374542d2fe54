"""Sending from a key that nobody else uses now, and putting our contracts on a local chain that way.

Lives here: nonces straight from the node and waiting for receipts. Not here: the service's own sending, which never
takes a nonce from a node (the relay's); a contract that stays (rollout.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from escrow.chain.abi import codec
from escrow.chain.artifacts import load_artifact
from escrow.chain.client import ChainClient, Receipt
from escrow.chain.errors import ChainError, ChainUnavailable
from escrow.chain.outcomes import SendOutcome
from escrow.chain.signer import Signer, TransactionFields
from escrow.chain.words import ZERO_ADDRESS

# EIP-7825; anvil does not enforce it, Base does.
TRANSACTION_GAS_CAP = 16_777_216
NO_TVL_CAP = 2**88 - 1
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0  # seconds: a local chain answers at once, a public node counts requests


@dataclass(frozen=True)
class Deployment:
    """Where a contract is, and the block from which its logs begin."""

    address: str
    block_number: int
    transaction_hash: str


def send(
    client: ChainClient,
    signer: Signer,
    to: str | None,
    data: bytes,
    *,
    timeout: float = 30.0,
    announce: Callable[[str], None] = lambda _: None,
) -> Receipt:
    """Estimate, sign, broadcast and wait. Raises ChainReverted before sending what would revert.

    `announce` is given the hash before the broadcast. A broadcast whose answer is lost may have arrived: it is waited for.
    """
    gas = client.estimate_gas(signer.address, to, data)
    if gas > TRANSACTION_GAS_CAP:
        raise ChainError(f"{gas} gas is more than one chain transaction may use")
    fees = client.fees()
    signed = signer.sign_transaction(
        TransactionFields(
            chain_id=client.chain_id(),
            nonce=client.nonce(signer.address, "pending"),
            to=to,
            data=data,
            gas=limit(gas),
            max_fee_per_gas=fees.max_fee,
            max_priority_fee_per_gas=fees.tip,
        )
    )
    announce(signed.hash)
    result = client.send_raw(signed.raw)
    if result.outcome not in (SendOutcome.OK, SendOutcome.ALREADY_KNOWN, SendOutcome.UNKNOWN):
        raise ChainError(f"{signed.hash} was not taken, {result.outcome}: {result.detail}")
    return wait(client, signed.hash, timeout=timeout)


def limit(gas: int) -> int:
    """The gas limit that goes with an estimate; the sender must have so much in advance."""
    return min(gas + gas // 4, TRANSACTION_GAS_CAP)


def wait(client: ChainClient, transaction_hash: str, *, timeout: float = 30.0) -> Receipt:
    """The receipt, once it is there; raises ChainUnavailable when it is not within `timeout` seconds.

    A node that fails meanwhile is asked again: it says nothing of the chain transaction.
    """
    give_up_at, pause, failure = time.monotonic() + timeout, _FIRST_PAUSE, ""
    while time.monotonic() < give_up_at:
        try:
            receipt, failure = client.receipt(transaction_hash), ""
        except ChainError as error:
            receipt, failure = None, f" ({error})"
        if receipt is not None:
            return receipt
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    raise ChainUnavailable(f"{transaction_hash} has no receipt after {timeout} s{failure}; it may still be mined")


def deploy(client: ChainClient, signer: Signer, name: str, *arguments: object) -> Deployment:
    """Create the contract of a committed artifact."""
    receipt = send(client, signer, None, load_artifact(name).bytecode + codec(name).constructor(*arguments))
    if not receipt.ok or receipt.contract_address is None:
        raise ChainError(f"{name} was not created by {receipt.transaction_hash}")
    return Deployment(receipt.contract_address, receipt.block_number, receipt.transaction_hash)


def deploy_test_usdc(client: ChainClient, signer: Signer, name: str = "USDC") -> Deployment:
    """A test token; `name` is also its EIP-712 domain name ("USDC" as on Base Sepolia, "USD Coin" as on Base)."""
    return deploy(client, signer, "TestUSDC", name)


def deploy_budget_pool(
    client: ChainClient,
    signer: Signer,
    token: str,
    fee_recipient: str,
    guardian: str = ZERO_ADDRESS,
    tvl_cap: int = NO_TVL_CAP,
) -> Deployment:
    return deploy(client, signer, "BudgetPool", token, fee_recipient, guardian, tvl_cap)
