"""/v1/approvals. Lives here: HTTP only; `escrow.approvals` decides."""

from uuid import UUID

from escrow import approvals
from marketplace.api import auth, decided_shapes, scope, show_decided
from marketplace.api.bodies import Reason
from marketplace.api.endpoint import Call, Endpoint, serves
from marketplace.api.pages import matching, page
from marketplace.api.queries import ApprovalQuery


class Approvals(Endpoint):
    """Approvals: what agents have asked a person for."""

    @serves(auth.BUYER, query=ApprovalQuery, answer=decided_shapes.ApprovalPage)
    def get(self, call: Call) -> decided_shapes.ApprovalPage:
        """List approvals: what waits for a person, and what was answered."""
        rows = matching(scope.approvals(call.actor), call.query, "session_id", "status")
        members = page(rows, call.query, lambda found: [show_decided.approval(row, call.actor) for row in found])
        return decided_shapes.ApprovalPage(**members)


class OneApproval(Endpoint):
    """One approval."""

    @serves(auth.BUYER, answer=decided_shapes.Approval)
    def get(self, call: Call, approval_id: UUID) -> decided_shapes.Approval:
        """Read an approval."""
        return show_decided.approval(scope.one(scope.approvals(call.actor), approval_id), call.actor)


class Approve(Endpoint):
    """A person's yes."""

    @serves(auth.PAYER, answer=decided_shapes.Approval)
    def post(self, call: Call, approval_id: UUID) -> decided_shapes.Approval:
        """Allow a request: the same one, with the same Idempotency-Key, passes from now on while the approval lasts."""
        found = scope.one(scope.approvals(call.actor), approval_id)
        approved = approvals.approve(approval=found, by=f"key {call.actor.key.key_id}", now=call.now)
        return show_decided.approval(approved, call.actor)


class Refuse(Endpoint):
    """A person's no."""

    @serves(auth.PAYER, body=Reason, answer=decided_shapes.Approval)
    def post(self, call: Call, approval_id: UUID) -> decided_shapes.Approval:
        """Refuse a request, with a reason that the agent reads."""
        found = scope.one(scope.approvals(call.actor), approval_id)
        by = f"key {call.actor.key.key_id}"
        refused = approvals.refuse(approval=found, reason=call.body.reason, by=by, now=call.now)
        return show_decided.approval(refused, call.actor)
