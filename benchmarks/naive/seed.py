"""Makes the naive project's tables, or pools with sessions that can spend from them; writes a JSON list of them.

python -m benchmarks.naive.seed tables
python -m benchmarks.naive.seed pools 1000 1000000
"""

import json
import secrets
import sys

import django
from django.core.management import call_command

django.setup()

from benchmarks.naive.auth import hash_of  # noqa: E402  (Django must be set up first)
from benchmarks.naive.models import Agent, Pool, Session  # noqa: E402

PAYEE = "agent://lint.acme.dev"


def pools(count: int, budget_micros: int) -> list[dict[str, str]]:
    """Make pools of this much each; return how to spend from them."""
    Agent.objects.get_or_create(uri=PAYEE)
    made = Pool.objects.bulk_create(
        [Pool(opening_micros=budget_micros, balance_micros=budget_micros) for _ in range(count)]
    )
    keys = [(secrets.token_hex(8), secrets.token_hex(20)) for _ in made]
    Session.objects.bulk_create(
        [
            Session(
                pool=pool,
                max_per_call_micros=budget_micros,
                allowed_recipients=["agent://*.acme.dev"],
                key_id=key_id,
                secret_hash=hash_of(secret),
            )
            for pool, (key_id, secret) in zip(made, keys, strict=True)
        ]
    )
    return [{"token": "_".join(key), "to": PAYEE} for key in keys]


def main() -> None:
    """Do what the arguments say."""
    answer: list[dict[str, str]] = []
    if sys.argv[1] == "tables":
        call_command("migrate", verbosity=0, interactive=False, run_syncdb=True)
    else:
        answer = pools(int(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
