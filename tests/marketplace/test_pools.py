"""/v1/pools: asked for over HTTP, decided by the chain."""

import pytest

from escrow.models import Pool
from tests.marketplace.conftest import World

pytestmark = pytest.mark.django_db


def test_a_pool_is_opening_until_the_chain_says_open(world: World, unmoved) -> None:
    body = {"deposit": "25.00", "expires_in_hours": 48, "providers": ["agent://lint.acme.dev"]}
    with unmoved():
        answer = world.a.by_payer.post("/v1/pools", body)
    assert answer.status == 202
    pool = answer.json
    assert (pool["status"], pool["deposited"], pool["available"], pool["pool_key"]) == ("opening", "0.00", "0.00", None)
    assert Pool.objects.get(pk=pool["id"]).payer_id == world.a.payer.pk


def test_asking_twice_with_one_key_asks_for_one_pool(world: World) -> None:
    body = {"deposit": "25.00"}
    first = world.a.by_payer.post("/v1/pools", body, idempotency_key="p-1")
    again = world.a.by_payer.post("/v1/pools", body, idempotency_key="p-1")
    assert again.raw == first.raw
    assert Pool.objects.filter(payer_id=world.a.payer.pk).count() == 2


def test_a_provider_that_nobody_is_cannot_be_allowed(world: World) -> None:
    answer = world.a.by_payer.post("/v1/pools", {"deposit": "25.00", "providers": ["agent://unknown.acme.dev"]})
    assert answer.status == 404
    assert Pool.objects.filter(payer_id=world.a.payer.pk).count() == 1


def test_the_pool_says_where_its_money_is(world: World) -> None:
    world.a.by_session.post("/v1/payments", {"to": "agent://lint.acme.dev", "amount": "1.00"})
    task = {"title": "t", "capability": "review", "budget": "2.40", "agent": "agent://lint.acme.dev"}
    world.a.by_session.post("/v1/tasks", task)
    pool = world.a.by_payer.get(f"/v1/pools/{world.a.pool.pk}").json
    assert (pool["deposited"], pool["available"], pool["in_sessions"]) == ("100.00", "75.00", "21.60")
    assert (pool["held"], pool["payable"]) == ("2.40", "1.00")


def test_closing_ends_its_sessions(world: World, unmoved) -> None:
    answer = world.a.by_payer.post(f"/v1/pools/{world.a.pool.pk}/close")
    assert answer.status == 202
    assert answer.json["in_sessions"] == "0.00"
    with unmoved():
        late = world.a.by_session.post("/v1/payments", {"to": "agent://lint.acme.dev", "amount": "1.00"})
    assert (late.status, late.json["code"]) == (409, "conflict")


def test_pools_are_the_payers_alone(world: World) -> None:
    path = f"/v1/pools/{world.a.pool.pk}"
    assert world.b.by_payer.get(path).status == 404
    assert world.b.by_payer.post(f"{path}/close").status == 404
    assert world.a.by_session.get(path).status == 403
    assert [row["id"] for row in world.b.by_payer.get("/v1/pools").json["items"]] == [str(world.b.pool.pk)]
