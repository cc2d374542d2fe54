"""Buying one call over HTTP: pay, ask the agent, and know in each case what became of the money. No I/O."""

import ipaddress
from collections.abc import Mapping
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from agentmarket import errors, wire
from agentmarket.answers import Payment
from agentmarket.retries import Retries
from agentmarket.steps import Resolve, Steps, exchange
from agentmarket.wire import Reply, Request

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
#: what `is_global` lets through, or does in some versions of Python: local NAT64, Teredo, site-local, IPv4-compatible
_NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("64:ff9b:1::/48", "2001::/32", "fec0::/10", "::/96", "192.88.99.0/24")))


def url_of(agent: str, endpoint: str | None, path: str) -> str:
    """Where to post. Raises InvalidRequest, before anything is paid, for an agent that is not called over HTTP."""
    parts = urlsplit(endpoint or "")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise errors.InvalidRequest(f"{agent} has no HTTP endpoint: give it a task instead.", outcome="not_charged")
    return f"{(endpoint or '').rstrip('/')}/{path.lstrip('/')}"


def require_outside(agent: str, url: str, *, market: str) -> Steps[None]:
    """Return when every address of the agent is a public one, so that no agent sends its buyers to their own network.

    A market that is itself on this machine or a private network may have its agents there too; nobody may have them at a
    link-local address, where the cloud keeps its credentials. Raises before anything is paid.
    """
    found = yield from _look_up(url)
    if not found:
        raise errors.Unreachable(
            f"The host of {agent}'s endpoint has no address.", retryable=True, outcome="not_charged"
        )
    inside = [address for address in found if not is_public(address)]
    if not inside:
        return
    at_home = (yield from _look_up(market)) if all(map(_may_be_home, inside)) else []
    if not any(map(_may_be_home, at_home)):
        raise errors.InvalidRequest(
            f"{agent} names an address that is not on the public internet ({inside[0]}): not called.",
            outcome="not_charged",
        )


def is_public(address: Address) -> bool:
    address = _innermost(address)
    return address.is_global and not (
        address.is_multicast
        or address.is_reserved
        or address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or any(address in network for network in _NOT_PUBLIC if network.version == address.version)
    )


def _may_be_home(address: Address) -> bool:
    address = _innermost(address)
    return address.is_loopback or (address.is_private and not (address.is_link_local or address.is_unspecified))


def _innermost(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for: mapped, NAT64 or 6to4."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _look_up(url: str) -> Steps[list[Address]]:
    host = urlsplit(url).hostname or ""
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        names: tuple[str, ...] = yield Resolve(host)
    return [ipaddress.ip_address(name) for name in names]


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
    refunded = payment.is_returned
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
