"""A paid call: check the payment with the market, do the work, and give the money back when there is nothing for it.

Which path leads here, and how bytes come and go, is `seller` and `asgi`.
"""

import asyncio
import inspect
import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from agentmarket import asgi, errors
from agentmarket.amounts import micros
from agentmarket.answers import Payment
from agentmarket.asgi import Response
from agentmarket.client import Client
from agentmarket.replays import Served

log = logging.getLogger("agentmarket.seller")

Work: TypeAlias = Callable[[Any], Awaitable[Any] | Any]


class Unserviceable(Exception):
    """Raise it from your function for what cannot be served: the payment is refunded, the buyer gets a 422."""


@dataclass(frozen=True)
class PaidCall:
    """One priced path of a seller."""

    agent: str
    path: str
    price: str
    function: Work
    #: seconds the function may take; then the payment is refunded
    timeout: float

    def payment_required(self, market: str) -> Response:
        how = f"pay {self.price} USDC to {self.agent}, then send this again with Agent-Payment: <the payment's id>"
        return asgi.problem(
            402,
            "payment_required",
            f"This call costs {self.price} USDC: {how}.",
            price=self.price,
            currency="USDC",
            agent=self.agent,
            market=market,
            retryable=True,
            outcome="not_charged",
            next_actions=[{"method": "POST", "path": "/v1/payments", "why": how}],
        )

    async def serve(self, client: Client, payment_id: str, request_hash: str, document: Any) -> Served:
        """Redeem the payment for this request, check that it is enough and ours, work, answer.

        A payment that was redeemed before may have been earned already, so nothing is refunded for it from here. One that
        goes back is redeemed first too: then nobody else works for it meanwhile.
        """
        try:
            payment = await client.payment.redeem(payment_id, request_hash=request_hash)
        except errors.AgentMarketError as error:
            return Served(_not_redeemed(error), final=False)

        async def no(status: int, code: str, detail: str) -> Served:
            if payment.redeemed_before:
                return _kept(payment, status, code, detail)
            return await refuse(client, payment, status, code, detail)

        if (fault := self._fault(payment)) is not None:
            return await no(402, "payment_insufficient", fault)
        try:
            result = await asyncio.wait_for(run(self.function, document), self.timeout)
            return Served(asgi.answer(200, result), final=True)
        except Unserviceable as reason:
            return await no(422, "unserviceable", str(reason) or "This request cannot be served.")
        except TimeoutError:
            return await no(504, "took_too_long", f"No result within {self.timeout:g} seconds.")
        except Exception:
            log.exception("%s%s failed for payment %s", self.agent, self.path, payment.id)
            return await no(500, "internal", "The agent failed; the fault is on its side.")

    def _fault(self, payment: Payment) -> str | None:
        if payment.to != self.agent:
            return f"The payment is to {payment.to}, and this is {self.agent}."
        if micros(payment.amount) < micros(self.price):
            return f"The payment is {payment.amount}, and this call costs {self.price} USDC."
        return None


def is_payment_id(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


async def run(function: Work, *arguments: Any) -> Any:
    """Call a function that is async, or else in a thread so that it holds nobody up."""
    if inspect.iscoroutinefunction(function):
        return await function(*arguments)
    result = await asyncio.to_thread(function, *arguments)
    return await result if inspect.isawaitable(result) else result


async def refuse(client: Client, payment: Payment, status: int, code: str, detail: str) -> Served:
    """Refund first, then say no. A refund that failed is said too."""
    try:
        await client.payment.refund(payment.id, reason=detail[:500], key=f"refund-{payment.id}")
    except errors.AgentMarketError as error:
        log.warning("payment %s was not refunded: %s", payment.id, error)
        note = f"The payment could not be refunded ({error.code})."
        return _charged(payment, status, code, f"{detail} {note}", retryable=error.retryable)
    response = asgi.problem(
        status, code, detail, outcome="not_charged", refunded_payment_id=payment.id, next_actions=[]
    )
    return Served(response, final=True)


def _kept(payment: Payment, status: int, code: str, detail: str) -> Served:
    if payment.is_returned:
        return Served(asgi.problem(status, code, detail, outcome="not_charged", next_actions=[]), final=False)
    log.warning("payment %s was used before, so it is not refunded: %s", payment.id, detail)
    return _charged(payment, status, code, f"{detail} The payment was used before, so it is not refunded by itself.")


def _charged(payment: Payment, status: int, code: str, detail: str, *, retryable: bool = False) -> Served:
    hint = {"method": "POST", "path": "/v1/disputes", "why": f"have payment {payment.id} looked at"}
    response = asgi.problem(
        status, code, detail, outcome="charged", payment_id=payment.id, next_actions=[hint], retryable=retryable
    )
    return Served(response, final=False)


def _not_redeemed(error: errors.AgentMarketError) -> Response:
    if isinstance(error, errors.Conflict):
        return asgi.problem(409, "payment_already_used", f"{error.detail} Pay again for another request.")
    if isinstance(error, errors.NotFound):
        return asgi.problem(
            402, "payment_unknown", "The market knows no such payment to this agent.", outcome="not_charged"
        )
    log.warning("a payment could not be checked: %s", error)
    wait = str(int(error.retry_after or 1))
    return asgi.problem(
        503,
        "market_unavailable",
        "The payment could not be checked with the market; no work was done. Send the same request again.",
        retryable=True,
        headers=(("Retry-After", wait),),
    )
