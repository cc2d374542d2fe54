"""Payments as verbs: sending one (whose steps are `orders`), opening a session, and reading, refunding, redeeming."""

from collections.abc import Mapping
from typing import Any, Generic

from agentmarket import derive, wire
from agentmarket.amounts import canonical, to_wire
from agentmarket.answers import Payment
from agentmarket.operations import C, Listing, Resource, S_co, listing, operation
from agentmarket.proofs import Receipt
from agentmarket.resources.orders import Orders
from agentmarket.resources.policies import Amount, policy_document
from agentmarket.resources.sessions import OpenedSession, Sessions
from agentmarket.steps import Steps, one_key


class Payments(Resource[S_co], Generic[S_co, C]):
    def __init__(self, shell: S_co, owner: C) -> None:
        super().__init__(shell)
        self._orders = Orders(shell)
        self._sessions: Sessions[S_co, C] = Sessions(shell, owner)

    @operation
    def get(self, payment_id: str) -> Steps[Payment]:
        return self._get(Payment, f"/v1/payments/{wire.segment(payment_id)}")

    @operation
    def receipt(self, payment_id: str) -> Steps[Receipt]:
        """What proves that a payment was settled on chain, to somebody who trusts only a node: see `Receipt.verify`."""
        return self._get(Receipt, f"/v1/payments/{wire.segment(payment_id)}/receipt")

    @listing
    def list(
        self,
        *,
        session: str | None = None,
        status: str | None = None,
        idempotency_key: str | None = None,
        limit: int | None = None,
    ) -> Listing[Payment]:
        """Newest pages first to last; `limit` is the size of a page, not of the list."""
        request = wire.get(
            "/v1/payments", session_id=session, status=status, idempotency_key=idempotency_key, limit=limit
        )
        return Listing(request, Payment)

    @operation
    def refund(
        self, payment_id: str, *, reason: str, amount: Amount | None = None, key: str | None = None
    ) -> Steps[Payment]:
        """Give a payment back, all that is left of it or `amount`: the payee's verb, while it is not yet in a batch.

        All of it is given back once, however often this is called; each call with an `amount` is a refund of its own.
        """
        if amount is None and key is None:
            key = derive.step("refund", payment_id, reason)
        body = {"reason": reason, "amount": None if amount is None else canonical(amount)}
        return self._move(Payment, f"/v1/payments/{wire.segment(payment_id)}/refund", body, key=key)

    @operation
    def redeem(self, payment_id: str, *, request_hash: str) -> Steps[Payment]:
        """Bind a payment to one request (`agentmarket.request_hash`): the payee's verb. Repeating it is no error."""
        path = f"/v1/payments/{wire.segment(payment_id)}/redeem"
        return self._fetch(Payment, wire.post(path, {"request_hash": request_hash}, repeatable=True))

    @operation
    def create_session(
        self,
        *,
        budget: Amount,
        currency: str = "USDC",
        policy: Mapping[str, Any] | None = None,
        pool: str | None = None,
        name: str | None = None,
        expires_at: str | None = None,
        key: str | None = None,
    ) -> Steps[OpenedSession[C]]:
        """Set a budget aside under a policy. It has its own key: `session.client()` spends it and nothing else.

        Each call opens another session; `key` repeats an earlier one.
        """
        body = {
            "budget": to_wire(budget, field="budget"),
            "currency": currency,
            "policy": None if policy is None else policy_document(policy),
            "pool_id": pool,
            "name": name,
            "expires_at": expires_at,
        }
        return self._sessions.opening(wire.post("/v1/sessions", body, key=one_key(key)))
