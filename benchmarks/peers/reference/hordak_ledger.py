"""django-hordak as its documentation has it: `Account.transfer_to` in a database transaction, durable, one connection.

    DATABASE_URL=... python hordak_ledger.py --accounts 1000 --seconds 3 --batch 64

Makes its tables in that database, then prints one line of JSON: transfers a second, by way of using it.
"""

import json
import os
import random
import sys
from typing import Any
from urllib.parse import unquote, urlsplit

import django
from django.conf import settings
from django.core.management import call_command
from django.db import transaction

_URL = urlsplit(os.environ["DATABASE_URL"])
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "mptt", "hordak"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": _URL.path.removeprefix("/"),
            "HOST": unquote(_URL.hostname or ""),
            "PORT": _URL.port or "",
            "USER": unquote(_URL.username or ""),
            "PASSWORD": unquote(_URL.password or ""),
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    DEFAULT_CURRENCY="USD",
    HORDAK_INTERNAL_CURRENCY="USD",
    CURRENCIES=["USD"],
    HORDAK_DECIMAL_PLACES=6,
    HORDAK_MAX_DIGITS=18,
    USE_TZ=True,
)
django.setup()

import pace  # noqa: E402  (beside this file: these scripts run by their path)
from hordak.models import Account  # noqa: E402  (Django must be set up first)
from moneyed import Money  # noqa: E402


def rate(payers: list[Any], payees: list[Any], batch: int, seconds: float) -> float:
    """Return how many transfers a second go from random payers to random payees, so many in one commit."""
    amount = Money("0.001", "USD")

    def commit() -> None:
        with transaction.atomic():
            for _ in range(batch):
                random.choice(payers).transfer_to(random.choice(payees), amount)

    found: float = pace.rate(commit, batch, seconds)
    return found


def main() -> None:
    """Measure and print."""
    given = pace.arguments(__doc__)
    call_command("migrate", verbosity=0, interactive=False)
    made = [
        [Account.objects.create(name=f"{side} {at}", type="LI", currencies=["USD"]) for at in range(given.accounts)]
        for side in ("payer", "payee")
    ]
    payers, payees = made
    rates = {
        "one payer, one each": rate(payers[:1], payees, 1, given.seconds),
        "many payers, one each": rate(payers, payees, 1, given.seconds),
        f"many payers, batches of {given.batch}": rate(payers, payees, given.batch, given.seconds),
    }
    sys.stdout.write(json.dumps(rates) + "\n")


if __name__ == "__main__":
    main()
