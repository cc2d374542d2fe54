"""Work for an outcome: tasks, invoices, disputes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agentmarket.decode import Answer
from agentmarket.errors import NextAction


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
