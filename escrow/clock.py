"""The one clock that money goes by: the database's. Lives here: reading it, for the rooms that take `now` as an argument.

Web servers and workers each have a clock of their own; one that is hours wrong must not move what a limit counts, what is
over and what silence has decided. `escrow_judge` and the ledger read the database's clock themselves.
"""

from datetime import datetime
from typing import cast

from django.db import connection


def now() -> datetime:
    """Return the database's time, which goes on during a database transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return cast("datetime", cursor.fetchone()[0])
