"""An agent that pays one call after another through the SDK. `python -m benchmarks.sdk` runs it as a process of its own.

It reads {"url", "key", "to", "amount", "payments", "rounds"} as JSON and writes how long each round took, in milliseconds.
"""

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

from agentmarket import SyncClient

LONGEST_SECONDS: Final = 300.0
WARM_UP: Final = 5
"""Payments before the clock starts: connections are opened and code is read once, whatever the service is like."""


def spend(url: str, key: str, to: str, amount: str, payments: int, rounds: int) -> list[float]:
    """Return how long each round of payments took, in milliseconds."""
    taken = []
    with SyncClient(key, base_url=url, retries=0) as client:
        # Equal calls are one payment: each of these says which one it is.
        run = uuid.uuid4().hex
        for number in range(WARM_UP):
            client.payment.send(to=to, amount=amount, metadata={"run": run, "warm_up": number})
        for turn in range(rounds):
            begun = time.perf_counter()
            for number in range(payments):
                client.payment.send(to=to, amount=amount, metadata={"run": run, "turn": turn, "number": number})
            taken.append((time.perf_counter() - begun) * 1_000)
    return taken


def run(environment: Mapping[str, str], **plan: Any) -> list[float]:
    """Run `spend` in a process of its own, in a stack's environment, and return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.sdk"],
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=LONGEST_SECONDS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the agent could not pay:\n{done.stderr}")
    return list(json.loads(done.stdout))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(spend(**json.load(sys.stdin))))
