"""/healthz and /readyz. Lives here: whether the process runs, and whether what it stands on is there."""

from datetime import datetime
from typing import Final

import redis
from django.conf import settings
from django.db import DatabaseError, connection

from escrow.models import ChainCursor
from marketplace.api import account_shapes, auth
from marketplace.api.endpoint import Call, Endpoint, Reply, serves

CHAIN_STALE_SECONDS: Final = 60
"""The indexer reads every half second; a minute without it means that nothing lands."""


class Health(Endpoint):
    """Whether the process runs."""

    @serves(auth.PUBLIC, answer=account_shapes.Health)
    def get(self, call: Call) -> account_shapes.Health:
        """Say that the process answers; nothing else is looked at."""
        return account_shapes.Health(status="ok")


class Ready(Endpoint):
    """Whether the service can do its work."""

    @serves(auth.PUBLIC, answer=account_shapes.Readiness)
    def get(self, call: Call) -> Reply:
        """Say whether database and Redis answer and the chain is being read; 503 when one of them is not so."""
        found = readiness(call.now)
        return Reply(found, status=200 if found.status == "ready" else 503)


def readiness(now: datetime) -> account_shapes.Readiness:
    """Return what is there and what is not."""
    cursor, database = _chain_cursor()
    queue = _redis_answers()
    age = max((now - cursor.read_at).total_seconds(), 0.0) if cursor else None
    reasons = []
    if not database:
        reasons.append("the database does not answer")
    if not queue:
        reasons.append("Redis does not answer")
    if age is None or age > CHAIN_STALE_SECONDS:
        reasons.append("the chain is not being read")
    elif cursor is not None and cursor.stopped_reason:
        reasons.append("reading the chain has stopped")
    return account_shapes.Readiness(
        status="not_ready" if reasons else "ready",
        database=database,
        redis=queue,
        chain_age_seconds=None if age is None else round(age, 3),
        reason="; ".join(reasons),
    )


def _chain_cursor() -> tuple[ChainCursor | None, bool]:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return ChainCursor.objects.filter(chain_id=settings.CHAIN_ID).order_by("-read_at").first(), True
    except DatabaseError:
        return None, False


def _redis_answers() -> bool:
    timeout = settings.REDIS_TIMEOUT_SECONDS
    try:
        with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=timeout, socket_connect_timeout=timeout) as client:
            return bool(client.ping())
    except (redis.RedisError, OSError):
        return False
