"""Buying one call over HTTP: pay, ask the agent, and know in each case what became of the money. No I/O."""

import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from agentmarket import errors, wire
from agentmarket.answers import Payment
from agentmarket.retries import Retries
from agentmarket.steps import Steps, exchange
from agentmarket.wire import Reply, Request


def url_of(agent: str, endpoint: str | None, path: str) -> str:
    """Where to post. Raises InvalidRequest, before anything is paid, for an agent that is not called over HTTP."""
    parts = urlsplit(endpoint or "")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise errors.InvalidRequest(f"{agent} has no HTTP endpoint: give it a task instead.", outcome="not_charged")
    if _is_link_local(parts.hostname):
        raise errors.InvalidRequest(f"{agent} names a link-local address: not called.", outcome="not_charged")
    return f"{(endpoint or '').rstrip('/')}/{path.lstrip('/')}"


def ask(url: str, body: bytes, payment: Payment, *, timeout: float) -> Request:
    """The paid request. It may be repeated, because the agent answers a payment with the same request once."""
    return Request(
        "POST",
        url,
        body=body,
        repeatable=True,
        foreign=True,
        headers=((wire.PAYMENT_HEADER, payment.id),),
        timeout=timeout,
    )


def delivered(request: Request, retries: Retries) -> Steps[Any]:
    """The agent's JSON, or the error that tells why there is none."""
    reply: Reply = yield from exchange(request, retries)
    return wire.read(reply)


def call_failed(agent: str, cause: errors.AgentMarketError, payment: Payment) -> errors.CallFailed:
    """What became of the money is read from the payment, the market's word, and not from what the agent says."""
    refunded = payment.status == "refunded"
    fate = "was refunded" if refunded else "was not refunded"
    error = errors.CallFailed(
        f"{agent} did not deliver: {cause.detail.rstrip('.')}. Payment {payment.id} of {payment.amount} {fate}.",
        status=cause.status,
        retryable=cause.retryable and not refunded,
        outcome="not_charged" if refunded else "charged",
        next_actions=payment.next_actions or (() if refunded else _ways_on(payment)),
        request_id=cause.request_id,
        retry_after=cause.retry_after,
    )
    error.payment = payment
    error.problem = _problem(cause)
    return error


def _problem(cause: errors.AgentMarketError) -> Mapping[str, Any]:
    return {"code": cause.code, "status": cause.status, "detail": cause.detail}


def _ways_on(payment: Payment) -> tuple[errors.NextAction, ...]:
    return (
        errors.NextAction("POST", "/v1/disputes", f'have payment "{payment.id}" looked at'),
        errors.NextAction("call", "again", f'with payment="{payment.id}": it is not paid twice'),
    )


def _is_link_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_link_local
    except ValueError:
        return False
