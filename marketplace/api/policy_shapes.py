"""What is asked of a policy without spending, and the answers: one payment, or the past."""

from typing import Annotated, Literal

from pydantic import Field

from marketplace.api.fields import (
    AgentIn,
    Amount,
    AmountIn,
    CapabilityIn,
    Id,
    IdIn,
    JsonObject,
    Moment,
    MomentIn,
    PolicyIn,
    Shape,
)
from marketplace.api.shapes import USDC


class CheckIn(Shape):
    """A payment that nobody makes."""

    to: AgentIn
    amount: AmountIn
    capability: CapabilityIn | None = None
    session_id: Annotated[
        IdIn | None, Field(description="Which session would pay. A session key asks of its own, or of one inside it.")
    ] = None
    policy: Annotated[PolicyIn | None, Field(description="A policy to try; without it, the session's own.")] = None
    at: Annotated[
        MomentIn | None,
        Field(description="A time within ten years, instead of now. Money, spending and states stay as they are now."),
    ] = None


class Check(Shape):
    """What POST /v1/payments would answer right now."""

    allowed: bool
    code: Annotated[
        Literal["policy_denied", "insufficient_funds", "approval_required", "conflict", "settlement_paused"] | None,
        Field(description="What it would be refused as."),
    ]
    rule: str | None
    limit: str | int | list[str] | list[JsonObject] | None
    spent: str | None
    remaining: Annotated[
        str | None, Field(description="What the session would have left; where that is too little, what it has now.")
    ]
    would_allow: str | list[str] | None
    available_at: Annotated[Moment | None, Field(description="When the same request can pass.")]
    detail: str | None
    policy_version: Annotated[
        int | None, Field(description="Which version of the session's policy decided; null for one that was proposed.")
    ]


class BacktestIn(Shape):
    """A policy to try on what was decided before."""

    policy: PolicyIn
    session_id: Annotated[
        IdIn | None, Field(description="One session's past; without it, of each of the payer's, or the key's own.")
    ] = None
    days: Annotated[int, Field(ge=1, le=365, description="How far back.")] = 30


class Tally(Shape):
    count: int
    amount: Amount


class RuleTally(Shape):
    rule: str
    count: int
    amount: Amount


class Example(Shape):
    """A request that was allowed, and would be refused."""

    at: Moment
    session_id: Id
    kind: Literal["payment", "hold"]
    to: str
    amount: Amount
    currency: USDC = "USDC"
    capability: str | None
    rule: str
    limit: str | int | list[str] | list[JsonObject] | None
    spent: str | None
    would_allow: str | list[str] | None
    detail: str


class Backtest(Shape):
    """What a policy would have made of the past. Each request is counted, also one that was repeated."""

    days: int
    decisions: int
    refused: Annotated[Tally, Field(description="Allowed then, and refused by this policy.")]
    by_rule: Annotated[list[RuleTally], Field(description="The refused ones by the rule that refuses, most first.")]
    examples: Annotated[list[Example], Field(description="The first of the refused ones.")]
    still_refused: Tally
    newly_allowed: Annotated[Tally, Field(description="Refused then, and allowed by this policy.")]
    waiting: Annotated[Tally, Field(description="Of those that pass, the ones that a person would be asked for.")]
