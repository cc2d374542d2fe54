"""What callers get: one shape for each answer. The documented schema and the bytes sent both come from here.

Filling the shapes from rows is `marketplace.api.show`'s.
"""

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field

from marketplace.api import chain_shapes, ways_on
from marketplace.api.bodies import PricingIn
from marketplace.api.fields import Amount, Id, JsonObject, Moment, PolicyOut, Shape, SignedAmount
from marketplace.api.queries import DisputeStatus, InvoiceStatus, PaymentStatus, TaskStatus

USDC = Literal["USDC"]
Item = TypeVar("Item")
Action = ways_on.Action


class Page(Shape, Generic[Item]):
    """Rows, newest first, and the cursor of the next page."""

    items: list[Item]
    next: str | None


class Payment(Shape):
    id: Id
    session_id: Id
    to: str
    agent: str
    provider_id: Id
    amount: Amount
    refunded: Annotated[Amount, Field(description="What of it has gone back.")]
    currency: USDC = "USDC"
    status: PaymentStatus
    kind: Literal["call", "invoice", "ruling"]
    metadata: JsonObject
    capability: str | None
    created_at: Moment
    remaining: Annotated[
        Amount | None, Field(description="What the session had left right after; null for the provider.")
    ]
    redeemed_at: Moment | None
    redeemed_before: Annotated[bool, Field(description="In the answer to redeem: whether it was a repeat.")] = False
    batch_id: Id | None
    tx_hash: Annotated[str | None, Field(description="The chain transaction that landed it; null before.")]
    next_actions: list[Action]


class Session(Shape):
    id: Id
    pool_id: Id
    parent_id: Annotated[Id | None, Field(description="The session that it is in.")]
    name: str
    status: Literal["open", "paused", "closed"]
    budget: Amount
    spent: Amount
    held: Amount
    delegated: Annotated[Amount, Field(description="What the sessions inside it have of its budget.")]
    remaining: Amount
    currency: USDC = "USDC"
    checkpoints: Annotated[list[str], Field(description="Fractions of the budget whose passing is told as an event.")]
    policy: PolicyOut
    policy_version: int
    expires_at: Moment | None
    created_at: Moment
    next_actions: list[Action]


class OpenedSession(Session):
    """A session with the key that spends from it. The key is shown in this answer only."""

    api_key: str


class LedgerLine(Shape):
    id: int
    at: Moment
    reason: str
    amount: Annotated[SignedAmount, Field(description="From the session's view: minus is out of it.")]
    counterparty: str
    ref: str


class Pool(Shape):
    id: Id
    status: Literal["opening", "open", "closing", "closed", "failed"]
    chain_id: int
    contract: str
    pool_key: str | None
    payer_address: str | None
    deposited: Amount
    available: Amount
    in_sessions: Amount
    held: Amount
    payable: Amount
    settling: Amount
    credited: Amount
    disputed: Amount
    withdrawn: Amount
    fees: Amount
    reclaimed: Amount
    currency: USDC = "USDC"
    expires_at: Moment
    created_at: Moment
    terms: Annotated[chain_shapes.PoolTerms | None, Field(description="Null until the payer's key has signed them.")]
    chain_actions: list[chain_shapes.ChainStep]
    next_actions: list[Action]


class Invoice(Shape):
    id: Id
    number: str
    status: InvoiceStatus
    amount: Amount
    approved_amount: Amount | None
    currency: USDC = "USDC"
    session_id: Id
    provider_id: Id
    agent: str
    task_id: Id | None
    memo: str
    reason: str
    payment_id: Id | None
    dispute_id: Id | None
    review_by: Moment
    created_at: Moment
    next_actions: list[Action]


class Task(Shape):
    id: Id
    title: str
    brief: JsonObject
    capability: str
    budget: Amount
    currency: USDC = "USDC"
    status: TaskStatus
    session_id: Annotated[Id | None, Field(description="Null for a provider that the task is not assigned to.")]
    agent: str | None
    deliverable: JsonObject | None
    invoice_id: Id | None
    invoice: Invoice | None
    due_at: Moment
    review_by: Moment | None
    reason: str
    created_at: Moment
    next_actions: list[Action]


class Dispute(Shape):
    id: Id
    status: DisputeStatus
    session_id: Id
    provider_id: Id
    invoice_id: Id | None
    payment_id: Id | None
    amount: Amount
    currency: USDC = "USDC"
    reason: str
    answer: str
    to_provider: Amount | None
    to_payer: Amount | None
    to_provider_bps: int | None
    ruling_reason: str
    on_chain: bool
    answer_by: Moment
    rule_by: Moment
    created_at: Moment
    ruled_at: Moment | None
    next_actions: list[Action]


class Offering(Shape):
    id: Id
    version: int
    capability: str
    pricing: PricingIn
    price: Amount
    currency: USDC = "USDC"
    unit: str
    description: str


class Agent(Shape):
    uri: str
    name: str
    description: str
    endpoint: str
    provider_id: Id
    provider_name: str
    capabilities: list[str]
    offerings: list[Offering]
    created_at: Moment


class PaymentPage(Page[Payment]): ...


class SessionPage(Page[Session]): ...


class LedgerPage(Page[LedgerLine]): ...


class PoolPage(Page[Pool]): ...


class BatchPage(Page[chain_shapes.Batch]): ...


class TaskPage(Page[Task]): ...


class InvoicePage(Page[Invoice]): ...


class DisputePage(Page[Dispute]): ...


class AgentPage(Page[Agent]): ...
