"""Policies as documents, and the verbs that ask a policy without spending: check, backtest, and what it decided."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from agentmarket import wire
from agentmarket.amounts import canonical, to_wire
from agentmarket.answers import Backtest, Decision, Verdict
from agentmarket.operations import Listing, Resource, S_co, listing, operation
from agentmarket.steps import Steps

Amount = str | Decimal

_AMOUNTS = ("max_per_tx", "max_total", "max_per_hour", "max_per_day", "approval_above", "new_recipient_max")


class Policies(Resource[S_co]):
    @operation
    def check(
        self,
        *,
        to: str,
        amount: Amount,
        session: str | None = None,
        policy: Mapping[str, Any] | None = None,
        capability: str | None = None,
        at: str | None = None,
    ) -> Steps[Verdict]:
        """What would be answered to a payment, now or `at` another time. Moves nothing, and is no decision."""
        body = {
            "to": to,
            "amount": canonical(amount),
            "session_id": session,
            "policy": None if policy is None else policy_document(policy),
            "capability": capability,
            "at": at,
        }
        return self._fetch(Verdict, wire.post("/v1/policy/check", body, repeatable=True))

    @operation
    def backtest(
        self, *, policy: Mapping[str, Any], session: str | None = None, days: int | None = None
    ) -> Steps[Backtest]:
        """What `policy` would have refused of what was asked in the last `days` (30 unless said)."""
        body = {"policy": policy_document(policy), "session_id": session, "days": days}
        return self._fetch(Backtest, wire.post("/v1/policy/backtest", body, repeatable=True))


class Decisions(Resource[S_co]):
    @listing
    def list(
        self, *, session: str | None = None, outcome: str | None = None, limit: int | None = None
    ) -> Listing[Decision]:
        """What the policies decided, allowed and denied alike."""
        return Listing(wire.get("/v1/decisions", session_id=session, outcome=outcome, limit=limit), Decision)


def policy_document(policy: Mapping[str, Any]) -> dict[str, Any]:
    """The policy as sent: the same rules, with amounts checked here, so that no float becomes a limit."""
    return {
        rule: to_wire(limit, field=f"policy.{rule}") if _is_amount(rule, limit) else limit
        for rule, limit in policy.items()
    }


def _is_amount(rule: str, limit: object) -> bool:
    return limit is not None and rule in _AMOUNTS
