"""What the market answers: frozen, typed, and open to fields that are added later (see `Answer.extra`).

Amounts are decimal strings, as on the wire. Statuses are plain strings, because a later market may have more of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from agentmarket.decode import Answer
from agentmarket.errors import NextAction

V = TypeVar("V")
C = TypeVar("C")


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
    next_actions: tuple[NextAction, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sent(Generic[V]):
    """An accepted payment and what `on_success` returned for it."""

    payment: Payment
    value: V
    key: str
    #: seconds from asking to the market's answer, retries included, `on_success` not
    elapsed: float

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


@dataclass(frozen=True, kw_only=True)
class Session(Answer):
    id: str
    status: str
    budget: str
    spent: str
    held: str
    remaining: str
    pool_id: str | None = None
    name: str = ""
    currency: str = "USDC"
    policy: Mapping[str, Any] = field(default_factory=dict)
    policy_version: int | None = None
    expires_at: datetime | None = None
    created_at: datetime | None = None
    next_actions: tuple[NextAction, ...] = ()
    #: only in the answer that opened the session
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class OpenedSession(Session, Generic[C]):
    """A session just opened, with its own key, which is shown once: keep `api_key`, or take `client()`."""

    connect: Callable[[str], C] = field(repr=False, compare=False)

    def client(self) -> C:
        """A client that can spend this session and nothing else, over the connections of the client that opened it."""
        return self.connect(self.api_key or "")


@dataclass(frozen=True, kw_only=True)
class Transfer(Answer):
    id: int
    reason: str
    #: signed, as the session sees it: "-0.008" left it
    amount: str
    at: datetime | None = None
    counterparty: str | None = None
    ref: str | None = None


@dataclass(frozen=True, kw_only=True)
class Invoice(Answer):
    id: str
    number: str
    status: str
    amount: str
    approved_amount: str | None = None
    session_id: str | None = None
    provider_id: str | None = None
    agent: str | None = None
    task_id: str | None = None
    memo: str | None = None
    reason: str | None = None
    payment_id: str | None = None
    dispute_id: str | None = None
    review_by: datetime | None = None
    created_at: datetime | None = None
    next_actions: tuple[NextAction, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Task(Answer):
    id: str
    title: str
    status: str
    capability: str
    budget: str
    brief: Mapping[str, Any] = field(default_factory=dict)
    session_id: str | None = None
    agent: str | None = None
    deliverable: Mapping[str, Any] | None = None
    invoice_id: str | None = None
    invoice: Invoice | None = None
    due_at: datetime | None = None
    review_by: datetime | None = None
    reason: str | None = None
    created_at: datetime | None = None
    next_actions: tuple[NextAction, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Dispute(Answer):
    id: str
    status: str
    amount: str
    reason: str
    session_id: str | None = None
    provider_id: str | None = None
    invoice_id: str | None = None
    payment_id: str | None = None
    answer: str | None = None
    to_provider: str | None = None
    to_payer: str | None = None
    to_provider_bps: int | None = None
    ruling_reason: str | None = None
    on_chain: bool | None = None
    answer_by: datetime | None = None
    rule_by: datetime | None = None
    created_at: datetime | None = None
    ruled_at: datetime | None = None
    next_actions: tuple[NextAction, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Offering(Answer):
    id: str
    capability: str
    pricing: str
    price: str
    version: int = 1
    currency: str = "USDC"
    unit: str = ""
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Agent(Answer):
    uri: str
    name: str
    endpoint: str | None = None
    description: str = ""
    provider_id: str | None = None
    provider_name: str | None = None
    capabilities: tuple[str, ...] = ()
    offerings: tuple[Offering, ...] = ()
    created_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class ChainAction(Answer):
    """A step of a pool on the chain."""

    kind: str
    status: str
    tx_hash: str | None = None
    gas_used: int | None = None


@dataclass(frozen=True, kw_only=True)
class Pool(Answer):
    id: str
    status: str
    deposited: str
    available: str
    chain_id: int | None = None
    contract: str | None = None
    pool_key: str | None = None
    payer_address: str | None = None
    in_sessions: str = "0.00"
    held: str = "0.00"
    payable: str = "0.00"
    settling: str = "0.00"
    credited: str = "0.00"
    disputed: str = "0.00"
    withdrawn: str = "0.00"
    fees: str = "0.00"
    reclaimed: str = "0.00"
    currency: str = "USDC"
    expires_at: datetime | None = None
    created_at: datetime | None = None
    chain_actions: tuple[ChainAction, ...] = ()
    next_actions: tuple[NextAction, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Key(Answer):
    id: str
    #: the public part of the key itself: am_test_<key_id>_…
    key_id: str = ""
    name: str = ""
    scope: str | None = None
    read_only: bool = False
    session_id: str | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    #: only in the answer that made the key
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Event(Answer):
    position: int
    type: str
    subject_id: str
    subject_type: str = ""
    at: datetime | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Me(Answer):
    scope: str
    key_id: str | None = None
    payer_id: str | None = None
    provider_id: str | None = None
    session_id: str | None = None
    read_only: bool = False
    chain_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class Balance(Answer):
    """What a provider is owed and has been paid."""

    payable: str
    settling: str
    credited: str
    withdrawn: str
    disputed: str
    address: str | None = None
