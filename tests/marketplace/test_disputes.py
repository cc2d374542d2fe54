"""/v1/disputes: opened by the buyer with a reason, answered by the provider; the money waits."""

import pytest

from tests.marketplace.conftest import World, money

pytestmark = pytest.mark.django_db


def rejected(world: World) -> str:
    task = world.a.by_session.post(
        "/v1/tasks", {"title": "t", "capability": "review", "budget": "2.40", "agent": "agent://lint.acme.dev"}
    ).json
    delivery = {"deliverable": {}, "invoice": {"amount": "2.40", "number": "INV-1"}}
    submitted = world.one.by_provider.post(f"/v1/tasks/{task['id']}/submit", delivery).json
    world.a.by_session.post(f"/v1/tasks/{task['id']}/reject", {"reason": "it is empty"})
    return str(submitted["invoice_id"])


def test_disputing_an_invoice_parks_its_money(world: World) -> None:
    invoice_id = rejected(world)
    answer = world.a.by_session.post("/v1/disputes", {"invoice_id": invoice_id, "reason": "an empty brief"})
    assert answer.status == 201
    dispute = answer.json
    assert (dispute["status"], dispute["amount"], dispute["on_chain"]) == ("open", "2.40", False)
    assert (dispute["to_provider"], dispute["to_payer"]) == (None, None)
    assert money()[f"dispute:{dispute['id']}"] == (0, 2_400_000)
    assert world.a.by_session.get(f"/v1/invoices/{invoice_id}").json["dispute_id"] == dispute["id"]
    assert world.one.by_provider.get("/v1/balance").json["disputed"] == "2.40"


def test_disputing_a_payment_parks_it(world: World) -> None:
    paid = world.a.by_session.post("/v1/payments", {"to": "agent://lint.acme.dev", "amount": "0.50"}).json
    answer = world.a.by_payer.post("/v1/disputes", {"payment_id": paid["id"], "reason": "nothing came back"})
    assert (answer.status, answer.json["payment_id"], answer.json["amount"]) == (201, paid["id"], "0.50")


def test_a_dispute_names_one_thing(world: World, unmoved) -> None:
    invoice_id = rejected(world)
    with unmoved():
        for body in (
            {"reason": "x"},
            {"invoice_id": invoice_id, "payment_id": invoice_id, "reason": "x"},
            {"invoice_id": invoice_id, "amount": "1.00", "reason": "x"},
            {"invoice_id": invoice_id, "reason": "  "},
        ):
            assert world.a.by_session.post("/v1/disputes", body).status == 400, body


def test_the_provider_answers_once(world: World) -> None:
    dispute = world.a.by_session.post("/v1/disputes", {"invoice_id": rejected(world), "reason": "empty"}).json
    path = f"/v1/disputes/{dispute['id']}"
    answer = world.one.by_provider.post(f"{path}/answer", {"answer": "the findings were empty"}, idempotency_key=None)
    assert (answer.status, answer.json["status"], answer.json["answer"]) == (200, "answered", "the findings were empty")
    again = world.one.by_provider.post(f"{path}/answer", {"answer": "more"}, idempotency_key=None)
    assert (again.status, again.json["code"]) == (409, "conflict")


def test_others_neither_see_it_nor_take_part(world: World, unmoved) -> None:
    invoice_id = rejected(world)
    dispute = world.a.by_session.post("/v1/disputes", {"invoice_id": invoice_id, "reason": "empty"}).json
    path = f"/v1/disputes/{dispute['id']}"
    with unmoved():
        assert world.b.by_payer.get(path).status == 404
        assert world.two.by_provider.post(f"{path}/answer", {"answer": "x"}).status == 404
        assert world.a.by_payer.post(f"{path}/answer", {"answer": "x"}).status == 403
        assert world.b.by_payer.post("/v1/disputes", {"invoice_id": invoice_id, "reason": "x"}).status == 404
        assert world.one.by_provider.post("/v1/disputes", {"invoice_id": invoice_id, "reason": "x"}).status == 403


def test_disputes_are_listed_for_both_sides(world: World) -> None:
    dispute = world.a.by_session.post("/v1/disputes", {"invoice_id": rejected(world), "reason": "empty"}).json
    for caller in (world.a.by_payer, world.a.by_session, world.one.by_provider):
        assert [row["id"] for row in caller.get("/v1/disputes?status=open").json["items"]] == [dispute["id"]]
    assert world.two.by_provider.get("/v1/disputes").json["items"] == []
