"""Putting `BudgetPool` on a chain for good: what is checked before, what is sent, what is checked after.

Lives here: `plan` reads and refuses, `price` asks what it costs, `carry_out` sends once, `verify` reads it back. Nothing
but `carry_out` sends. A refusal is `InvalidInput`: the field, the rule and what would pass; a ChainError is a failure.
Not here: the address itself (create2.py), known networks (networks.py), the words printed (the command).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from eth_abi.exceptions import DecodingError
from eth_utils.address import to_checksum_address

from escrow.chain import create2
from escrow.chain.abi import codec
from escrow.chain.artifacts import load_artifact
from escrow.chain.client import ChainClient, Receipt
from escrow.chain.deploy import NO_TVL_CAP, TRANSACTION_GAS_CAP, limit, send
from escrow.chain.errors import ChainError, ChainReverted
from escrow.chain.networks import MAINNET, Network
from escrow.chain.signer import Signer
from escrow.chain.wire import Domain
from escrow.chain.words import ZERO_ADDRESS, address_bytes
from escrow.errors import InvalidInput

USDC_DECIMALS = 6
_RECEIPT_SECONDS = 120.0


@dataclass(frozen=True)
class Order:
    """What is to be deployed. `tvl_cap` is micro-USDC; the zero address as `guardian` means none."""

    network: Network
    fee_recipient: str
    guardian: str = ZERO_ADDRESS
    tvl_cap: int = NO_TVL_CAP
    salt: bytes = bytes(32)

    @property
    def arguments(self) -> tuple[str, str, str, int]:
        """The constructor's, in its order."""
        return self.network.usdc, self.fee_recipient, self.guardian, self.tvl_cap

    @property
    def constructor_arguments(self) -> bytes:
        """The same as the ABI encodes them."""
        return codec("BudgetPool").constructor(*self.arguments)

    @property
    def creation_code(self) -> bytes:
        return load_artifact("BudgetPool").bytecode + self.constructor_arguments

    @property
    def address(self) -> str:
        return create2.address_of(self.salt, self.creation_code)


@dataclass(frozen=True)
class Plan:
    """A checked order. `runtime` is the code it leaves at `order.address`; `deployed` if that is there already."""

    order: Order
    token_domain: Domain
    runtime: bytes
    deployed: bool


@dataclass(frozen=True)
class Price:
    """`gas` as estimated; `wei` is what the sender must have for it, without what Base adds for publishing it on Ethereum."""

    gas: int
    wei: int
    balance: int


def address(text: str, *, field: str, zero_allowed: bool = False) -> str:
    """The checksummed form of an address somebody typed; raises InvalidInput."""
    form = "20 bytes as 0x and 40 hex digits, in lower case or with the right checksum"
    try:
        typed = str(to_checksum_address(address_bytes(text)))
    except ValueError:
        raise InvalidInput(field, f"must be an address, not {text!r}", form) from None
    if typed == ZERO_ADDRESS and not zero_allowed:
        raise InvalidInput(field, "must not be the zero address", "an address whose key somebody holds")
    return typed


# ---------------------------------------------------------------------- before


def plan(client: ChainClient, order: Order, *, mainnet_allowed: bool) -> Plan:
    """Check the chain, its token, the proxy, and what is at the address. Raises InvalidInput for what may not be."""
    network = order.network
    if network.chain_id == MAINNET and not mainnet_allowed:
        raise InvalidInput("yes-mainnet", f"is needed on chain {MAINNET}, where money is real", "--yes-mainnet")
    if (found := client.chain_id()) != network.chain_id:
        raise InvalidInput(
            "RPC_URL", f"answers for chain {found}, and {network.name} is {network.chain_id}", "a node of that chain"
        )
    token_domain = check_token(client, network)
    if not create2.code_at(client, create2.PROXY):
        raise InvalidInput(
            "proxy",
            f"{create2.PROXY} has no code on chain {found}",
            "a chain with the deterministic deployment proxy; its README (github.com/Arachnid/"
            "deterministic-deployment-proxy) has the presigned chain transaction that puts it there",
        )
    runtime = _expected(client, order)
    present = create2.code_at(client, order.address)
    if present and present != runtime:
        raise InvalidInput(
            "salt",
            f"leads to {order.address}, where there is other code ({len(present)} bytes, not these {len(runtime)})",
            "another --salt, once it is understood how that code came there",
        )
    return Plan(order, token_domain, runtime, deployed=bool(present))


