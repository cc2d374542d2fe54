"""Whether the naive project's books are right: the proof that it was fast or slow at the same thing."""

from typing import Any

import psycopg

_WRONG = """
SELECT
  (SELECT count(*) FROM naive_pool AS pool WHERE balance_micros < 0 OR balance_micros <> opening_micros + coalesce(
     (SELECT sum(amount_micros) FROM naive_transfer WHERE pool_id = pool.id), 0))
+ (SELECT count(*) FROM naive_payment AS payment WHERE (
     SELECT array_agg(amount_micros ORDER BY amount_micros) FROM naive_transfer WHERE payment_id = payment.id
   ) IS DISTINCT FROM ARRAY[-amount_micros, amount_micros])
"""


def in_order(connection: "psycopg.Connection[Any]") -> bool:
    """Return whether every pool holds what came in less what left it, and every payment has its two sides."""
    found = connection.execute(_WRONG).fetchone()
    return found is not None and found[0] == 0
