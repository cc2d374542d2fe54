"""What may be signed at all, by which key. Pure: no database, no clock but the one that is given.

Lives here: chain transactions (whom they call, what, and for how much gas) and all messages but the payments of a batch,
which are batches.py's. Every refusal is a SignerRefused with the short name of its rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from escrow.chain import typed, wire
from escrow.chain.abi import codec
from escrow.chain.errors import SignerRefused
from escrow.chain.signer import Role, TransactionFields
from escrow.chain.words import ZERO_ADDRESS, address_bytes

CALLS: Final[Mapping[Role, Mapping[str, int]]] = {
    Role.RELAYER: {
        "settle": 5,
        "settleMany": 1,
        "withdraw": 2,
        "openPool": 6,
        "topUp": 7,
        "allowProvidersWithSig": 5,
        "disputeWithSig": 6,
        "requestCloseWithSig": 3,
        "reclaim": 1,
        "resolveByTimeout": 3,
        "withdrawFees": 0,
    },
    Role.ARBITER: {"resolve": 4},
}
"""The contract's functions that our rooms call, and how many arguments each has; with `sandbox` the relayer mints too."""
SELF_TRANSFER_GAS: Final = 21_000


@dataclass(frozen=True)
class Limits:
    """What is ours, and how much of it. Amounts in micro-USDC, fees in wei per gas, times in unix seconds."""

    chain_id: int
    escrow_address: str
    token_address: str
    sandbox: bool
    max_gas: int
    max_fee_wei: int
    max_hourly_gas_wei: int
    max_batch_micros: int
    max_hourly_micros: int
    max_deposit_micros: int
    max_deadline_seconds: int


def check_transaction(fields: TransactionFields, *, role: Role, address: str, limits: Limits) -> None:
    """Return when the key of a role, whose address this is, may sign a chain transaction; else raise SignerRefused."""
    if fields.chain_id != limits.chain_id:
        raise SignerRefused("chain", f"chain {fields.chain_id} is not {limits.chain_id}")
    if fields.value != 0:
        raise SignerRefused("value", f"it would move {fields.value} wei; nothing that we send does")
    if not 0 < fields.max_fee_per_gas <= limits.max_fee_wei:
        raise SignerRefused("fee", f"{fields.max_fee_per_gas} wei per gas is over {limits.max_fee_wei}")
    if not 0 <= fields.max_priority_fee_per_gas <= fields.max_fee_per_gas:
        raise SignerRefused("fee", "the tip is over the fee")
    if not 0 < fields.gas <= limits.max_gas:
        raise SignerRefused("gas", f"{fields.gas} gas is over {limits.max_gas}")
    if role not in CALLS:
        raise SignerRefused("role", f"the {role} sends no chain transactions")
    to = address_bytes(fields.to or ZERO_ADDRESS)
    if to == address_bytes(address):
        # Empty and to itself: it does nothing but use a nonce up, so that later ones are not held up by it.
        if fields.data or fields.gas != SELF_TRANSFER_GAS:
            raise SignerRefused("data", "a transfer to itself carries no bytes and 21,000 gas")
        return
    if to == address_bytes(limits.token_address) and limits.sandbox and role is Role.RELAYER:
        allowed = {codec("TestUSDC").function("mint", 2).selector}
    elif to == address_bytes(limits.escrow_address):
        allowed = _selectors(role)
    else:
        raise SignerRefused("to", f"{fields.to} is not the escrow {limits.escrow_address}")
    if fields.data[:4] not in allowed:
        raise SignerRefused("selector", f"0x{fields.data[:4].hex()} is none of the calls that the {role} makes")


def check_payer(message: typed.Message, *, address: str, authorizer: str, arbiter: str, limits: Limits) -> None:
    """Return when the payer of this address may sign a message; else raise SignerRefused."""
    if isinstance(message, typed.ReceiveWithAuthorization):
        _check_deposit(message, address=address, authorizer=authorizer, arbiter=arbiter, limits=limits)
    elif isinstance(message, (typed.AllowProviders, typed.Dispute, typed.RequestClose)):
        check_domain(message, limits)
    else:
        raise SignerRefused("message", f"a payer signs no {message.NAME} here")


def check_domain(message: typed.Message, limits: Limits) -> None:
    """Return when a message is for our contract on our chain; else raise SignerRefused."""
    if message.domain.separator != wire.pool_domain(limits.chain_id, limits.escrow_address).separator:
        raise SignerRefused("domain", f"{message.domain} is not the escrow's")


def check_deadline(deadline: int, *, now: float, limits: Limits) -> None:
    """Return when a signature is not good for too long; else raise SignerRefused."""
    if deadline > now + limits.max_deadline_seconds:
        raise SignerRefused("deadline", f"it would be good for more than {limits.max_deadline_seconds} seconds")


def check_terms(terms: wire.Terms, *, authorizer: str, arbiter: str) -> None:
    """Return when a pool of these terms can be spent from by our authorizer alone; else raise SignerRefused."""
    if [*map(address_bytes, (terms.authorizer, terms.arbiter))] != [*map(address_bytes, (authorizer, arbiter))]:
        raise SignerRefused("terms", "another authorizer or arbiter than ours would rule over the money")


def _check_deposit(
    message: typed.ReceiveWithAuthorization, *, address: str, authorizer: str, arbiter: str, limits: Limits
) -> None:
    domain, deposit = message.domain, message.deposit
    ours = limits.chain_id, address_bytes(limits.token_address)
    if (domain.chain_id, address_bytes(domain.verifying_contract)) != ours:
        raise SignerRefused("domain", f"{domain} is not the token's")
    if address_bytes(message.to) != address_bytes(limits.escrow_address):
        raise SignerRefused("to", f"the money would go to {message.to}, not to the escrow")
    if address_bytes(message.from_) != address_bytes(address):
        raise SignerRefused("from", f"the money would be {message.from_}'s, not the payer's")
    if not 0 < message.value <= limits.max_deposit_micros:
        raise SignerRefused("deposit", f"{message.value} is over {limits.max_deposit_micros}")
    if deposit is None:
        raise SignerRefused("terms", "a deposit says under which terms it is made")
    check_terms(deposit.terms, authorizer=authorizer, arbiter=arbiter)
    if address_bytes(deposit.terms.payer) != address_bytes(address):
        raise SignerRefused("terms", "the pool would be another payer's")
    pool_domain = wire.pool_domain(limits.chain_id, limits.escrow_address)
    nonce = wire.pool_id(pool_domain, deposit.terms)
    if deposit.salt is not None:
        nonce = typed.TopUp(pool_domain, nonce, deposit.salt).digest
    if message.nonce != nonce:
        raise SignerRefused("terms", "the nonce is of other terms: the money would go into another pool")


@cache
def _selectors(role: Role) -> set[bytes]:
    return {codec("BudgetPool").function(name, arguments).selector for name, arguments in CALLS[role].items()}