def check_token(client: ChainClient, network: Network) -> Domain:
    """The token's EIP-712 domain as it says itself, after it was compared with the token's own and the network's."""
    token = network.usdc
    if not create2.code_at(client, token):
        raise InvalidInput("token", f"{token} has no code on chain {network.chain_id}", "the address of USDC there")
    if (decimals := _ask(client, token, "decimals")) != USDC_DECIMALS:
        raise InvalidInput("token", f"{token} has {decimals} decimals", f"a token of {USDC_DECIMALS}, as USDC has")
    domain = Domain(_ask(client, token, "name"), _ask(client, token, "version"), network.chain_id, token)
    for what, found, expected in (
        ("name", domain.name, network.usdc_name),
        ("version", domain.version, network.usdc_version),
    ):
        if expected is not None and found != expected:
            raise InvalidInput(
                "token", f"{token} says its {what} is {found!r}", f"{expected!r}, which USDC on {network.name} says"
            )
    if (separator := _ask(client, token, "DOMAIN_SEPARATOR")) != domain.separator:
        raise InvalidInput(
            "token",
            f"{token} signs under DOMAIN_SEPARATOR 0x{separator.hex()}, and its name {domain.name!r}, version "
            f"{domain.version!r}, chain and address make 0x{domain.separator.hex()}",
            "a token whose domain is these four, so that signatures of payers are taken",
        )
    return domain


def _expected(client: ChainClient, order: Order) -> bytes:
    try:
        runtime = create2.simulate(client, order.address, order.creation_code)
    except ChainReverted as error:
        raise InvalidInput("arguments", f"are refused by the constructor: {error}", "arguments it takes") from None
    if not create2.is_instance(load_artifact("BudgetPool").deployed_bytecode, runtime):
        raise ChainError("eth_call with a state override did not run the creation code; another node is needed")
    return runtime


def price(client: ChainClient, order: Order, sender: str) -> Price:
    """What creating costs now; raises InvalidInput when it is more gas than one chain transaction may use."""
    gas = client.estimate_gas(sender, create2.PROXY, create2.calldata(order.salt, order.creation_code))
    if gas >= TRANSACTION_GAS_CAP:
        raise InvalidInput("gas", f"would be {gas}", f"less than {TRANSACTION_GAS_CAP} (EIP-7825): a smaller contract")
    return Price(gas=gas, wei=limit(gas) * client.fees().max_fee, balance=client.balance(sender))


# ---------------------------------------------------------------------- sending, and after


def carry_out(
    client: ChainClient, signer: Signer, plan: Plan, cost: Price, *, announce: Callable[[str], None]
) -> Receipt:
    """Create it and verify what is there. Not for a plan that is `deployed`: the proxy would revert.

    `announce` is given the hash before it is sent. Refuses while something of the same key is pending: it may be this.
    """
    if cost.balance < cost.wei:
        raise InvalidInput(
            "relayer", f"{signer.address} has {cost.balance} wei", f"{cost.wei} wei or more, for {cost.gas} gas"
        )
    pending, mined = client.nonce(signer.address, "pending"), client.nonce(signer.address)
    if pending != mined:
        rule = f"{signer.address} has {pending - mined} pending chain transactions, and this may be one of them"
        raise InvalidInput("relayer", rule, "the same again once they are mined, or a key that nothing else uses")
    order = plan.order
    data = create2.calldata(order.salt, order.creation_code)
    receipt = send(client, signer, create2.PROXY, data, timeout=_RECEIPT_SECONDS, announce=announce)
    verify(client, plan)  # not the receipt: whoever was faster with the same code did the same
    return receipt


def verify(client: ChainClient, plan: Plan) -> None:
    """Read back the code and what the constructor was told; raises ChainError naming what differs."""
    order = plan.order
    if create2.code_at(client, order.address) != plan.runtime:
        raise ChainError(f"the code at {order.address} is not the artifact's with these arguments")
    names = ("token", "feeRecipient", "guardian", "tvlCap")
    for name, told in zip(names, order.arguments, strict=True):
        if (found := read(client, order.address, name)) != told:
            raise ChainError(f"{name}() of {order.address} is {found}, and it was deployed with {told}")


def read(client: ChainClient, contract: str, name: str) -> Any:
    """One view of the deployed contract without arguments."""
    (value,) = codec("BudgetPool").answer(name, 0, client.call(contract, codec("BudgetPool").call(name)))
    return value


def _ask(client: ChainClient, token: str, name: str) -> Any:
    """One view of the token; InvalidInput when it has none of that name."""
    abi = codec("TestUSDC")
    try:
        (value,) = abi.answer(name, 0, client.call(token, abi.call(name)))
    except (ChainReverted, DecodingError):
        raise InvalidInput("token", f"{token} does not answer {name}()", "the address of USDC") from None
    return value
