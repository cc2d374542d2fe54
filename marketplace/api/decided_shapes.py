"""What callers get of decisions: approvals, what was allowed and denied, versions of a policy, a freeze."""

from typing import Annotated, Literal

from pydantic import Field

from marketplace.api.fields import Amount, Id, JsonObject, Moment, PolicyOut, Shape
from marketplace.api.queries import ApprovalStatus
from marketplace.api.shapes import USDC, Action, Page


class PolicyVersion(Shape):
    """A policy as it was in force from a time on, until the next version."""

    version: int
    policy: PolicyOut
    created_at: Moment


class Approval(Shape):
    """A request over what its session may spend without a person."""

    id: Id
    session_id: Id
    kind: Literal["payment", "hold"]
    to: str
    amount: Amount
    currency: USDC = "USDC"
    capability: str | None
    metadata: JsonObject
    status: ApprovalStatus
    reason: str | None
    page: Annotated[str | None, Field(description="Where a person answers, for the payer's full key alone.")]
    created_at: Moment
    expires_at: Moment
    decided_at: Moment | None
    next_actions: list[Action]


class Decision(Shape):
    """What was decided of one request to spend."""

    id: Id
    session_id: Id
    kind: Literal["payment", "hold"]
    outcome: Literal["allowed", "denied"]
    rule: Annotated[str | None, Field(description="What refused: a key of the policy, insufficient_funds, a state.")]
    policy_version: int
    to: str
    amount: Amount
    currency: USDC = "USDC"
    capability: str | None
    facts: JsonObject
    created_at: Moment


class Frozen(Shape):
    """Whether an account may spend, and the pools that this is said of."""

    frozen: bool
    pools: list[Id]


class PolicyPage(Page[PolicyVersion]): ...


class ApprovalPage(Page[Approval]): ...


class DecisionPage(Page[Decision]): ...
