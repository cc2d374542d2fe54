"""What `payment.send` and `client.call` do: pay once for equal calls, then work; or hold, work, then capture. No I/O.

An order's key follows from what it says (`derive`), unless the caller gives one. An equal order finds the payment that was
made before. Only when that one gave all its money back is there another, with the next key.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

from agentmarket import derive, errors, wire
from agentmarket.amounts import canonical, micros
from agentmarket.answers import Hold, Payment, Sent
from agentmarket.decode import decode
from agentmarket.operations import Listing, Resource, Shell, page
from agentmarket.resources.holds import Holds, awaits
from agentmarket.resources.policies import Amount
from agentmarket.steps import Answered, Fulfil, ReadClock, Steps, answered, one_key, stating

P = TypeVar("P", bound=Payment | Hold)

#: equal orders in a row whose money all came back; the next one needs a key of its own
MOST_RETURNED = 50


@dataclass(frozen=True, kw_only=True)
class Order:
    """One call of `send`, checked. `key` is the caller's own, or None: then it follows from the rest."""

    body: Mapping[str, Any]
    base_key: str
    derived: bool
    on_success: Callable[[], object] | None = field(default=None, repr=False)
    charge: Callable[[Any], Amount] | None = field(default=None, repr=False)
    hold: bool = False

    @property
    def amount(self) -> str:
        return str(self.body["amount"])


def order(
    *,
    to: str,
    amount: Amount,
    currency: str = "USDC",
    metadata: Mapping[str, Any] | None = None,
    on_success: Callable[[], object] | None = None,
    session: str | None = None,
    capability: str | None = None,
    key: str | None = None,
    capture: Literal["on_success"] | None = None,
    charge: Callable[[Any], Amount] | None = None,
    expires_in_seconds: int | None = None,
    call: tuple[str, bytes] | None = None,
) -> Order:
    """Check a call of `send`. Raises InvalidRequest or InvalidAmount, before anything is sent.

    `call` is the path and the canonical body of the request that is bought, when there is one.
    """
    _check(on_success, capture, charge, expires_in_seconds)
    # A copy, so that a halted order goes on as it was said, whatever becomes of the caller's own.
    metadata = json.loads(wire.encode(metadata)) if metadata else None
    said: dict[str, Any] = {
        "session": session, "to": to, "amount": canonical(amount), "currency": currency, "metadata": metadata,
        "capability": capability,
    }  # fmt: skip
    if key is not None:
        base = one_key(key)
    else:
        base = derive.payment(**said, kind="payment" if capture is None else "hold")
        base = base if call is None else derive.call(base, path=call[0], body=call[1])
    return Order(
        body={
            "to": to,
            "amount": said["amount"],
            "currency": currency,
            "metadata": metadata,
            "session_id": session,
            "capability": capability,
            "expires_in_seconds": expires_in_seconds,
        },
        base_key=base,
        derived=key is None,
        on_success=on_success,
        charge=charge,
        hold=capture is not None,
    )


