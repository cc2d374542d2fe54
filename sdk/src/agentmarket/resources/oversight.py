"""What people and other parties answer: approvals, refunds that are asked for, and the freeze of everything."""

from agentmarket import derive, errors, wire
from agentmarket.amounts import canonical
from agentmarket.answers import Approval, Refund
from agentmarket.operations import Listing, Resource, S_co, listing, operation
from agentmarket.resources.policies import Amount
from agentmarket.steps import Steps, stating, wait_for


class Approvals(Resource[S_co]):
    @operation
    def get(self, approval_id: str) -> Steps[Approval]:
        return self._read(approval_id)

    @listing
    def list(
        self, *, status: str | None = None, session: str | None = None, limit: int | None = None
    ) -> Listing[Approval]:
        return Listing(wire.get("/v1/approvals", status=status, session_id=session, limit=limit), Approval)

    @operation
    def approve(self, approval_id: str) -> Steps[Approval]:
        """The payer's verb. The request that was refused passes now, once, with the key it had."""
        return self._leave(Approval, f"/v1/approvals/{wire.segment(approval_id)}/approve")

    @operation
    def refuse(self, approval_id: str, *, reason: str) -> Steps[Approval]:
        return self._leave(Approval, f"/v1/approvals/{wire.segment(approval_id)}/refuse", {"reason": reason})

    @operation
    def wait(self, approval_id: str, *, timeout: float = 300.0) -> Steps[Approval]:
        """Wait until a person approved. Raises PolicyDenied when they refused; Timeout when nobody answered in time."""
        return self.waiting(approval_id, timeout)

    def waiting(self, approval_id: str, timeout: float) -> Steps[Approval]:
        waited = wait_for(
            lambda: self._read(approval_id),
            done=lambda approval: approval.status != "waiting",
            what=f"approval {approval_id}",
            timeout=timeout,
        )
        approval = yield from stating("not_charged", waited)
        if approval.status == "refused":
            raise errors.PolicyDenied(
                f"The payment of {approval.amount} to {approval.to} was refused: {approval.reason or 'no reason was given'}.",
                rule="approval_above",
                approval_id=approval_id,
                outcome="not_charged",
                next_actions=approval.next_actions,
            )
        if approval.status != "approved":
            raise errors.Timeout(
                f"Approval {approval_id} is {approval.status}: make the payment again to ask again.",
                approval_id=approval_id,
                retryable=True,
                outcome="not_charged",
                next_actions=approval.next_actions,
            )
        return approval

    def _read(self, approval_id: str) -> Steps[Approval]:
        return self._get(Approval, f"/v1/approvals/{wire.segment(approval_id)}")


class Refunds(Resource[S_co]):
    """A provider gives money back by itself with `client.payment.refund`."""

    @operation
    def ask(
        self, payment_id: str, *, reason: str, amount: Amount | None = None, key: str | None = None
    ) -> Steps[Refund]:
        """Ask the provider for the payment, or for `amount` of it: the buyer's verb."""
        body = {
            "payment_id": payment_id,
            "reason": reason,
            "amount": None if amount is None else canonical(amount),
        }
        return self._move(Refund, "/v1/refunds", body, key=key)

    @operation
    def get(self, refund_id: str) -> Steps[Refund]:
        return self._get(Refund, f"/v1/refunds/{wire.segment(refund_id)}")

    @listing
    def list(
        self,
        *,
        status: str | None = None,
        session: str | None = None,
        payment: str | None = None,
        limit: int | None = None,
    ) -> Listing[Refund]:
        request = wire.get("/v1/refunds", status=status, session_id=session, payment_id=payment, limit=limit)
        return Listing(request, Refund)

    @operation
    def grant(self, refund_id: str) -> Steps[Refund]:
        """The provider's verb: the money goes back to where it came from."""
        return self._move(Refund, f"/v1/refunds/{wire.segment(refund_id)}/grant", key=derive.step("grant", refund_id))

    @operation
    def decline(self, refund_id: str, *, reason: str) -> Steps[Refund]:
        path = f"/v1/refunds/{wire.segment(refund_id)}/decline"
        return self._move(Refund, path, {"reason": reason}, key=derive.step("decline", refund_id, reason))
