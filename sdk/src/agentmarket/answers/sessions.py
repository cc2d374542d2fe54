"""Sessions, and the transfers in and out of them. A session just opened, with verbs of its own, is in `opened`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agentmarket.decode import Answer
from agentmarket.errors import NextAction


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
    #: the session that this one is a child of
    parent_id: str | None = None
    #: what its children have of it
    delegated: str = "0.00"
    #: the shares of the budget whose spending is told of
    checkpoints: tuple[str, ...] = ()
    expires_at: datetime | None = None
    created_at: datetime | None = None
    next_actions: tuple[NextAction, ...] = ()
    #: only in the answer that opened the session
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Transfer(Answer):
    id: int
    reason: str
    #: signed, as the session sees it: "-0.008" left it
    amount: str
    at: datetime | None = None
    counterparty: str | None = None
    ref: str | None = None
