"""API keys. Lives here: their form, issuing, checking, rotating, revoking. What each scope may reach is `marketplace.api`'s to
say.

A key reads ``am_test_<id>_<secret><check>``: 12 characters of id, 32 of secret (160 random bits), 6 of check, all in
base32 (RFC 4648) lower case. The database has the id and HMAC-SHA256(pepper, secret). 160 bits need no slow hash:
guessing is hopeless, and a slow hash would cost each call 0.2 s. The check tells a mistyped key from an unknown one
without a query.
"""

import base64
import hashlib
import hmac
import re
import secrets
import zlib
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final, Literal
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from escrow import sessions
from escrow.errors import EscrowError, InvalidInput, StateConflict
from escrow.models import Pool, Session
from escrow.policy import Policy
from marketplace.models import ApiKey, Payer, Provider, Scope

BASE_MAINNET: Final = 8453
"""The chain on which keys spend real money, so their prefix says ``live``."""

USE_IS_NOTED_EVERY: Final = timedelta(minutes=1)
"""``last_used_at`` is for people: one write a minute is enough, and keeps the row out of the way of payments."""

OVERLAP: Final = timedelta(hours=1)
"""How long a rotated key still opens when nobody says otherwise: time to put the new one in its place."""
OVERLAP_MAX: Final = timedelta(days=7)

_ID, _SECRET, _CHECK = 12, 32, 6
_FORM: Final = re.compile(rf"(am_(?:test|live)_([a-z2-7]{{{_ID}}})_([a-z2-7]{{{_SECRET}}}))([a-z2-7]{{{_CHECK}}})")


class Unauthenticated(EscrowError):
    """No key, or one that opens nothing: mistyped, unknown, revoked or expired."""

    code = "unauthenticated"


def issue(
    *,
    scope: Scope | Literal["payer", "session", "provider"],
    now: datetime,
    payer: Payer | None = None,
    provider: Provider | None = None,
    session: Session | None = None,
    read_only: bool = False,
    name: str = "",
    expires_at: datetime | None = None,
    ceiling_micros: int | None = None,
    rotated_from: ApiKey | None = None,
    opened_by: ApiKey | None = None,
    seed: UUID | None = None,
) -> tuple[ApiKey, str]:
    """Make a key and return it with its clear text, which nobody can read again.

    A session key names its session; the payer is the owner of the session's pool. With a ``seed`` id and secret come
    from `derive`, so that the same seed gives the same text.
    """
    if expires_at is not None and expires_at <= now:
        raise InvalidInput("expires_at", "must be in the future", "a later time, or none")
    if session is not None and payer is None:
        payer = Payer.objects.get(pk=session.pool.payer_id)
    key_id, secret = derive(seed) if seed else (_base32(secrets.token_bytes(8))[:_ID], _base32(secrets.token_bytes(20)))
    key = ApiKey.objects.create(
        key_id=key_id,
        secret_hash=_hash(secret),
        scope=Scope(scope),
        read_only=read_only,
        name=name,
        payer=payer,
        provider=provider,
        session=session,
        ceiling_micros=ceiling_micros,
        rotated_from=rotated_from,
        opened_by=opened_by,
        expires_at=expires_at,
    )
    return key, text_of(key_id, secret)


@transaction.atomic
def issue_with_ceiling(
    *,
    session: Session,
    ceiling_micros: int,
    now: datetime,
    name: str = "",
    expires_at: datetime | None = None,
    seed: UUID | None = None,
) -> tuple[ApiKey, str]:
    """Make a key that spends so much of a session and no more: from a session inside it, which holds just that.

    So the cap is a balance, and no counter beside one. Raises what `sessions.open_child` raises.
    """
    child = sessions.open_child(
        parent=session, budget_micros=ceiling_micros, policy=Policy(), now=now, name=name, expires_at=expires_at
    )
    return issue(
        scope=Scope.SESSION,
        session=child,
        ceiling_micros=ceiling_micros,
        name=name,
        expires_at=expires_at,
        now=now,
        seed=seed,
    )


@transaction.atomic
def rotate(*, key: ApiKey, now: datetime, overlap: timedelta = OVERLAP, seed: UUID | None = None) -> tuple[ApiKey, str]:
    """Make the key that takes another's place, with all that one may and its end, and let that one end after the overlap.

    Two keys of a line are live at most: one that still overlaps with ``key`` ends now. Raises StateConflict for a key that
    has ended, or that has a successor: that one is the key to rotate.
    """
    if not timedelta() <= overlap <= OVERLAP_MAX:
        raise InvalidInput("overlap_seconds", "must be 0 to 604800", "3600, or 0 to end the old key at once")
    old = ApiKey.objects.select_for_update().get(pk=key.pk)
    if old.revoked_at is not None or (old.expires_at is not None and old.expires_at <= now):
        state = "revoked" if old.revoked_at else "expired"
        raise StateConflict("key", state, f"This key is {state}; issue another one.")
    if ApiKey.objects.filter(rotated_from=old).exists():
        raise StateConflict("key", "rotated", "This key has a successor already; rotate that one, or issue another.")
    made = issue(
        scope=Scope(old.scope),
        payer=old.payer,
        provider=old.provider,
        session=old.session,
        read_only=old.read_only,
        name=old.name,
        expires_at=old.expires_at,
        ceiling_micros=old.ceiling_micros,
        rotated_from=old,
        opened_by=old.opened_by,
        now=now,
        seed=seed,
    )
    later = Q(expires_at__isnull=True) | Q(expires_at__gt=now + overlap)
    ApiKey.objects.filter(later, pk=old.pk).update(expires_at=now + overlap)
    # What ends now is revoked: an end is compared with the database's clock, which may be a moment behind ours.
    ended = Q(pk=old.rotated_from_id) if overlap else Q(pk=old.rotated_from_id) | Q(pk=old.pk)
    ApiKey.objects.filter(ended, revoked_at__isnull=True).update(revoked_at=now)
    return made


