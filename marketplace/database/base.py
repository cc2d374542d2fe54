"""Connections that do not wait for ever. Named in `settings.DATABASES`; Django looks for `DatabaseWrapper` in this module.

PostgreSQL ends a statement that takes too long, but only PostgreSQL can: when the network swallows everything, or the server
stands still, nothing comes back, and each such request would keep one of the web's few threads until the kernel gives up.
"""

from typing import Any, Final, TypeVar

import psycopg
from django.db.backends.postgresql import base
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus

RV = TypeVar("RV")
INTERVAL_SECONDS: Final = 0.1
"""How often a wait looks up, for Ctrl-C: psycopg's own."""


class ImpatientConnection(psycopg.Connection[Any]):
    """A connection that is closed when an answer takes longer than `limit_seconds`: what became of it is not known."""

    limit_seconds: float | None = None
    """None waits for ever, as a worker may: it has a limit of its own, and a comparison of all books takes minutes."""

    def wait(self, gen: PQGen[RV], interval: float = INTERVAL_SECONDS, timeout: float | None = None) -> RV:
        """Wait for what was asked. Raises OperationalError."""
        try:
            return super().wait(gen, interval, self.limit_seconds if timeout is None else timeout)
        except psycopg.OperationalError:
            # After a refusal of the database's own there is nothing under way any more, and the connection stays.
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.close()
            raise


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's own, with our connections."""

    def get_new_connection(self, conn_params: dict[str, Any]) -> psycopg.Connection[Any]:
        """Connect."""
        self.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        return ImpatientConnection.connect(**conn_params)


def give_up_after(seconds: float) -> None:
    """Have every connection of this process wait for an answer no longer than that."""
    ImpatientConnection.limit_seconds = seconds
