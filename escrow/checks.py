"""Checks of the books against themselves: what money says against the rows that say why. Lives here: how a check is run.

A check is one statement over whole tables, never a walk row by row; each of its rows is a contradiction. The statements are
in `money_checks` and `order_checks`. Nothing here reads the chain, and nothing mends.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import connection

from escrow.findings import Cause, Difference

SHOWN_A_CHECK: Final = 100
"""Contradictions listed of one check: the first hundred say what is wrong, and a million would say no more."""

SCOPE: Final = """
WITH scope AS (
    SELECT * FROM escrow_pool WHERE contract_address = %(contract)s AND (%(pool)s::uuid IS NULL OR id = %(pool)s::uuid)
), account AS (
    SELECT account.*, pool.status AS pool_status FROM escrow_account AS account
    JOIN scope AS pool ON pool.id = account.pool_id
)
"""
"""Pools of the contract in use, all or one, and their accounts. Those of an earlier one have nothing to be held against."""
BALANCES: Final = """
, balance AS (SELECT * FROM unnest(%(accounts)s::bigint[], %(micros)s::bigint[]) AS balance (id, micros))
"""
"""What accounts hold by their transfers alone, added up once for all checks."""


@dataclass(frozen=True, slots=True)
class Check:
    """One statement. Its rows are (pool, what, first number, second number, detail), and there are none when all is well."""

    rule: str
    sources: tuple[str, str]
    sql: str
    cause: Cause = Cause.BUG
    is_by_balance: bool = False
    """Whether it reads `balance`."""


def run(checks: Iterable[Check], pool_id: UUID | None, balances: Mapping[int, int]) -> list[Difference]:
    """Return every contradiction that checks find, in all pools or one; `balances` are those of its accounts, by their id."""
    found: list[Difference] = []
    facts = {"contract": settings.ESCROW_ADDRESS, "pool": pool_id, "late": settings.RECONCILE_LATE_SECONDS}
    summed = {"accounts": list(balances), "micros": list(balances.values())}
    with connection.cursor() as cursor:
        for check in checks:
            begun, more = (SCOPE + BALANCES, summed) if check.is_by_balance else (SCOPE, {})
            cursor.execute(f"{begun} {check.sql} LIMIT {SHOWN_A_CHECK:d}", {**facts, **more})
            found += [
                Difference(
                    check.rule, str(pool), what, int(ours or 0), int(other or 0), check.cause, check.sources, detail
                )
                for pool, what, ours, other, detail in cursor.fetchall()
            ]
    return found
