"""Payments as verbs: the steps of sending one, and reading, refunding and redeeming them."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from agentmarket import errors, wire
from agentmarket.amounts import to_wire
from agentmarket.answers import Payment, Sent, Session
from agentmarket.operations import Listing, Resource, S_co, listing, operation
from agentmarket.proofs import Receipt
from agentmarket.steps import Fulfil, ReadClock, Steps, one_key

Amount = str | Decimal


class Payments(Resource[S_co]):
    @operation
    def get(self, payment_id: str) -> Steps[Payment]:
        return self._get(Payment, f"/v1/payments/{wire.segment(payment_id)}")

    @operation
    def receipt(self, payment_id: str) -> Steps[Receipt]:
        """What proves that a payment was settled on chain, to somebody who trusts only a node: see `Receipt.verify`."""
        return self._get(Receipt, f"/v1/payments/{wire.segment(payment_id)}/receipt")

    @listing
    def list(
        self, *, session: str | None = None, status: str | None = None, limit: int | None = None
    ) -> Listing[Payment]:
        """Newest pages first to last; `limit` is the size of a page, not of the list."""
        return Listing(wire.get("/v1/payments", session_id=session, status=status, limit=limit), Payment)

    @operation
    def refund(self, payment_id: str, *, reason: str, key: str | None = None) -> Steps[Payment]:
        """Give a payment back: the payee's verb, while the payment is not yet in a batch."""
        return self._move(Payment, f"/v1/payments/{wire.segment(payment_id)}/refund", {"reason": reason}, key=key)

    @operation
    def redeem(self, payment_id: str, *, request_hash: str) -> Steps[Payment]:
        """Bind a payment to one request (`agentmarket.request_hash`): the payee's verb. Repeating it is no error."""
        path = f"/v1/payments/{wire.segment(payment_id)}/redeem"
        return self._fetch(Payment, wire.post(path, {"request_hash": request_hash}, repeatable=True))

    def sending(
        self,
        *,
        to: str,
        amount: Amount,
        currency: str = "USDC",
        metadata: Mapping[str, Any] | None = None,
        on_success: Callable[[], object] | None = None,
        session: str | None = None,
        key: str | None = None,
    ) -> Steps[Sent[Any]]:
        key = one_key(key)
        body = {
            "to": to,
            "amount": to_wire(amount),
            "currency": currency,
            "metadata": metadata,
            "session_id": session,
        }
        request = wire.post("/v1/payments", body, key=key)
        started = yield ReadClock()
        payment = yield from self._fetch(Payment, request)
        elapsed = (yield ReadClock()) - started
        value = None if on_success is None else (yield from _fulfil(on_success, payment, key))
        return Sent(payment=payment, value=value, key=key, elapsed=elapsed)

    def opening_session(
        self,
        *,
        budget: Amount,
        currency: str = "USDC",
        policy: Mapping[str, Any] | None = None,
        pool: str | None = None,
        name: str | None = None,
        expires_at: str | None = None,
        key: str | None = None,
    ) -> Steps[Session]:
        body = {
            "budget": to_wire(budget, field="budget"),
            "currency": currency,
            "policy": None if policy is None else policy_document(policy),
            "pool_id": pool,
            "name": name,
            "expires_at": expires_at,
        }
        return self._move(Session, "/v1/sessions", body, key=key)


_AMOUNTS = ("max_per_tx", "max_total", "max_per_hour", "max_per_day", "approval_above", "new_recipient_max")


def policy_document(policy: Mapping[str, Any]) -> dict[str, Any]:
    """The policy as sent: the same rules, with amounts checked here, so that no float becomes a limit."""
    return {
        rule: to_wire(limit, field=f"policy.{rule}") if _is_amount(rule, limit) else limit
        for rule, limit in policy.items()
    }


def _is_amount(rule: str, limit: object) -> bool:
    return limit is not None and rule in _AMOUNTS


def _fulfil(on_success: Callable[[], object], payment: Payment, key: str) -> Steps[Any]:
    """Run the caller's function, once, now that the payment is accepted."""
    try:
        return (yield Fulfil(on_success))
    except Exception as raised:
        error = errors.OnSuccessFailed(
            f"Payment {payment.id} of {payment.amount} was accepted, then on_success raised "
            f"{type(raised).__name__}: {raised}. Call your function again; sending again would pay again.",
            outcome="charged",
            next_actions=payment.next_actions,
            key=key,
        )
        error.payment = payment
        raise error from raised
