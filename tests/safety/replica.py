"""One replica of an agent: pays as fast as it can with the SDK, and says in one line of JSON what it believes came of it.

Started by `outage`, several at once with one session's key; ends when the money does, or its time.
"""

import json
import os
import sys
import time
from random import Random

from agentmarket import Retries, SyncClient
from agentmarket.errors import AgentMarketError, InsufficientFunds, OutcomeUnknown, PolicyDenied

AGENTS = ["agent://lint.acme.dev", "agent://check.example.dev"]
PATIENT = Retries(attempts=5, first_delay=0.05, longest_delay=1.0)
STEP = 10_000
"""Micro-USDC: every amount is a multiple of it, so that the last payment can be exact."""


def main() -> None:
    number, steps, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    random, end = Random(number), time.monotonic() + seconds
    told: dict[str, dict[str, int]] = {"charged": {}, "not_charged": {}, "unknown": {}, "resumed": {}}
    unanswered: dict[str, tuple[int, OutcomeUnknown]] = {}
    refused, sent = 0, 0
    with SyncClient(
        os.environ["REPLICA_KEY"], base_url=os.environ["AGENTMARKET_URL"], timeout=10, retries=PATIENT
    ) as client:
        while time.monotonic() < end and refused < 4:
            sent += 1
            amount = random.randint(1, steps) if not refused else 1
            key, micros = f"replica-{number}-{sent}", amount * STEP
            try:
                client.payment.send(to=random.choice(AGENTS), amount=f"{micros / 1e6:.2f}", key=key)
                told["charged"][key] = micros
            except InsufficientFunds:
                told["not_charged"][key] = micros
                refused += 1
            except PolicyDenied as denied:
                told["not_charged"][key] = micros
                if denied.rule == "max_tx_per_minute":
                    time.sleep(0.5)  # it slides: there will be room
                else:
                    refused += 1
            except OutcomeUnknown as lost:
                unanswered[key] = (micros, lost)
            except AgentMarketError as error:
                told[error.outcome or "unknown"][key] = micros
                time.sleep(0.05)  # it is away: no reason to write thousands of refusals down
        for key, (micros, lost) in unanswered.items():
            try:
                lost.resume()
                told["resumed"][key] = micros
            except (InsufficientFunds, PolicyDenied):
                told["not_charged"][key] = micros
            except AgentMarketError as error:
                told[error.outcome or "unknown"][key] = micros
    print("TOLD " + json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
