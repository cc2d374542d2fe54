"""The little of ASGI that a seller needs: read a body within bounds, answer JSON or a problem. No routes here."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Response:
    """A whole answer, ready to be given again."""

    status: int
    body: bytes = field(repr=False)
    headers: tuple[tuple[str, str], ...] = ()
    media_type: str = "application/json"


class BodyTooLarge(Exception):
    """The request's body is over the limit; the rest of it was not read."""


class Disconnected(Exception):
    """The other side went away before its request was whole."""


def answer(status: int, document: object) -> Response:
    """JSON. Raises TypeError or ValueError for what JSON cannot hold."""
    return Response(status, json.dumps(document, ensure_ascii=False, allow_nan=False).encode())


def problem(
    status: int, code: str, detail: str, *, headers: tuple[tuple[str, str], ...] = (), **facts: object
) -> Response:
    """An RFC 9457 problem, with the same members the market's own problems have."""
    document = {
        "type": "about:blank",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
        "retryable": False,
        **facts,
    }
    body = json.dumps(document, ensure_ascii=True).encode()
    return Response(status, body, headers, "application/problem+json")


async def read_body(receive: Receive, *, limit: int, seconds: float) -> bytes:
    """Raises BodyTooLarge after `limit` bytes, whatever the request promised, and TimeoutError after so many seconds."""
    body = bytearray()
    async with asyncio.timeout(seconds):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            body += message.get("body", b"")
            if len(body) > limit:
                raise BodyTooLarge
            if not message.get("more_body", False):
                return bytes(body)


async def respond(send: Send, response: Response, *, with_body: bool = True) -> None:
    headers = [
        (b"content-type", response.media_type.encode()),
        (b"content-length", str(len(response.body)).encode()),
        *((name.lower().encode(), value.encode()) for name, value in response.headers),
    ]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body if with_body else b""})


def headers_of(scope: Scope) -> dict[str, str]:
    """The request's headers by lower-case name; of a repeated one, the first."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    return found


def target_of(scope: Scope) -> str:
    """Path and query as they were sent: what a payment is bound to."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope.get("query_string", b"")
    return (raw.partition(b"?")[0] + (b"?" + query if query else b"")).decode("latin-1")
