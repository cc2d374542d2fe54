"""HTTP/1.1, as little of it as a load needs: requests made once, and answers of which only status and length are read."""

import json
import re
from typing import Any, Final
from urllib.parse import urlsplit

from benchmarks.load.plan import Caller, Plan

_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_LOWER: Final = b"\r\ncontent-length: "


class Unreadable(Exception):
    """An answer that is not HTTP/1.1 with a Content-Length."""


class Template:
    """A request of which only the number in its Idempotency-Key changes."""

    __slots__ = ("head", "tail")

    def __init__(self, plan: Plan, token: str, path: str, body: dict[str, Any]) -> None:
        """Write all of it but the number."""
        content = json.dumps(body, separators=(",", ":")).encode()
        self.head = (
            f"POST {path} HTTP/1.1\r\nHost: {urlsplit(plan.url).netloc}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\nIdempotency-Key: {plan.key}"
        ).encode()
        self.tail = b"\r\n\r\n" + content

    def request(self, number: int) -> bytes:
        """Return the request with a number."""
        return b"%b%d%b" % (self.head, number, self.tail)


def payment(plan: Plan, caller: Caller) -> Template:
    """Return the payment that a caller sends again and again."""
    body: dict[str, Any] = {"to": caller.to, "amount": caller.amount}
    if plan.metadata:
        body["metadata"] = dict(plan.metadata)
    if caller.session_id is not None:
        body["session_id"] = caller.session_id
    return Template(plan, caller.token, plan.path, body)


def refund(plan: Plan, caller: Caller, paid: bytes, number: int) -> bytes:
    """Return the request with which the provider gives a payment back, from the answer that the payment had."""
    path = f"{plan.path}/{json.loads(paid)['id']}/refund"
    return Template(plan, str(caller.refund_token), path, {"reason": "not needed"}).request(number)


def extent(received: bytes) -> tuple[int, int] | None:
    """Return where the body of the first answer begins and ends; None while its head is not complete.

    Raises Unreadable for an answer whose end cannot be known.
    """
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    at = received.find(_LOWER, 0, end)
    if at >= 0:
        begin = at + len(_LOWER)
        length = int(received[begin : received.find(b"\r", begin)])
    else:
        found = _LENGTH.search(received, 0, end + 2)
        if found is None or not received.startswith(b"HTTP/1.1 "):
            raise Unreadable(received[:200].decode("latin-1"))
        length = int(found[1])
    return end + 4, end + 4 + length


def code_of(status: bytes, body: bytes) -> str:
    """Return the code of a problem document, or the status of any other answer."""
    try:
        return str(json.loads(body)["code"])
    except (ValueError, KeyError, TypeError):
        return status.decode("latin-1")
