"""Payments and what surrounds one: what was sent, a paid call, a hold, a refund that was asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from agentmarket.amounts import micros
from agentmarket.decode import Answer
from agentmarket.errors import NextAction

V = TypeVar("V")


@dataclass(frozen=True, kw_only=True)
class Payment(Answer):
    id: str
    to: str
    amount: str
    status: str
    currency: str = "USDC"
    kind: str = "call"
    session_id: str | None = None
    provider_id: str | None = None
    agent: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    created_at: datetime | None = None
    remaining: str | None = None
    redeemed_at: datetime | None = None
    #: in the answer to redeem: whether the same request had redeemed it already
    redeemed_before: bool = False
    batch_id: str | None = None
    tx_hash: str | None = None
    capability: str | None = None
    policy_version: int | None = None
    #: how much of it came back
    refunded: str = "0.00"
    next_actions: tuple[NextAction, ...] = ()

    @property
    def is_returned(self) -> bool:
        """Whether all of it came back, before or after it was settled: then nobody was paid."""
        return self.status == "refunded" or micros(self.refunded) >= micros(self.amount)


@dataclass(frozen=True, kw_only=True)
class Sent(Generic[V]):
    """An accepted payment and what `on_success` returned for it."""

    payment: Payment
    value: V
    key: str
    #: seconds from asking to the market's answer, retries included, `on_success` not
    elapsed: float
    #: whether the market had made this payment before: by this call, whose reply was lost, or by an earlier equal one
    replayed: bool = False

    @property
    def id(self) -> str:
        return self.payment.id

    @property
    def status(self) -> str:
        return self.payment.status

    @property
    def amount(self) -> str:
        return self.payment.amount

    @property
    def remaining(self) -> str | None:
        return self.payment.remaining


@dataclass(frozen=True, kw_only=True)
class Called:
    """A paid call that was delivered: the agent's JSON answer, and the payment for it."""

    value: Any
    payment: Payment
    #: seconds the payment alone took; 0.0 when an earlier payment was used again
    elapsed: float
    #: as in `Sent`: whether it had been paid before
    replayed: bool = False


@dataclass(frozen=True, kw_only=True)
class Hold(Answer):
    """Money set aside for one agent: captured in whole or in part, or released."""

    id: str
    to: str
    amount: str
    status: str
    captured: str = "0.00"
    currency: str = "USDC"
    session_id: str | None = None
    agent: str | None = None
    provider_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    capability: str | None = None
    payment_id: str | None = None
    remaining: str | None = None
    #: it is released by itself then
    expires_at: datetime | None = None
    created_at: datetime | None = None
    next_actions: tuple[NextAction, ...] = ()

    @property
    def is_returned(self) -> bool:
        """Whether all of it came back: then nobody was paid."""
        return self.status == "released"


@dataclass(frozen=True, kw_only=True)
class Refund(Answer):
    """What a buyer asked back, and what the provider answered."""

    id: str
    payment_id: str
    amount: str
    status: str
    reason: str = ""
    answer: str | None = None
    session_id: str | None = None
    provider_id: str | None = None
    currency: str = "USDC"
    #: then silence lapses it
    answer_by: datetime | None = None
    created_at: datetime | None = None
    answered_at: datetime | None = None
    next_actions: tuple[NextAction, ...] = ()
