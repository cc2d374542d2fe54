"""One effect for each Idempotency-Key. Lives here: the record of an answer, written with the effect it answers for.

Payments do not come through here: `escrow.payments.send` keeps their keys itself, in the payment's own row.

The record is inserted first, in the database transaction of the effect. A duplicate that comes meanwhile waits on the
unique key: when the first commits it reads the stored answer, when the first fails it goes ahead itself. A refusal
rolls the record back together with everything else, so the same key may be sent again once the reason is gone.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast
from uuid import UUID

from django.db import connection, transaction
from rest_framework.request import Request

from escrow.errors import IdempotencyConflict
from marketplace.api.errors import Problem, invalid
from marketplace.api.parsing import canonical
from marketplace.models import IdempotencyRecord

_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")

_CLAIM: Final = """
INSERT INTO marketplace_idempotencyrecord (owner_id, key, request_hash, body) VALUES (%s, %s, %s, '')
ON CONFLICT (owner_id, key) DO NOTHING RETURNING id
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and the very bytes of a body, and whether they were given before."""

    status: int
    body: str
    replayed: bool = False


def key_of(request: Request) -> str:
    """Return the request's Idempotency-Key. Raises Problem when there is none, or none of the right form."""
    return check_key(request.META.get("HTTP_IDEMPOTENCY_KEY", ""))


def optional_key_of(request: Request) -> str:
    """Return the request's Idempotency-Key, or an empty text when it has none. Raises Problem for one of the wrong form."""
    return check_key(request.META["HTTP_IDEMPOTENCY_KEY"]) if "HTTP_IDEMPOTENCY_KEY" in request.META else ""


def check_key(key: str) -> str:
    """Return an Idempotency-Key of the right form. Raises Problem."""
    if not key:
        raise Problem(
            "idempotency_key_required", "This moves money: send an Idempotency-Key header, one for each effect."
        )
    if not _KEY.fullmatch(key):
        raise invalid("Idempotency-Key", "must be 1 to 255 visible ASCII characters", "a UUID, for example")
    return key


def hash_of(method: str, path: str, body: object) -> bytes:
    """Return the SHA-256 that tells whether two requests with one key are the same: method, path and canonical body."""
    digest = hashlib.sha256(f"{method} {path}\n".encode())
    digest.update(canonical(body))
    return digest.digest()


def fingerprint_of(owner_id: UUID, key: str, request_hash: bytes) -> bytes:
    """Return what tells one request from any other, for a person's approval: whose it is, its key and what it says."""
    return hashlib.sha256(f"{owner_id} {key}\n".encode() + request_hash).digest()


@transaction.atomic
def once(*, owner_id: UUID, key: str, request_hash: bytes, effect: Callable[[UUID], Answer]) -> tuple[Answer, UUID]:
    """Return the answer of the key's first request and the id of its record; have the effect when this is the first.

    Raises IdempotencyConflict when the key came with another request, and whatever the effect raises.
    """
    claimed = _claim(owner_id, key, request_hash)
    if claimed is None:
        earlier = IdempotencyRecord.objects.get(owner_id=owner_id, key=key)
        if bytes(earlier.request_hash) != request_hash:
            raise IdempotencyConflict(key)
        return Answer(cast("int", earlier.status), earlier.body, replayed=True), earlier.pk
    answer = effect(claimed)
    IdempotencyRecord.objects.filter(pk=claimed).update(status=answer.status, body=answer.body)
    return answer, claimed


def _claim(owner_id: UUID, key: str, request_hash: bytes) -> UUID | None:
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, [owner_id, key, request_hash])
        row = cursor.fetchone()
    return row[0] if row else None
