"""The verbs of the contract as calldata, and its views as typed answers.

Lives here: one builder per verb (pure; the name of the contract function in our spelling) and `BudgetPool`, a reader of
one deployed pool contract. Not here: signatures (typed.py, signer.py), sending (the relay), deploying (deploy.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from escrow.chain.abi import Codec, codec
from escrow.chain.errors import ChainRefused
from escrow.chain.wire import Domain, Terms, pool_domain


class Caller(Protocol):
    """What a reader needs of a chain client."""

    def call(self, to: str, data: bytes, block: int | str = "latest") -> bytes: ...

    def chain_id(self) -> int: ...


# ---------------------------------------------------------------------- calldata


def open_pool(
    terms: Terms, providers: Sequence[str], value: int, valid_after: int, valid_before: int, signature: bytes
) -> bytes:
    """`signature` is the payer's over a `typed.ReceiveWithAuthorization` with nonce `wire.pool_id`."""
    return _pool().call("openPool", terms.as_tuple(), list(providers), value, valid_after, valid_before, signature)


def top_up(
    pool_id: bytes, value: int, from_: str, valid_after: int, valid_before: int, nonce_salt: bytes, signature: bytes
) -> bytes:
    """`signature` is `from_`'s over a `typed.ReceiveWithAuthorization` with the digest of `typed.TopUp` as its nonce."""
    return _pool().call("topUp", pool_id, value, from_, valid_after, valid_before, nonce_salt, signature)


def allow_providers(pool_id: bytes, providers: Sequence[str]) -> bytes:
    return _pool().call("allowProviders", pool_id, list(providers))


def allow_providers_with_sig(
    pool_id: bytes, providers: Sequence[str], nonce: bytes, deadline: int, signature: bytes
) -> bytes:
    return _pool().call("allowProvidersWithSig", pool_id, list(providers), nonce, deadline, signature)


def settle(pool_id: bytes, packed: bytes, root: bytes, deadline: int, signature: bytes) -> bytes:
    """`signature` is the authorizer's over a `typed.Batch`."""
    return _pool().call("settle", pool_id, packed, root, deadline, signature)


def settle_many(batches: Sequence[tuple[bytes, bytes, bytes, int, bytes]]) -> bytes:
    """`batches` are the arguments of `settle`. One that is refused leaves an `ItemRejected` and stops no other."""
    return _pool().call("settleMany", list(batches))


def withdraw(pool_id: bytes, provider: str) -> bytes:
    return _pool().call("withdraw", pool_id, provider)


def withdraw_many(claims: Sequence[tuple[bytes, str]]) -> bytes:
    """`claims` are (pool id, provider). One that is refused leaves a `WithdrawalRejected` and stops no other."""
    return _pool().call("withdrawMany", list(claims))


def withdraw_fees() -> bytes:
    return _pool().call("withdrawFees")


def dispute(pool_id: bytes, provider: str, amount: int, ref: bytes) -> bytes:
    return _pool().call("dispute", pool_id, provider, amount, ref)


def dispute_with_sig(pool_id: bytes, provider: str, amount: int, ref: bytes, deadline: int, signature: bytes) -> bytes:
    return _pool().call("disputeWithSig", pool_id, provider, amount, ref, deadline, signature)


def resolve(terms: Terms, provider: str, ref: bytes, to_provider: int) -> bytes:
    """The arbiter is in the terms, whose digest is the pool's id."""
    return _pool().call("resolve", terms.as_tuple(), provider, ref, to_provider)


def resolve_by_timeout(pool_id: bytes, provider: str, ref: bytes) -> bytes:
    return _pool().call("resolveByTimeout", pool_id, provider, ref)


def request_close(pool_id: bytes) -> bytes:
    return _pool().call("requestClose", pool_id)


def request_close_with_sig(pool_id: bytes, deadline: int, signature: bytes) -> bytes:
    return _pool().call("requestCloseWithSig", pool_id, deadline, signature)


def reclaim(pool_id: bytes) -> bytes:
    return _pool().call("reclaim", pool_id)


def multicall(calls: Sequence[bytes]) -> bytes:
    """Several of the above in one chain transaction, all or nothing."""
    return _pool().call("multicall", list(calls))


def mint_test_usdc(to: str, amount: int) -> bytes:
    """The test token's open faucet; real USDC has none."""
    return codec("TestUSDC").call("mint", to, amount)


def transfer_with_authorization(
    from_: str, to: str, value: int, valid_after: int, valid_before: int, nonce: bytes, signature: bytes
) -> bytes:
    """A payment on chain by itself; `signature` is `from_`'s over a `typed.TransferWithAuthorization`."""
    return codec("TestUSDC").call(
        "transferWithAuthorization", from_, to, value, valid_after, valid_before, nonce, signature
    )


# ---------------------------------------------------------------------- views