def open_session(
    *,
    pool: Pool | None = None,
    parent: Session | None = None,
    budget_micros: int,
    policy: Policy,
    now: datetime,
    name: str = "",
    expires_at: datetime | None = None,
    opened_by: ApiKey | None = None,
    seed: UUID | None = None,
) -> tuple[Session, str]:
    """Open a session in a pool, or inside another, and issue the key an agent spends it with.

    Both in one database transaction. Who revokes the session's key that asked for it (``opened_by``) revokes its key too.
    """
    given: dict[str, Any] = {
        "budget_micros": budget_micros,
        "policy": policy,
        "name": name,
        "expires_at": expires_at,
        "now": now,
    }
    with transaction.atomic():
        # Held until the new key is there, so that a revocation that waits for it revokes that too.
        live = ApiKey.objects.select_for_update(no_key=True).filter(revoked_at__isnull=True)
        if opened_by is not None and not live.filter(pk=opened_by.pk).exists():
            raise Unauthenticated("This API key has been revoked.")
        if parent is not None:
            session = sessions.open_child(parent=parent, **given)
        elif pool is not None:
            session = sessions.open(pool=pool, **given)
        else:
            raise ValueError("a session is in a pool or inside another session")
        _, text = issue(scope=Scope.SESSION, session=session, name=name, opened_by=opened_by, now=now, seed=seed)
    return session, text


def authenticate(*, token: str, now: datetime) -> ApiKey:
    """Return the live key of a clear text, in one query; its owners load when they are asked for.

    Raises Unauthenticated.
    """
    key_id, secret_hash = parse(token)
    key = ApiKey.objects.filter(key_id=key_id).order_by().first()
    if key is None or not hmac.compare_digest(bytes(key.secret_hash), secret_hash):
        raise Unauthenticated("No such API key.")
    if key.revoked_at is not None:
        raise Unauthenticated("This API key has been revoked.")
    if key.expires_at is not None and key.expires_at <= now:
        raise Unauthenticated("This API key has expired.")
    _note_use(key, now)
    return key


def parse(token: str) -> tuple[str, bytes]:
    """Return the public id in a clear text, and the hash that the database has of its secret. Raises Unauthenticated.

    Whether the key is live is not known from its text: that is asked on every call.
    """
    parts = _parts(token)
    if not token.startswith(prefix()):
        raise Unauthenticated(f"This key belongs to another network; keys here begin with {prefix()}.")
    return parts


@lru_cache(maxsize=10_000)
def _parts(token: str) -> tuple[str, bytes]:
    match = _FORM.fullmatch(token)
    if match is None or _check(match[1]) != match[4]:
        raise Unauthenticated("This is not an API key, or it was mistyped: its check characters do not fit.")
    return match[2], _hash(match[3])


def revoke(*, key: ApiKey, now: datetime) -> ApiKey:
    """Revoke a key at once, and the keys of sessions that it has opened; their next calls are refused.

    Revoking twice keeps the first time.

    What a key with a ceiling has left goes back to the session that it is of, unless a successor spends it. The key is revoked
    first and by itself: whatever keeps the money from moving does not keep the key alive. (One that expires needs nobody: its
    session ends at the same time.)
    """
    ApiKey.objects.filter(pk=key.pk, revoked_at__isnull=True).update(revoked_at=now)
    key.refresh_from_db(fields=["revoked_at"])
    opened = [key.pk]
    while opened:
        made = ApiKey.objects.filter(opened_by__in=opened)
        opened = list(made.values_list("pk", flat=True))
        made.filter(revoked_at__isnull=True).update(revoked_at=now)
    if key.ceiling_micros is not None and key.session is not None:
        line = ApiKey.objects.filter(session=key.session, ceiling_micros__isnull=False, revoked_at__isnull=True)
        if not line.filter(created_at__gt=key.created_at).exists():
            sessions.close(session=key.session, now=now)
    return key


def derive(seed: UUID) -> tuple[str, str]:
    """Return the id and secret that belong to a seed, under the pepper.

    The answer that opened a session shows its key once, and the same Idempotency-Key must get the same answer again.
    The clear text is not stored for that: it is computed again from the id of the idempotency record. Whoever has both
    the pepper and the database could compute it too; whoever has only one of them cannot.
    """
    return _base32(_hmac(f"api-key-id:{seed}"))[:_ID], _base32(_hmac(f"api-key-secret:{seed}"))[:_SECRET]


def prefix() -> str:
    """Return how keys of this network begin."""
    return "am_live_" if settings.CHAIN_ID == BASE_MAINNET else "am_test_"


def text_of(key_id: str, secret: str) -> str:
    """Return the clear text of an id and a secret."""
    body = f"{prefix()}{key_id}_{secret}"
    return body + _check(body)


def _check(body: str) -> str:
    return _base32(zlib.crc32(body.encode()).to_bytes(4))[:_CHECK]


def _base32(raw: bytes) -> str:
    return base64.b32encode(raw).decode().lower()


def _hash(secret: str) -> bytes:
    return _hmac(secret)


def _hmac(text: str) -> bytes:
    return hmac.digest(settings.API_KEY_PEPPER.encode(), text.encode(), hashlib.sha256)


def _note_use(key: ApiKey, now: datetime) -> None:
    stale = now - USE_IS_NOTED_EVERY
    if key.last_used_at is None or key.last_used_at < stale:
        unused = Q(last_used_at__isnull=True) | Q(last_used_at__lt=stale)
        ApiKey.objects.filter(unused, pk=key.pk).update(last_used_at=now)
