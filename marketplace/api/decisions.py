"""/v1/decisions. Lives here: HTTP only; the decisions were made elsewhere."""

from marketplace.api import auth, decided_shapes, scope, show_decided
from marketplace.api.endpoint import Call, Endpoint, serves
from marketplace.api.pages import matching, page
from marketplace.api.queries import DecisionQuery


class Decisions(Endpoint):
    """Decisions: what became of each request to spend."""

    @serves(auth.BUYER, query=DecisionQuery, answer=decided_shapes.DecisionPage)
    def get(self, call: Call) -> decided_shapes.DecisionPage:
        """List decisions, allowed and denied, each with its rule, its facts and the policy's version."""
        rows = matching(scope.decisions(call.actor), call.query, "session_id")
        if call.query.outcome is not None:
            rows = rows.filter(is_allowed=call.query.outcome == "allowed")
        members = page(rows, call.query, lambda found: [show_decided.decision(row) for row in found])
        return decided_shapes.DecisionPage(**members)
