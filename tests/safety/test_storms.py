"""One Idempotency-Key, fifty callers at once, two different bodies: one effect, and everybody is told which one it was.

Through the real server: the lane's door for payments, Django's for everything else. FULL=1: 200 storms of payments, 20 of
every other verb.
"""

import http.client
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from escrow.models import Transfer
from tests.lane.doors import PATIENCE
from tests.lane.servers import Server, serving
from tests.marketplace.conftest import World

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(1_800)]

FULL = bool(os.environ.get("FULL"))
CALLERS = 50
OTHERS = ("hold", "session", "child", "top-up", "refund", "capture")
STORMS = {"payment": 200 if FULL else 3, **dict.fromkeys(OTHERS, 20 if FULL else 3)}
LINT = "agent://lint.acme.dev"
UNLIMITED = dict.fromkeys(("RATE_LIMIT_CALLS", "RATE_LIMIT_PAYMENTS", "RATE_LIMIT_REFUSALS"), "10000000/minute")


@dataclass(frozen=True)
class Storm:
    """What fifty callers ask for at once."""

    token: str
    path: str
    bodies: tuple[dict[str, Any], dict[str, Any]]
    micros: tuple[int, int]
    reason: str
    """What each body moves, and why the ledger says it moved."""


@pytest.fixture
def server(market: World) -> Iterator[Server]:
    with serving(**UNLIMITED) as running:
        yield running


def ask(server: Server, token: str, path: str, body: dict[str, Any], key: str) -> tuple[int, bool, Any]:
    """Ask once; return the status, whether it is told as a repetition, and the document."""
    wire = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key, "Content-Type": "application/json"}
    try:
        wire.request("POST", path, json.dumps(body), headers)
        answer = wire.getresponse()
        return answer.status, answer.headers.get("Idempotent-Replayed") == "true", json.loads(answer.read())
    finally:
        wire.close()


def storm_of(verb: str, market: World, server: Server) -> Storm:
    """Return what a storm of a verb asks for, and make what it is about."""
    buyer, seller = market.a, market.one
    by_session, by_payer, by_seller = (
        str(caller.key) for caller in (buyer.by_session, buyer.by_payer, seller.by_provider)
    )
    to = {"to": LINT, "currency": "USDC"}
    amounts = ({"amount": "0.003"}, {"amount": "0.005"})
    one, other = ({**to, **amount} for amount in amounts)
    made = f"{verb}-{uuid4()}"
    match verb:
        case "payment":
            return Storm(by_session, "/v1/payments", (one, other), (3_000, 5_000), "payment")
        case "hold":
            return Storm(by_session, "/v1/holds", (one, other), (3_000, 5_000), "hold")
        case "session":
            budgets = ({"budget": "0.003"}, {"budget": "0.005"})
            return Storm(by_payer, "/v1/sessions", budgets, (3_000, 5_000), "session_open")
        case "child":
            budgets = ({"budget": "0.003"}, {"budget": "0.005"})
            path = f"/v1/sessions/{buyer.session.pk}/children"
            return Storm(by_session, path, budgets, (3_000, 5_000), "session_open")
        case "top-up":
            path = f"/v1/sessions/{buyer.session.pk}/top-up"
            return Storm(by_payer, path, amounts, (3_000, 5_000), "session_top_up")
        case "refund":
            paid = ask(server, by_session, "/v1/payments", {**to, "amount": "0.01"}, made)[2]
            reasons = tuple({"reason": "sorry", **amount} for amount in amounts)
            return Storm(by_seller, f"/v1/payments/{paid['id']}/refund", reasons, (3_000, 5_000), "refund")  # type: ignore[arg-type]
        case _:
            held = ask(server, by_session, "/v1/holds", {**to, "amount": "0.01"}, made)[2]
            return Storm(by_session, f"/v1/holds/{held['id']}/capture", amounts, (3_000, 5_000), "capture")


def blow(storm: Storm, server: Server) -> None:
    """Have it asked for by all at once, and see what came of it."""
    key, gate = str(uuid4()), threading.Barrier(CALLERS)
    last = Transfer.objects.order_by("-pk").values_list("pk", flat=True).first() or 0

    def call(number: int) -> tuple[int, tuple[int, bool, Any]]:
        gate.wait(PATIENCE)
        return number % 2, ask(server, storm.token, storm.path, storm.bodies[number % 2], key)

    with ThreadPoolExecutor(CALLERS) as threads:
        answers = list(threads.map(call, range(CALLERS)))
    good = {which for which, (status, _, _) in answers if status < 300}
    assert len(good) == 1, {(which, status) for which, (status, _, _) in answers}
    winner = good.pop()
    told = [answer for which, answer in answers if which == winner]
    assert all(document == told[0][2] and status == told[0][0] for status, _, document in told)
    assert [replayed for _, replayed, _ in told].count(False) == 1
    refused = {(status, document["code"]) for which, (status, _, document) in answers if which != winner}
    assert refused == {(409, "idempotency_conflict")}
    moved = Transfer.objects.filter(pk__gt=last, reason=storm.reason).values_list("amount_micros", flat=True)
    assert list(moved) == [storm.micros[winner]]
    assert Transfer.objects.filter(pk__gt=last).exclude(reason__in=[storm.reason, "release"]).count() == 0


def test_one_key_is_one_effect_whoever_asks_for_it_and_for_what(
    market: World, server: Server, subtests: pytest.Subtests
) -> None:
    for verb, storms in STORMS.items():
        with subtests.test(verb=verb):
            for _ in range(storms):
                blow(storm_of(verb, market, server), server)
