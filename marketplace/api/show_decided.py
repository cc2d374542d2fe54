"""From rows of decisions to shapes. Lives here: decisions, what a person is asked, and versions of a policy."""

from typing import Final

from escrow import money
from escrow.limits import AMOUNTS
from escrow.models import Approval, Decision, SessionPolicy
from marketplace import consent
from marketplace.api import actions, decided_shapes
from marketplace.api.auth import Actor
from marketplace.models import Scope

_IN_MICROS: Final = (*AMOUNTS, "insufficient_funds", "approval_required", "approval_refused")
"""The rules whose amounts the database has written down, in its own unit."""


def approval(row: Approval, actor: Actor) -> decided_shapes.Approval:
    """Show an approval; where a person answers it is for the payer's full key alone."""
    answers = actor.scope == Scope.PAYER and not actor.key.read_only
    return decided_shapes.Approval.model_validate(
        {
            "id": row.pk,
            "session_id": row.session_id,
            "kind": row.kind,
            "to": row.to,
            "amount": row.amount_micros,
            "capability": row.capability or None,
            "metadata": row.metadata,
            "status": row.status,
            "reason": row.reason or None,
            "page": consent.page_of(row) if answers else None,
            "created_at": row.created_at,
            "expires_at": row.expires_at,
            "decided_at": row.decided_at,
            "next_actions": actions.of_approval(row, actor),
        }
    )


def decision(row: Decision) -> decided_shapes.Decision:
    """Show a decision."""
    return decided_shapes.Decision.model_validate(
        {
            "id": row.pk,
            "session_id": row.session_id,
            "kind": row.kind,
            "outcome": "allowed" if row.is_allowed else "denied",
            "rule": row.rule or None,
            "policy_version": row.policy_version,
            "to": row.to,
            "amount": row.amount_micros,
            "capability": row.capability or None,
            "facts": _facts(row),
            "created_at": row.created_at,
        }
    )


def policy_version(row: SessionPolicy) -> decided_shapes.PolicyVersion:
    """Show a version of a policy."""
    return decided_shapes.PolicyVersion(version=row.version, policy=row.policy, created_at=row.created_at)


def _facts(row: Decision) -> dict[str, object]:
    return {
        name: money.render(value) if isinstance(value, int) and row.rule in _IN_MICROS else value
        for name, value in row.facts.items()
        if value is not None and name not in ("rule", "reason")
    }
