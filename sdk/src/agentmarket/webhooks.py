"""Receiving events: is this message the market's, unchanged and of now? No I/O, and nothing but the standard library.

    event = agentmarket.webhooks.verify(body, headers, secret)

Messages are signed as Standard Webhooks says (standardwebhooks.com), so any library of that specification verifies them
too. A verified message may come more than once, when an answer was lost or somebody repeats it within the tolerance: keep
the ids that you have acted on (`event.id`, for longer than the tolerance), and do nothing for one that you have seen.
"""

import base64
import binascii
import hmac
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentmarket.answers import Event
from agentmarket.errors import AgentMarketError

#: seconds that a message may be old, or ahead of this machine's clock
TOLERANCE = 300

_PREFIX = "whsec_"
_LONGEST_ID = 256
_MOST_SIGNATURES = 32


class InvalidWebhook(AgentMarketError):
    """Not a message of the market's for this secret, or not of now. Answer 400 and do nothing."""

    default_code = "invalid_webhook"


@dataclass(frozen=True, kw_only=True)
class WebhookEvent(Event):
    """A verified event. `id` is the same whenever the same message comes; `position` is its place in `client.events()`."""

    id: str


def verify(
    body: bytes | str,
    headers: Mapping[str, str],
    secret: str | Sequence[str],
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
) -> WebhookEvent:
    """The event in a message, once its signature and its time are right. Raises InvalidWebhook, and nothing else.

    `body` is what came, byte for byte: not JSON that was parsed and written again. `headers` may be written in any case.
    Give several secrets while one replaces the other.
    """
    raw = body.encode(errors="surrogatepass") if isinstance(body, str) else body
    found = _headers(headers)
    id, moment = found["webhook-id"], found["webhook-timestamp"]
    if not 1 <= len(id) <= _LONGEST_ID or not id.isascii() or not id.isprintable():
        raise InvalidWebhook("The header webhook-id is not an id.")
    if not re.fullmatch(r"[0-9]{1,12}", moment, re.ASCII):
        raise InvalidWebhook("The header webhook-timestamp is not a number of seconds.")
    given = [part.partition(",") for part in found["webhook-signature"].split(" ", _MOST_SIGNATURES)[:_MOST_SIGNATURES]]
    secrets = [secret] if isinstance(secret, str) else [*secret]
    right = [sign(raw, id=id, timestamp=int(moment), secret=one).partition(",")[2].encode() for one in secrets]
    # Every pair is compared, each in constant time.
    matches = [
        hmac.compare_digest(mine, value.encode(errors="replace"))
        for version, _, value in given
        if version == "v1"
        for mine in right
    ]
    if not any(matches):
        raise InvalidWebhook("The signature is not this message's: it was changed, or signed with another secret.")
    age = (time.time() if now is None else now) - int(moment)
    if abs(age) > tolerance:
        raise InvalidWebhook(
            f"The message is {abs(age):.0f} seconds {'old' if age > 0 else 'ahead'}; {tolerance:g} may be."
        )
    return _event(id, raw)


def sign(body: bytes, *, id: str, timestamp: int, secret: str) -> str:
    """The signature of a message: ``v1,`` and base64 of HMAC-SHA256 over ``id.timestamp.body``. For tests of a receiver."""
    content = b"%s.%d.%s" % (id.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.digest(_key(secret), content, "sha256")).decode()


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise InvalidWebhook(
            f"The secret is not one: it begins with {_PREFIX}, as it was shown when the webhook was made."
        )
    return key


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    wanted = ("webhook-id", "webhook-timestamp", "webhook-signature")
    found: dict[str, str] = {}
    for name, value in headers.items():
        lowered = name.lower()
        if lowered in wanted and not isinstance(value, str):
            raise InvalidWebhook(f"The header {lowered} is not a text.")
        if lowered in wanted and found.setdefault(lowered, value) != value:
            raise InvalidWebhook(f"The header {lowered} comes twice.")
    for name in wanted:
        if name not in found:
            raise InvalidWebhook(f"The header {name} is missing.")
    return found


def _event(id: str, raw: bytes) -> WebhookEvent:
    try:
        content: Any = json.loads(raw)
        about = content["data"]
        return WebhookEvent(
            id=id,
            type=str(content["type"]),
            at=datetime.fromisoformat(content["timestamp"]),
            position=int(about["position"]),
            subject_type=str(about["subject_type"]),
            subject_id=str(about["subject_id"]),
            payload={**about["payload"]},
        )
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise InvalidWebhook("The message is the market's, and not one that this version knows how to read.") from None