class Orders(Resource[Shell]):
    def deliver(self, order: Order) -> Steps[Sent[Any]]:
        """Everything `send` does: pay and then work, or hold, work and then capture."""
        started = yield ReadClock()
        if order.hold:
            held, key = yield from self._obtain(order, Hold, "/v1/holds")
            elapsed = (yield ReadClock()) - started
            return (yield from self._fulfil_held(order, held, key, elapsed))
        paid, key = yield from self._obtain(order, Payment, "/v1/payments")
        elapsed = (yield ReadClock()) - started
        value = None if order.on_success is None else (yield from _fulfil_paid(order.on_success, paid.answer, key))
        return Sent(payment=paid.answer, value=value, key=key, elapsed=elapsed, replayed=paid.replayed)

    def _obtain(self, order: Order, kind: type[P], path: str) -> Steps[tuple[Answered[P], str]]:
        """The payment or hold, new or found, and its key. A halt here goes on with the whole order: nothing ran yet."""
        try:
            return (yield from self._first_that_counts(order, kind, path))
        except errors.ApprovalRequired as required:
            awaits(self, required)
            required.goes_on(lambda: self.deliver(order))
            raise
        except errors.BudgetExhausted as exhausted:
            exhausted.goes_on(lambda: self.deliver(order))
            raise
        except errors.OutcomeUnknown as unknown:
            key = unknown.key or order.base_key
            unknown.goes_on(lambda: self.deliver(order))
            unknown.is_found_by(_nothing_charged if order.hold else (lambda: self._find(order, key)))
            raise

    def _first_that_counts(self, order: Order, kind: type[P], path: str) -> Steps[tuple[Answered[P], str]]:
        key = order.base_key
        for _ in range(MOST_RETURNED):
            request = wire.post(path, order.body, key=key)
            found = yield from answered(request, self._shell.retries, lambda document: decode(kind, document))
            if not found.replayed or not (order.derived or order.hold):
                return found, key
            now = yield from self._now(found.answer, path, key)
            if not now.is_returned:
                return Answered(now, replayed=True), key
            if not order.derived:
                raise errors.Conflict(f"Hold {now.id} of this key was {now.status}: use another key.", key=key)
            key = derive.after_return(key, now.id)
        raise errors.Conflict(
            f"{MOST_RETURNED} equal payments were each returned: pass key= to make another.", outcome="not_charged"
        )

    def _now(self, made: P, path: str, key: str) -> Steps[P]:
        """What became of something that was made before: a repeated answer only tells how it was made."""
        outcome: errors.Outcome = "unknown" if isinstance(made, Hold) else "charged"
        try:
            return (yield from stating(outcome, self._get(type(made), f"{path}/{wire.segment(made.id)}")))
        except errors.AgentMarketError as error:
            error.key = key
            raise

    def _find(self, order: Order, key: str) -> Steps[Payment | None]:
        request = wire.get("/v1/payments", idempotency_key=key, session_id=order.body.get("session_id"))
        found = yield from page(Listing(request, Payment), self._shell.retries, after=None)
        return found.items[0] if found.items else None

    def _fulfil_held(self, order: Order, held: Answered[Hold], key: str, elapsed: float) -> Steps[Sent[Any]]:
        hold = held.answer
        if hold.payment_id is not None:
            reading = self._get(Payment, f"/v1/payments/{wire.segment(hold.payment_id)}")
            paid = yield from stating("charged", reading)
            value = yield from _fulfil_paid(cast("Callable[[], object]", order.on_success), paid, key)
            return Sent(payment=paid, value=value, key=key, elapsed=elapsed, replayed=True)
        value, amount = yield from self._work(order, hold)
        return (yield from self._captured(hold, value, amount, key, elapsed))

    def _work(self, order: Order, hold: Hold) -> Steps[tuple[Any, str | None]]:
        """What the caller's function returned and what it costs. When anything of it raises, the money is given back."""
        try:
            value = yield Fulfil(cast("Callable[[], object]", order.on_success))
            charge = order.charge
            if charge is None:
                return value, None
            return value, _within(order.amount, (yield Fulfil(lambda: charge(value))))
        except Exception as raised:
            released = yield from self._released(hold)
            fate = (
                "was released" if released else f"could not be released, and comes back by itself at {hold.expires_at}"
            )
            error = errors.OnSuccessFailed(
                f"on_success raised {type(raised).__name__}: {raised}. The hold {hold.id} of {hold.amount} {fate}.",
                outcome="not_charged",
            )
            error.hold, error.released = hold, released
            raise error from raised

    def _released(self, hold: Hold) -> Steps[bool]:
        try:
            return (yield from Holds(self._shell).releasing(hold.id)).status == "released"
        except errors.AgentMarketError:
            return False

    def _captured(self, hold: Hold, value: Any, amount: str | None, key: str, elapsed: float) -> Steps[Sent[Any]]:
        """Capture, or say what became of the money. A halt here goes on with the capture alone: the work is done."""
        try:
            paid = yield from Holds(self._shell).capturing(hold.id, amount)
        except errors.OutcomeUnknown as unknown:
            unknown.goes_on(lambda: self._captured(hold, value, amount, key, elapsed))
            raise
        except errors.AgentMarketError as refused:
            other = (yield from self._captured_by_another(hold)) if isinstance(refused, errors.Conflict) else None
            if other is not None:
                return Sent(payment=other, value=value, key=key, elapsed=elapsed, replayed=True)
            error = errors.CaptureFailed(
                f"on_success returned, and hold {hold.id} was not captured: {refused.detail}",
                status=refused.status,
                retryable=refused.retryable,
                outcome=refused.outcome,
                next_actions=refused.next_actions,
                request_id=refused.request_id,
                key=key,
            ).goes_on(lambda: self._captured(hold, value, amount, key, elapsed))
            error.hold, error.value = hold, value
            raise error from refused
        return Sent(payment=paid, value=value, key=key, elapsed=elapsed)

    def _captured_by_another(self, hold: Hold) -> Steps[Payment | None]:
        """The payment, when an equal call that ran at the same time has captured the hold; None when nothing says so."""
        try:
            return (yield from Holds(self._shell).payment_of(hold.id))
        except errors.AgentMarketError:
            return None


def _check(on_success: object, capture: object, charge: object, expires_in_seconds: object) -> None:
    if capture not in (None, "on_success"):
        raise errors.InvalidRequest('capture is "on_success", or left out.', outcome="not_charged")
    if capture is not None and on_success is None:
        raise errors.InvalidRequest('capture="on_success" needs on_success=.', outcome="not_charged")
    if capture is None and (charge is not None or expires_in_seconds is not None):
        raise errors.InvalidRequest(
            'charge= and expires_in_seconds= are for a hold: add capture="on_success".', outcome="not_charged"
        )


def _within(held: str, asked: Amount) -> str:
    amount = canonical(asked, field="charge")
    if micros(amount) > micros(held):
        raise errors.InvalidAmount(f"charge said {amount}, and {held} is held.", field="charge", would_pass=held)
    return amount


def _nothing_charged() -> Steps[None]:
    """A hold charges nothing: if it is there, it is found by the same call, or comes back by itself."""
    return None
    yield


def _fulfil_paid(on_success: Callable[[], object], payment: Payment, key: str) -> Steps[Any]:
    """Run the caller's function, once, now that the payment is accepted."""
    try:
        return (yield Fulfil(on_success))
    except Exception as raised:
        error = errors.OnSuccessFailed(
            f"Payment {payment.id} of {payment.amount} was accepted, then on_success raised "
            f"{type(raised).__name__}: {raised}. Call your function again, or repeat the same call: it is paid already.",
            outcome="charged",
            next_actions=payment.next_actions,
            key=key,
        )
        error.payment = payment
        raise error from raised
