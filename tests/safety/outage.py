"""Replicas of one agent pay while everything below them is killed in turn: a program, since it runs a stack of its own.

It says in one line of JSON what the replicas believe, what is in the books, and what died how often. The judgement is
`test_replicas`'s.
"""

import json
import sys
import time
from typing import Any

import django

django.setup()

from django.db import DatabaseError, connections  # noqa: E402
from django.utils import timezone  # noqa: E402

from escrow.models import Payment, Transfer  # noqa: E402
from marketplace import agents  # noqa: E402
from marketplace.management.stack import sample  # noqa: E402
from marketplace.management.stack.stack import Stack  # noqa: E402
from marketplace.management.stack.supervisor import Child  # noqa: E402
from tests.safety.replica import AGENTS  # noqa: E402

PATIENCE = 60.0
VICTIMS = ("web", "postgres", "valkey", "worker")
SETTINGS = dict.fromkeys(("RATE_LIMIT_CALLS", "RATE_LIMIT_PAYMENTS", "RATE_LIMIT_REFUSALS"), "10000000/minute")


def main() -> None:
    """Run the plan that the first argument says as JSON."""
    plan: dict[str, Any] = json.loads(sys.argv[1])
    with Stack(settings=SETTINGS) as stack:
        sellers = [
            agents.register_provider(name=uri, payout_address=f"0x{0xA0 + n:040x}") for n, uri in enumerate(AGENTS)
        ]
        for provider, uri in zip(sellers, AGENTS, strict=True):
            agents.register(provider=provider, uri=uri, name=uri[8:12], endpoint=uri.replace("agent:", "https:"))
        buyer = sample.open_buyer(
            name="replicated", deposit=plan["budget"], budget=plan["budget"], policy=plan["policy"], sellers=sellers
        )
        begun = time.monotonic()
        replicas = [_start(stack, number, buyer.session_key, plan) for number in range(plan["replicas"])]
        killed = _kill_in_turn(stack, replicas, plan["rounds"], plan["between"])
        for replica in replicas:
            replica.process.wait(plan["seconds"] + PATIENCE)
        alive = {name: stack.supervisor.children[name].process.poll() is None for name in (*VICTIMS, "beat")}
        session = buyer.session.account_id
        names = ("amount_micros", "reason", "sender_id", "receiver_id", "created_at", "ref")
        moved = [
            [micros, reason, sender == session, str(at.timestamp()), ref, receiver == session]
            for micros, reason, sender, receiver, at, ref in Transfer.objects.order_by("pk").values_list(*names)
            if session in (sender, receiver)
        ]
        paid = Payment.objects.filter(session=buyer.session).values_list("idempotency_key", "amount_micros", "id")
        said = {
            "told": [json.loads(child.output().rpartition("TOLD ")[2] or "null") for child in replicas],
            "moved": moved,
            "paid": [[key, micros, str(pk)] for key, micros, pk in paid],
            "killed": killed,
            "alive": alive,
            "seconds": round(time.monotonic() - begun, 1),
            "at": timezone.now().isoformat(),
        }
        for number in range(plan["replicas"]):
            stack.supervisor.kill(f"replica-{number}")
        print("SAID " + json.dumps(said), flush=True)


def _start(stack: Stack, number: int, key: str, plan: dict[str, Any]) -> Child:
    argv = [sys.executable, "-m", "tests.safety.replica", str(number), str(plan["steps"]), str(plan["seconds"])]
    own = {"REPLICA_KEY": key, "AGENTMARKET_URL": stack.urls.web}
    return stack.spawn(f"replica-{number}", argv, env=own)


def _kill_in_turn(stack: Stack, replicas: list[Child], rounds: int, between: float) -> dict[str, int]:
    killed = dict.fromkeys(VICTIMS, 0)
    for turn in range(rounds * len(VICTIMS)):
        _wait_for_payments(replicas, between)
        if turn >= len(VICTIMS) and all(replica.process.poll() is not None for replica in replicas):
            return killed
        name = VICTIMS[turn % len(VICTIMS)]
        stack.kill(name)
        _restore(stack, name)
        killed[name] += 1
    return killed


def _wait_for_payments(replicas: list[Child], seconds: float) -> None:
    """Wait until more has been paid, and some time has gone: each death meets replicas that pay."""
    before, end = _count(), time.monotonic() + PATIENCE
    least = time.monotonic() + seconds
    while time.monotonic() < end and not (_count() > before and time.monotonic() >= least):
        if all(replica.process.poll() is not None for replica in replicas):
            return
        time.sleep(0.02)


def _count() -> int:
    try:
        return Payment.objects.count()
    except DatabaseError:
        connections.close_all()
        return 0


def _restore(stack: Stack, name: str) -> None:
    """Start what was killed again, and wait until it answers; PostgreSQL waits for the last of its dead self to go."""
    end = time.monotonic() + PATIENCE
    child = stack.restart(name)
    while name == "postgres" and time.monotonic() < end:
        connections.close_all()
        try:
            connections["default"].ensure_connection()
        except DatabaseError:
            if child.process.poll() is not None:
                child = stack.restart(name)
            time.sleep(0.05)
        else:
            return


if __name__ == "__main__":
    main()
