"""One effect for each Idempotency-Key, with real commits and many callers at once."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections

from escrow.models import Payment, Session
from marketplace.models import IdempotencyRecord, Task
from tests.marketplace.client import Answer, Caller, document
from tests.marketplace.conftest import World, make_world, money

pytestmark = pytest.mark.django_db(transaction=True)

THREADS = 50


@pytest.fixture
def committed(transactional_db: None) -> World:
    """Return a market that other connections see."""
    document()
    return make_world()


def at_once(calls: list[Callable[[], Answer]]) -> list[Answer]:
    """Run the calls together, each in a thread and a connection of its own."""
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], Answer]) -> Answer:
        try:
            gate.wait(timeout=30)
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_fifty_equal_payments_at_once_are_one(committed: World) -> None:
    key = committed.a.by_session.key
    body = {"to": "agent://lint.acme.dev", "amount": "0.012"}
    answers = at_once([lambda: Caller(key).post("/v1/payments", body, idempotency_key="k") for _ in range(THREADS)])
    assert {answer.status for answer in answers} == {201}
    assert len({answer.raw for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    assert Payment.objects.count() == 1
    assert money()[f"session:{committed.a.session.pk}"] == (12_000, 25_000_000)


def test_two_bodies_under_one_key_at_once_pay_one_of_them(committed: World) -> None:
    key = committed.a.by_session.key
    bodies = [{"to": "agent://lint.acme.dev", "amount": amount} for amount in ("0.012", "0.013")]
    calls = [
        lambda body=body: Caller(key).post("/v1/payments", body, idempotency_key="k")
        for body in bodies
        for _ in range(THREADS // 2)
    ]
    answers = at_once(calls)
    assert Counter(answer.status for answer in answers) == {201: THREADS // 2, 409: THREADS // 2}
    assert {answer.json["code"] for answer in answers if answer.status == 409} == {"idempotency_conflict"}
    assert Payment.objects.count() == 1


def test_fifty_equal_sessions_at_once_are_one_with_one_key(committed: World) -> None:
    key = committed.a.by_payer.key
    calls = [lambda: Caller(key).post("/v1/sessions", {"budget": "1.00"}, idempotency_key="k") for _ in range(THREADS)]
    answers = at_once(calls)
    assert {answer.status for answer in answers} == {201}
    assert len({answer.raw for answer in answers}) == 1
    assert Session.objects.filter(pool=committed.a.pool).count() == 2
    assert money()[f"pool:{committed.a.pool.pk}"] == (26_000_000, 100_000_000)
    assert Caller(answers[0].json["api_key"]).get("/v1/me").status == 200


def test_two_sessions_under_one_key_at_once_open_one(committed: World) -> None:
    key = committed.a.by_payer.key
    calls = [
        lambda budget=budget: Caller(key).post("/v1/sessions", {"budget": budget}, idempotency_key="k")
        for budget in ("1.00", "2.00")
        for _ in range(THREADS // 2)
    ]
    answers = at_once(calls)
    assert Counter(answer.status for answer in answers) == {201: THREADS // 2, 409: THREADS // 2}
    assert IdempotencyRecord.objects.count() == 1


def test_twenty_assignments_under_twenty_keys_hold_once(committed: World) -> None:
    task = committed.a.by_session.post("/v1/tasks", {"title": "t", "capability": "review", "budget": "2.40"}).json
    path, key = f"/v1/tasks/{task['id']}/assign", committed.a.by_session.key
    answers = at_once([lambda: Caller(key).post(path, {"agent": "agent://lint.acme.dev"}) for _ in range(20)])
    assert Counter(answer.status for answer in answers) == {200: 1, 409: 19}
    assert money()[f"session:{committed.a.session.pk}"] == (2_400_000, 25_000_000)
    assert Task.objects.get().status == "assigned"


def test_a_budget_of_one_hundred_pays_one_hundred_of_two_hundred(committed: World) -> None:
    opened = committed.a.by_payer.post("/v1/sessions", {"budget": "1.00"}).json
    body = {"to": "agent://lint.acme.dev", "amount": "0.01"}

    def spend() -> Answer:
        caller = Caller(opened["api_key"])
        statuses.extend(caller.post("/v1/payments", body).status for _ in range(4))
        return caller.post("/v1/payments", body)

    statuses: list[int] = []
    statuses.extend(answer.status for answer in at_once([spend] * 40))
    assert Counter(statuses) == {201: 100, 402: 100}
    assert money()[f"session:{opened['id']}"] == (1_000_000, 1_000_000)


def test_a_fault_in_the_middle_leaves_neither_effect_nor_record(
    committed: World, monkeypatch: pytest.MonkeyPatch, unmoved
) -> None:
    with monkeypatch.context() as patch, unmoved():
        patch.setattr("marketplace.api.show.session", lambda *_: 1 / 0)
        broken = committed.a.by_payer.post("/v1/sessions", {"budget": "1.00"}, idempotency_key="k")
    assert (broken.status, broken.json["code"], broken.json["outcome"]) == (500, "internal", "unknown")
    assert broken.json["retryable"] is True
    assert not IdempotencyRecord.objects.exists()
    assert committed.a.by_payer.post("/v1/sessions", {"budget": "1.00"}, idempotency_key="k").status == 201
