"""What a policy decides, what a person decides, and what stops everything: decisions, verdicts, approvals, a freeze."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agentmarket.decode import Answer
from agentmarket.errors import NextAction


@dataclass(frozen=True, kw_only=True)
class Decision(Answer):
    """One answer of a policy, kept by the market whether it allowed or denied."""

    id: str
    kind: str
    outcome: str
    to: str
    amount: str
    session_id: str | None = None
    currency: str = "USDC"
    code: str | None = None
    rule: str | None = None
    policy_version: int | None = None
    capability: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    created_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Approval(Answer):
    """A payment or hold over the policy's `approval_above`, and what a person said of it."""

    id: str
    status: str
    to: str
    amount: str
    kind: str = "payment"
    session_id: str | None = None
    capability: str | None = None
    currency: str = "USDC"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None
    #: where a person answers; told to the payer's full key alone
    page: str | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    decided_at: datetime | None = None
    next_actions: tuple[NextAction, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Verdict(Answer):
    """What would be answered to a payment that nobody made."""

    allowed: bool
    code: str | None = None
    rule: str | None = None
    limit: Any = None
    spent: str | None = None
    remaining: str | None = None
    would_allow: Any = None
    available_at: datetime | None = None
    detail: str | None = None
    policy_version: int | None = None


@dataclass(frozen=True, kw_only=True)
class RuleCount(Answer):
    """How much one rule refused."""

    rule: str | None = None
    count: int = 0
    amount: str = "0.00"


@dataclass(frozen=True, kw_only=True)
class Backtest(Answer):
    """What a policy would have refused of what was asked in the last `days`."""

    days: int
    decisions: int
    refused: RuleCount
    by_rule: tuple[RuleCount, ...] = ()
    examples: tuple[Any, ...] = ()
    #: what was refused then and would be now, and what would pass now
    still_refused: Any = None
    newly_allowed: Any = None
    #: of those that pass, what a person would be asked for
    waiting: Any = None


@dataclass(frozen=True, kw_only=True)
class PolicyVersion(Answer):
    version: int
    policy: Mapping[str, Any]
    created_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Frozen(Answer):
    """Whether a payer's money stands still, and the pools that this is said of."""

    frozen: bool
    pools: tuple[str, ...] = ()
