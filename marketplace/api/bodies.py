"""What callers send: one shape for each body and each set of query parameters. Unknown members are refused by name."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from marketplace.api.fields import (
    AgentIn,
    AmountIn,
    CapabilityIn,
    HashIn,
    IdIn,
    InvoiceNumber,
    JsonObject,
    Line,
    MomentIn,
    PolicyIn,
    Shape,
    Words,
    wrong,
)

Currency = Literal["USDC"]
PricingIn = Annotated[Literal["per_call", "per_outcome"], Field(description="When the price is due.")]


class Nothing(Shape):
    """No members: an empty object, or no body at all."""


class PaymentIn(Shape):
    to: AgentIn
    amount: AmountIn
    currency: Currency = "USDC"
    metadata: JsonObject = {}
    session_id: Annotated[
        IdIn | None, Field(description="Which session pays. A session key's own, or else the payer's oldest open one.")
    ] = None
    capability: Annotated[
        CapabilityIn | None, Field(description="What it buys: one that the agent offers. A policy may ask for it.")
    ] = None


class Redemption(Shape):
    request_hash: Annotated[
        HashIn, Field(description="SHA-256 over the request that the payment buys, in hexadecimal.")
    ]


class Reason(Shape):
    reason: Words


class AmountBody(Shape):
    amount: AmountIn


class SessionIn(Shape):
    budget: AmountIn
    currency: Currency = "USDC"
    pool_id: Annotated[IdIn | None, Field(description="Without it: the payer's only open pool.")] = None
    policy: PolicyIn | None = None
    name: Line | None = None
    expires_at: MomentIn | None = None


class ChildIn(Shape):
    budget: AmountIn
    currency: Currency = "USDC"
    policy: Annotated[PolicyIn | None, Field(description="At most what the parent may do; without it, the same.")] = (
        None
    )
    name: Line | None = None
    expires_at: MomentIn | None = None


class PauseIn(Shape):
    reason: Words | None = None


class PolicyBody(Shape):
    policy: PolicyIn


class PoolIn(Shape):
    deposit: Annotated[AmountIn, Field(examples=["25.00"])]
    currency: Currency = "USDC"
    expires_in_hours: Annotated[int, Field(ge=1, le=24 * 365)] | None = None
    providers: Annotated[list[AgentIn], Field(max_length=100)] = []
    dispute_window_seconds: Annotated[int, Field(ge=0, le=30 * 24 * 3600)] | None = None


class TaskIn(Shape):
    title: Line
    brief: JsonObject = {}
    capability: CapabilityIn
    budget: AmountIn
    currency: Currency = "USDC"
    session_id: IdIn | None = None
    agent: Annotated[AgentIn | None, Field(description="Assign it at once; the budget is held from then on.")] = None
    due_in_seconds: Annotated[int, Field(ge=1, le=366 * 24 * 3600)] | None = None


class Assignment(Shape):
    agent: AgentIn


class InvoiceTerms(Shape):
    amount: AmountIn
    number: InvoiceNumber
    memo: Words | None = None


class Delivery(Shape):
    deliverable: JsonObject
    invoice: InvoiceTerms


class InvoiceIn(Shape):
    session_id: IdIn
    agent: AgentIn
    amount: AmountIn
    number: InvoiceNumber
    memo: Words | None = None
    task_id: IdIn | None = None


class DisputeIn(Shape):
    """Names either an invoice or a payment."""

    invoice_id: IdIn | None = None
    payment_id: IdIn | None = None
    reason: Words
    amount: Annotated[AmountIn | None, Field(description="Of a payment only; without it, all of it.")] = None

    @model_validator(mode="after")
    def _one_subject(self) -> Self:
        if (self.invoice_id is None) == (self.payment_id is None):
            raise wrong("must name either invoice_id or payment_id", "one of the two")
        if self.invoice_id is not None and self.amount is not None:
            raise wrong("must not give an amount: an invoice is disputed as a whole", "invoice_id and reason alone")
        return self


class Answer(Shape):
    answer: Words


class OfferingIn(Shape):
    capability: CapabilityIn
    pricing: PricingIn
    price: AmountIn
    unit: Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[a-z][a-z0-9 _-]*$")] = "call"
    description: Annotated[str, Field(max_length=1000)] = ""


class AgentBody(Shape):
    uri: AgentIn
    name: Line
    description: Annotated[str, Field(max_length=4000)] = ""
    endpoint: Annotated[str, Field(max_length=500)] = ""
    capabilities: Annotated[list[CapabilityIn], Field(max_length=50)] = []
    offerings: Annotated[list[OfferingIn], Field(max_length=50)] = []


class Rotation(Shape):
    overlap_seconds: Annotated[
        int, Field(ge=0, le=7 * 24 * 3600, description="How long the old key still opens; 0 ends it at once.")
    ] = 3600


class KeyIn(Shape):
    scope: Annotated[
        Literal["payer", "session", "provider"] | None,
        Field(description="A payer makes `session` keys, and read-only keys of its own; a provider makes its own."),
    ] = None
    session_id: Annotated[IdIn | None, Field(description="Which session the key spends from; `session` keys only.")] = (
        None
    )
    ceiling: Annotated[
        AmountIn | None,
        Field(
            description="The most that a `session` key may spend: set aside in a session inside the session. Takes an "
            "Idempotency-Key, since money moves."
        ),
    ] = None
    read_only: bool = False
    name: Line | None = None
    expires_at: MomentIn | None = None
