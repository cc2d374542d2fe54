"""Our ledger alone, through psycopg: `escrow_post` with a batch of transfers, one durable commit, one connection.

    DATABASE_URL=... python -m benchmarks.peers.ours --accounts 1000 --seconds 3 --batch 64

Makes the project's tables in that database, then prints one line of JSON: transfers a second, by who pays.
"""

import json
import os
import random
import secrets
import sys
from typing import Any, Final

import django
import psycopg
from django.core.management import call_command

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketplace.settings")
django.setup()

from benchmarks.peers.reference import pace  # noqa: E402  (Django must be set up first)
from escrow.models import Account, Reason  # noqa: E402

POST: Final = "SELECT escrow_post(%s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::text[])"
FUNDS_MICROS: Final = 10**12
AMOUNT_MICROS: Final = 1_000


def accounts(kind: Account.Kind, count: int) -> list[int]:
    """Open accounts of no pool and return their ids."""
    made = Account.objects.bulk_create(
        [Account(kind=kind, code=f"{kind}:{secrets.token_hex(8)}") for _ in range(count)]
    )
    return [account.pk for account in made]


def post(connection: "psycopg.Connection[Any]", senders: list[int], receivers: list[int], micros: int) -> None:
    """Write one batch and commit it."""
    size = len(senders)
    refs = [secrets.token_hex(16) for _ in senders]
    connection.execute(POST, [senders, receivers, size * [micros], size * [str(Reason.PAYMENT)], refs])


def rate(
    connection: "psycopg.Connection[Any]", payers: list[int], payees: list[int], batch: int, seconds: float
) -> float:
    """Return how many transfers a second go from random payers to random payees in batches."""

    def commit() -> None:
        post(connection, random.choices(payers, k=batch), random.choices(payees, k=batch), AMOUNT_MICROS)

    return pace.rate(commit, batch, seconds)


def main() -> None:
    """Measure and print."""
    given = pace.arguments(__doc__)
    call_command("migrate", verbosity=0, interactive=False)
    (world,) = accounts(Account.Kind.WORLD, 1)
    payers, payees = (accounts(kind, given.accounts) for kind in (Account.Kind.SESSION, Account.Kind.PAYABLE))
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        post(connection, given.accounts * [world], payers, FUNDS_MICROS)
        rates = {
            f"one payer, batches of {given.batch}": rate(connection, payers[:1], payees, given.batch, given.seconds),
            f"many payers, batches of {given.batch}": rate(connection, payers, payees, given.batch, given.seconds),
        }
    sys.stdout.write(json.dumps(rates) + "\n")


if __name__ == "__main__":
    main()
