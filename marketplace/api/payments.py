"""/v1/payments. Lives here: HTTP only; `escrow.payments` decides. `payments.send` is the one door to a new payment."""

from uuid import UUID

from escrow import payments, receipts, refunds
from marketplace import agents
from marketplace.api import auth, chain_shapes, scope, shapes, show, show_chain, show_sent
from marketplace.api.bodies import PaymentIn, Redemption
from marketplace.api.endpoint import Call, Endpoint, Reply, serves
from marketplace.api.pages import matching, page
from marketplace.api.queries import PaymentQuery
from marketplace.api.refund_shapes import RefundTerms


class Payments(Endpoint):
    """Payments: an amount from a session to an agent, one call at a time."""

    @serves(auth.BUYER, body=PaymentIn, answer=shapes.Payment, status=201, money=True, keeps_key=True, pays=True)
    def post(self, call: Call) -> Reply:
        """Pay an agent from a session.

        The amount leaves the session at once and is owed to the agent's provider; it lands on chain with a later
        batch. The answer to a repeated request is the answer to the first.
        """
        session_id = scope.spending_session_id(call.actor, call.body.session_id, call.idempotency_key)
        call.about.session_id = str(session_id)
        party_id, provider_id = agents.payee(uri=call.body.to, capability=call.body.capability)
        sent = payments.send(
            session_id=session_id,
            party_id=party_id,
            to=call.body.to,
            amount_micros=call.body.amount,
            metadata=call.body.metadata,
            idempotency_key=call.idempotency_key,
            request_hash=call.request_hash,
            capability=call.body.capability or "",
        )
        paid = sent.payment
        shown = show_sent.sent(
            id=paid.pk,
            session_id=session_id,
            to=paid.to,
            provider_id=provider_id,
            amount_micros=paid.amount_micros,
            metadata=call.body.metadata,
            capability=paid.capability,
            created_at=paid.created_at,
            remaining_micros=paid.remaining_micros,
        )
        return Reply(shown, replayed=sent.replayed)

    @serves(auth.ANYONE, query=PaymentQuery, answer=shapes.PaymentPage)
    def get(self, call: Call) -> shapes.PaymentPage:
        """List payments: a buyer's own, or those to a provider."""
        rows = matching(scope.payments(call.actor), call.query, "session_id", "status")
        if call.query.idempotency_key is not None:
            rows = scope.keyed(rows, call.actor, call.query.idempotency_key)
        return shapes.PaymentPage(**page(rows, call.query, lambda found: show.payments(found, call.actor)))


class OnePayment(Endpoint):
    """One payment."""

    @serves(auth.ANYONE, answer=shapes.Payment)
    def get(self, call: Call, payment_id: UUID) -> shapes.Payment:
        """Read a payment."""
        return show.payment(scope.one(scope.payments(call.actor), payment_id), call.actor)


class Receipt(Endpoint):
    """The proof of a payment."""

    @serves(auth.ANYONE, answer=chain_shapes.Receipt)
    def get(self, call: Call, payment_id: UUID) -> chain_shapes.Receipt:
        """Prove a payment against the chain, with no trust in this service.

        The leaf and its siblings lead to the root that the authorizer signed; once the batch has landed, the contract's
        event names the same root. A payment that is in no signed batch yet is refused as not_settled_yet, and
        `settles_by` says when it is due at the latest.
        """
        found = scope.one(scope.payments(call.actor), payment_id)
        return show_chain.receipt(found, receipts.prove(payment=found, now=call.now))


class Redeem(Endpoint):
    """What a payment buys."""

    @serves(auth.PROVIDER, body=Redemption, answer=shapes.Payment)
    def post(self, call: Call, payment_id: UUID) -> shapes.Payment:
        """Bind a payment to the one request that it buys.

        The same request hash again is a retry and succeeds; another hash is refused as already_redeemed.
        """
        found = scope.one(scope.payments(call.actor), payment_id)
        redeemed = payments.redeem(
            payment=found, party_id=call.actor.provider.party_id, request_hash=call.body.request_hash, now=call.now
        )
        before = redeemed.redeemed_at != call.now
        return show.payment(redeemed, call.actor).model_copy(update={"redeemed_before": before})


class Refund(Endpoint):
    """Giving a payment back."""

    @serves(auth.PROVIDER, body=RefundTerms, answer=shapes.Payment, money=True)
    def post(self, call: Call, payment_id: UUID) -> shapes.Payment:
        """Give a payment back to its session, all that is left of it or an amount.

        Before it is in a batch it comes off what is owed for it. Once it has landed it is paid out of what the same pool
        owes you and has not settled; when that is too little, `would_allow` says how much can go back now.
        """
        found = scope.one(scope.payments(call.actor), payment_id)
        refunds.pay(payment=found, amount_micros=call.body.amount, reason=call.body.reason, now=call.now)
        return show.payment(scope.one(scope.payments(call.actor), payment_id), call.actor)
