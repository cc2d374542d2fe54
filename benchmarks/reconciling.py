"""How long reconciling takes: payments of many pools to many providers, settled on a local chain, then compared.

`python -m benchmarks.reconciling [--payments 10000] [--pools 50] [--providers 20]` prints one JSON object, and exits 1 when the
books and the chain differ.
"""

import argparse
import json
import os
import secrets
import sys
import time
from typing import Any, Final

import django
from django.utils import timezone

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketplace.settings")
django.setup()

from benchmarks.market import POLICY, Market  # noqa: E402  (Django must be set up first)
from escrow import payments, reconcile, sessions  # noqa: E402
from escrow.chain.client import ChainClient  # noqa: E402
from escrow.chain.signer import LocalSigner  # noqa: E402
from escrow.models import Party, Payment  # noqa: E402
from marketplace.management.stack.stack import Stack  # noqa: E402

SETTINGS: Final = {"SETTLE_MIN_MICROS": "1", "RELAY_BATCH": "100", "LOG_LEVEL": "WARNING"}
PATIENCE_SECONDS: Final = 300.0
MICROS: Final = 100


def measure(*, count: int, pools: int, providers: int) -> dict[str, Any]:
    """Pay, wait until all has landed, and compare: all books three times, and those of one pool."""
    with Stack(settings=SETTINGS, report=_say) as stack:
        opened = Market(_say).open_pools(pools, "10")
        spenders = [sessions.open(pool=p, budget_micros=9_000_000, policy=POLICY, now=timezone.now()) for p in opened]
        paid = [
            Party.objects.create(name=f"provider {n}", address=LocalSigner(secrets.token_bytes(32)).address)
            for n in range(providers)
        ]
        for at in range(count):
            payments.send(
                session_id=spenders[at % pools].pk,
                party_id=paid[at // pools % providers].pk,
                to="agent://paid.bench.dev",
                amount_micros=MICROS,
                metadata={"n": at},
                idempotency_key=str(at),
                request_hash=b"\1" * 32,
            )
        _wait_settled(count)
        client = ChainClient(stack.urls.rpc)
        whole = [reconcile.reconcile(client=client, now=timezone.now()) for _ in range(3)]
        one = reconcile.reconcile(client=client, now=timezone.now(), pool_id=opened[0].pk)
    return {
        "payments": count,
        "pools": whole[-1].pools,
        "providers": providers,
        "compared": whole[-1].compared,
        "seconds": [round(report.seconds, 3) for report in whole],
        "one_pool_seconds": round(one.seconds, 3),
        "verdict": whole[-1].verdict.value,
        "differences": [str(found) for found in whole[-1].differences],
    }


def _wait_settled(count: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while Payment.objects.filter(status=Payment.Status.SETTLED).count() < count:
        if time.monotonic() > deadline:
            raise RuntimeError("not every payment has landed: look into the worker's log")
        time.sleep(0.2)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, usual in (("payments", 10_000), ("pools", 50), ("providers", 20)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    asked = parser.parse_args()
    found = measure(count=asked.payments, pools=asked.pools, providers=asked.providers)
    sys.stdout.write(json.dumps(found) + "\n")
    return 0 if found["verdict"] != "unexplained" else 1


if __name__ == "__main__":
    sys.exit(main())