@dataclass(frozen=True)
class PoolState:
    """`IBudgetPool.PoolState`: `ends_at` is the expiry or, once the payer is `closing`, sooner."""

    payer: str
    authorizer: str
    ends_at: int
    closing: bool
    close_delay: int
    per_record_cap: int
    window_cap: int
    window_length: int
    dispute_window: int
    fee_bps: int
    free: int
    disputed: int
    window_remaining: int


@dataclass(frozen=True)
class LineState:
    """A provider's line: `matured` can be withdrawn now; `next_amount` of `pending` matures at `next_at`."""

    allowed: bool
    matured: int
    pending: int
    next_amount: int
    next_at: int


class DisputeStatus(IntEnum):
    NONE = 0
    OPEN = 1
    RESOLVED = 2


@dataclass(frozen=True)
class DisputeState:
    """From `timeout_at` on, only `resolve_by_timeout` ends an open dispute."""

    status: DisputeStatus
    amount: int
    opened_at: int
    timeout_at: int


class BudgetPool:
    """Reads one deployed contract, at `latest` or at a given block."""

    def __init__(self, caller: Caller, address: str) -> None:
        self._caller = caller
        self.address = address

    def domain(self) -> Domain:
        """The EIP-712 domain batches and payer signatures are made under."""
        return pool_domain(self._caller.chain_id(), self.address)

    def token(self) -> str:
        return str(self._read("token"))

    def fee_recipient(self) -> str:
        return str(self._read("feeRecipient"))

    def pool(self, pool_id: bytes, block: int | str = "latest") -> PoolState:
        """Raises ChainReverted("NoSuchPool") for an unknown id."""
        return PoolState(*self._read("pool", pool_id, block=block))

    def line_of(self, pool_id: bytes, provider: str, block: int | str = "latest") -> LineState:
        """Raises ChainReverted("NoSuchPool") for an unknown id; an unlisted provider has an empty line."""
        return LineState(*self._read("lineOf", pool_id, provider, block=block))

    def dispute_of(self, pool_id: bytes, provider: str, ref: bytes, block: int | str = "latest") -> DisputeState:
        status, amount, opened_at, timeout_at = self._read("disputeOf", pool_id, provider, ref, block=block)
        return DisputeState(DisputeStatus(status), amount, opened_at, timeout_at)

    def is_settled(self, pool_id: bytes, seq: int, block: int | str = "latest") -> bool:
        return bool(self._read("isSettled", pool_id, seq, block=block))

    def total_held(self, block: int | str = "latest") -> int:
        return int(self._read("totalHeld", block=block))

    def fees(self, block: int | str = "latest") -> int:
        return int(self._read("fees", block=block))

    def solvent(self, block: int | str = "latest") -> bool:
        return bool(self._read("solvent", block=block))

    def read_many(self, views: Sequence[tuple[str, tuple[Any, ...]]], block: int | str = "latest") -> list[Any]:
        """Several views in one call, all as of one block. Raises ChainReverted when one of them reverts."""
        calls = [_pool().call(name, *arguments) for name, arguments in views]
        returned = self._read("multicall", calls, block=block)
        return [
            _pool().answer(name, len(arguments), one)[0] for (name, arguments), one in zip(views, returned, strict=True)
        ]

    def pool_id_of(self, terms: Terms) -> bytes:
        return bytes(self._read("poolIdOf", terms.as_tuple()))

    def top_up_nonce(self, pool_id: bytes, nonce_salt: bytes) -> bytes:
        return bytes(self._read("topUpNonce", pool_id, nonce_salt))

    def _read(self, name: str, *arguments: Any, block: int | str = "latest") -> Any:
        return _read(self._caller, self.address, _pool(), name, arguments, block)


class Token:
    """Reads a USDC-like token."""

    def __init__(self, caller: Caller, address: str) -> None:
        self._caller = caller
        self.address = address

    def domain(self) -> Domain:
        """The token's EIP-712 domain, name and version as the token itself says: they differ between networks."""
        return Domain(str(self._read("name")), str(self._read("version")), self._caller.chain_id(), self.address)

    def balance_of(self, account: str, block: int | str = "latest") -> int:
        return int(self._read("balanceOf", account, block=block))

    def _read(self, name: str, *arguments: Any, block: int | str = "latest") -> Any:
        return _read(self._caller, self.address, codec("TestUSDC"), name, arguments, block)


def _pool() -> Codec:
    return codec("BudgetPool")


def _read(caller: Caller, address: str, abi: Codec, name: str, arguments: Sequence[Any], block: int | str) -> Any:
    returned = caller.call(address, abi.call(name, *arguments), block)
    if not returned:
        raise ChainRefused("eth_call", 0, f"no contract at {address}")
    (value,) = abi.answer(name, len(arguments), returned)
    return value
