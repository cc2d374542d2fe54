"""/livez and /readyz. Lives here: whether the process runs, and whether what it stands on is there.

What the vitals are, and how each is judged, is `escrow.vitals`; the broker is asked here. No node is asked: a worker looks at
the chain, and what it saw is read.
"""

import redis
from django.conf import settings
from django.db import DatabaseError, connection

from escrow import clock, vitals
from escrow.vitals import Vital
from marketplace.api import account_shapes, auth
from marketplace.api.endpoint import Call, Endpoint, Reply, serves


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
        """Say for each part that the service stands on whether it is there; 503 when one of them is not."""
        found = readiness()
        return Reply(found, status=200 if found.status == "ready" else 503)


def readiness() -> account_shapes.Readiness:
    """Return what is there and what is not."""
    judged = [*_from_database(), _broker()]
    missing = [f"{vital.name}: {vital.detail}" for vital in judged if not vital.ok]
    return account_shapes.Readiness(
        status="not_ready" if missing else "ready",
        checks=[account_shapes.ReadinessCheck(name=of.name, ok=of.ok, detail=of.detail) for of in judged],
        reason="; ".join(missing),
    )


def _from_database() -> list[Vital]:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return [Vital("database", ok=True, detail="it answers"), *vitals.of_chain(clock.now())]
    except DatabaseError:
        # Its own words may name hosts and users: they are for the log, and this page is for everybody.
        return [Vital("database", ok=False, detail="it does not answer")]


def _broker() -> Vital:
    timeout = settings.REDIS_TIMEOUT_SECONDS
    try:
        with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=timeout, socket_connect_timeout=timeout) as client:
            there = bool(client.ping())
    except (redis.RedisError, OSError):
        there = False
    return Vital("broker", there, "it answers" if there else "it does not answer")
