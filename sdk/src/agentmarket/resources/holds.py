"""Holds: money set aside for one agent, captured in whole or in part, or released. One `send` around one is `orders`."""

from collections.abc import Mapping
from typing import Any

from agentmarket import derive, errors, wire
from agentmarket.amounts import canonical
from agentmarket.answers import Hold, Payment
from agentmarket.operations import Listing, Resource, S_co, listing, operation
from agentmarket.resources.oversight import Approvals
from agentmarket.resources.policies import Amount
from agentmarket.steps import Steps, one_key


class Holds(Resource[S_co]):
    @operation
    def place(
        self,
        *,
        to: str,
        amount: Amount,
        currency: str = "USDC",
        metadata: Mapping[str, Any] | None = None,
        session: str | None = None,
        capability: str | None = None,
        expires_in_seconds: int | None = None,
        key: str | None = None,
    ) -> Steps[Hold]:
        """Set money aside: the buyer's verb. It comes back by itself at `expires_at`. Each call is a hold of its own."""
        body = {
            "to": to,
            "amount": canonical(amount),
            "currency": currency,
            "metadata": metadata or None,
            "session_id": session,
            "capability": capability,
            "expires_in_seconds": expires_in_seconds,
        }
        return self._placed(body, one_key(key))

    @operation
    def get(self, hold_id: str) -> Steps[Hold]:
        return self.reading(hold_id)

    @listing
    def list(self, *, session: str | None = None, status: str | None = None, limit: int | None = None) -> Listing[Hold]:
        return Listing(wire.get("/v1/holds", session_id=session, status=status, limit=limit), Hold)

    @operation
    def capture(self, hold_id: str, *, amount: Amount | None = None) -> Steps[Payment]:
        """Pay the agent all of the hold, or `amount` of it; the rest comes back. Once: repeating it pays nothing more."""
        return self.capturing(hold_id, None if amount is None else canonical(amount))

    @operation
    def release(self, hold_id: str) -> Steps[Hold]:
        """Give the money back: by the buyer or the agent."""
        return self.releasing(hold_id)

    def reading(self, hold_id: str) -> Steps[Hold]:
        return self._get(Hold, f"/v1/holds/{wire.segment(hold_id)}")

    def capturing(self, hold_id: str, amount: str | None) -> Steps[Payment]:
        """A hold is captured once, so the key follows from the hold."""
        path = f"/v1/holds/{wire.segment(hold_id)}/capture"
        key = derive.step("capture", hold_id, amount)
        try:
            return (yield from self._move(Payment, path, {"amount": amount}, key=key))
        except errors.OutcomeUnknown as unknown:
            unknown.is_found_by(lambda: self.payment_of(hold_id))
            raise

    def releasing(self, hold_id: str) -> Steps[Hold]:
        return self._move(Hold, f"/v1/holds/{wire.segment(hold_id)}/release", key=derive.step("release", hold_id))

    def _placed(self, body: dict[str, Any], key: str) -> Steps[Hold]:
        try:
            return (yield from self._move(Hold, "/v1/holds", body, key=key))
        except errors.ApprovalRequired as required:
            awaits(self, required)
            raise

    def payment_of(self, hold_id: str) -> Steps[Payment | None]:
        hold = yield from self.reading(hold_id)
        if hold.payment_id is None:
            return None
        return (yield from self._get(Payment, f"/v1/payments/{wire.segment(hold.payment_id)}"))


def awaits(resource: Resource[Any], required: errors.ApprovalRequired) -> None:
    """Let an error be waited for at the market that raised it."""
    approval_id = required.approval_id
    if approval_id is not None:
        required.waits(lambda timeout: Approvals(resource.shell).waiting(approval_id, timeout))
