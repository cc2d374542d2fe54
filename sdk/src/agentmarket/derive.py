"""Idempotency keys that follow from what is asked: the same call has the same key in another process and after a crash.

Which verbs have one is decided where the verbs are; what an equal call means is here. The keys are the same in every
version of this package: a test holds fixed vectors. Change nothing here; a new meaning is a new first word.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from agentmarket import wire


def payment(
    *,
    session: str | None,
    to: str,
    amount: str,
    currency: str,
    metadata: Mapping[str, Any] | None,
    capability: str | None,
    kind: str = "payment",
) -> str:
    """The key of a payment, or with `kind` of the hold that becomes one. `amount` is canonical."""
    return _key(kind, session, to, amount, currency, metadata or {}, capability)


def call(payment_key: str, *, path: str, body: bytes) -> str:
    """The key of the payment for one request to an agent: `body` is the request's canonical JSON."""
    return _key("call", payment_key, path, hashlib.sha256(body).hexdigest())


def after_return(key: str, subject_id: str) -> str:
    """The next key once the payment (or hold) that `key` made gave all its money back: the same call pays anew."""
    return _key("again", key, subject_id)


def step(verb: str, subject_id: str, *facts: str | None) -> str:
    """The key of something that happens to a thing once: a hold's capture, a refund in full."""
    return _key(verb, subject_id, *facts)


def _key(*parts: object) -> str:
    """A JSON array cannot be read in two ways, so two different lists of parts are two different keys."""
    return f"am-{hashlib.sha256(wire.canonical(['agentmarket', 1, *parts])).hexdigest()}"
