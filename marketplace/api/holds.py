"""/v1/holds. Lives here: HTTP only; `escrow.holds` decides. A task's hold is seen here, and moved by its task alone."""

from uuid import UUID

from escrow import holds
from marketplace import agents
from marketplace.api import auth, hold_shapes, idempotency, scope, shapes, show, show_holds
from marketplace.api.endpoint import Call, Endpoint, serves
from marketplace.api.hold_shapes import Capture, HoldIn, HoldPage, HoldQuery
from marketplace.api.pages import matching, page


class Holds(Endpoint):
    """Holds: money of a session set aside for an agent, and paid when its call has succeeded."""

    @serves(auth.BUYER, body=HoldIn, answer=hold_shapes.Hold, status=201, money=True, pays=True)
    def post(self, call: Call) -> hold_shapes.Hold:
        """Set money aside for an agent, under the session's policy.

        Capture it once the call has succeeded, all or an amount; the rest comes back. What nobody captures comes back by
        itself at `expires_at`.
        """
        body = call.body
        session = scope.spending_session(call.actor, body.session_id)
        call.about.session_id = str(session.pk)
        placed = holds.place(
            session=session,
            amount_micros=body.amount,
            party=agents.find(uri=body.to, capability=body.capability).provider.party,
            to=body.to,
            capability=body.capability or "",
            fingerprint=idempotency.fingerprint_of(call.actor.owner_id, call.idempotency_key, call.request_hash),
            metadata=body.metadata,
            expires_in=body.expires_in_seconds,
        )
        return _show(call, placed.pk)

    @serves(auth.ANYONE, query=HoldQuery, answer=HoldPage)
    def get(self, call: Call) -> HoldPage:
        """List holds: those of a buyer's sessions, or those for a provider."""
        rows = matching(scope.holds(call.actor), call.query, "session_id", "status")
        shown = page(
            rows,
            call.query,
            lambda found: [show_holds.hold(row, call.actor, call.now) for row in found],
            by=("created_at", "id"),
        )
        return HoldPage(**shown)


class OneHold(Endpoint):
    """One hold."""

    @serves(auth.ANYONE, answer=hold_shapes.Hold)
    def get(self, call: Call, hold_id: UUID) -> hold_shapes.Hold:
        """Read a hold, and what became of it."""
        return _show(call, hold_id)


class Captures(Endpoint):
    """The buyer pays."""

    @serves(auth.BUYER, body=Capture, answer=shapes.Payment, status=201, money=True, pays=True)
    def post(self, call: Call, hold_id: UUID) -> shapes.Payment:
        """Turn a hold, all of it or an amount, into a payment; the rest comes back.

        A hold is captured once. The policy was asked when it was placed.
        """
        found = scope.one(scope.holds(call.actor), hold_id)
        call.about.session_id = str(found.session_id)
        payment = holds.capture(hold=found, amount_micros=call.body.amount, now=call.now)
        return show.payment(scope.one(scope.payments(call.actor), payment.pk), call.actor)


class Release(Endpoint):
    """Nothing is paid."""

    @serves(auth.ANYONE, answer=hold_shapes.Hold, money=True)
    def post(self, call: Call, hold_id: UUID) -> hold_shapes.Hold:
        """Give a hold back before it expires: as its buyer, or as the provider that gives it up."""
        holds.release(hold=scope.one(scope.holds(call.actor), hold_id), now=call.now)
        return _show(call, hold_id)


def _show(call: Call, hold_id: UUID) -> hold_shapes.Hold:
    return show_holds.hold(scope.one(scope.holds(call.actor), hold_id), call.actor, call.now)
