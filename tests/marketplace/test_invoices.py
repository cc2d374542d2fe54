"""/v1/invoices: any agent invoices any session whose policy names it; approve, reject, withdraw."""

from uuid import uuid4

import pytest

from tests.marketplace.client import Caller
from tests.marketplace.conftest import World, money

pytestmark = pytest.mark.django_db


@pytest.fixture
def opened(world: World) -> dict[str, str]:
    """Return a session of buyer A that allows lint.acme.dev by name, 10 USDC."""
    body = {"budget": "10.00", "policy": {"allowed_recipients": ["*.example.dev", "lint.acme.dev"]}}
    return dict(world.a.by_payer.post("/v1/sessions", body).json)


def claim(opened: dict[str, str], **more: object) -> dict[str, object]:
    return {
        "session_id": opened["id"],
        "agent": "agent://lint.acme.dev",
        "amount": "1.50",
        "number": "INV-7",
        "memo": "three files",
        **more,
    }


@pytest.mark.promise("S17")
def test_an_invoice_sets_its_amount_aside(world: World, opened) -> None:
    answer = world.one.by_provider.post("/v1/invoices", claim(opened))
    assert answer.status == 201
    assert (answer.json["status"], answer.json["amount"], answer.json["number"]) == ("submitted", "1.50", "INV-7")
    session = Caller(opened["api_key"]).get(f"/v1/sessions/{opened['id']}").json
    assert (session["held"], session["remaining"]) == ("1.50", "8.50")


@pytest.mark.promise("S17")
def test_a_session_whose_policy_does_not_name_the_agent_cannot_be_invoiced(world: World, opened, unmoved) -> None:
    silent = {"id": str(world.a.session.pk)}
    other = claim(opened, agent="agent://check.example.dev")
    with unmoved():
        unnamed = world.one.by_provider.post("/v1/invoices", claim(silent))
        stranger = world.two.by_provider.post("/v1/invoices", other)
    assert (unnamed.status, unnamed.json["rule"]) == (403, "allowed_recipients")
    assert (stranger.status, stranger.json["rule"]) == (403, "allowed_recipients")


def test_a_wildcard_does_not_name_an_agent(world: World, unmoved) -> None:
    body = {"budget": "10.00", "policy": {"allowed_recipients": ["*.acme.dev", "agent://check.example.dev"]}}
    session = world.a.by_payer.post("/v1/sessions", body).json
    paid = Caller(session["api_key"]).post("/v1/payments", {"to": "agent://lint.acme.dev", "amount": "0.01"})
    assert paid.status == 201  # the session may pay it; it may not help itself
    with unmoved():
        answer = world.one.by_provider.post("/v1/invoices", claim(session))
    assert (answer.status, answer.json["rule"]) == (403, "allowed_recipients")
    assert answer.json["would_allow"] == ["agent://check.example.dev"]
    named = world.two.by_provider.post("/v1/invoices", claim(session, agent="agent://check.example.dev"))
    assert named.status == 201


def test_a_provider_invoices_for_its_own_agents_only(world: World, opened, unmoved) -> None:
    with unmoved():
        answer = world.two.by_provider.post("/v1/invoices", claim(opened))
    assert answer.status == 404


def test_a_number_counts_once_in_a_session(world: World, opened, unmoved) -> None:
    world.one.by_provider.post("/v1/invoices", claim(opened))
    with unmoved():
        answer = world.one.by_provider.post("/v1/invoices", claim(opened, amount="1.60"))
    assert (answer.status, answer.json["code"]) == (409, "duplicate_invoice")


def test_more_than_the_session_holds_is_refused(world: World, opened, unmoved) -> None:
    with unmoved():
        answer = world.one.by_provider.post("/v1/invoices", claim(opened, amount="10.01"))
    assert (answer.status, answer.json["code"]) == (402, "insufficient_funds")


def test_no_session_by_that_id_is_not_found(world: World, opened, unmoved) -> None:
    with unmoved():
        assert world.one.by_provider.post("/v1/invoices", claim({"id": str(uuid4())})).status == 404


def test_an_invoice_for_a_task_uses_the_tasks_hold(world: World) -> None:
    task = world.a.by_session.post(
        "/v1/tasks", {"title": "t", "capability": "review", "budget": "2.40", "agent": "agent://lint.acme.dev"}
    ).json
    before = money()
    answer = world.one.by_provider.post("/v1/invoices", claim({"id": str(world.a.session.pk)}, task_id=task["id"]))
    assert (answer.status, answer.json["task_id"]) == (201, task["id"])
    assert money() == before
    assert world.a.by_session.get(f"/v1/tasks/{task['id']}").json["status"] == "submitted"


def test_the_buyer_approves(world: World, opened) -> None:
    invoice = world.one.by_provider.post("/v1/invoices", claim(opened)).json
    answer = Caller(opened["api_key"]).post(f"/v1/invoices/{invoice['id']}/approve")
    assert (answer.status, answer.json["status"], answer.json["approved_amount"]) == (200, "approved", "1.50")
    payment = world.one.by_provider.get(f"/v1/payments/{answer.json['payment_id']}").json
    assert (payment["kind"], payment["amount"], payment["status"]) == ("invoice", "1.50", "payable")


def test_the_provider_gives_up(world: World, opened) -> None:
    invoice = world.one.by_provider.post("/v1/invoices", claim(opened)).json
    buyer = Caller(opened["api_key"])
    buyer.post(f"/v1/invoices/{invoice['id']}/reject", {"reason": "not agreed"})
    answer = world.one.by_provider.post(f"/v1/invoices/{invoice['id']}/withdraw")
    assert (answer.status, answer.json["status"]) == (200, "withdrawn")
    assert buyer.get(f"/v1/sessions/{opened['id']}").json["remaining"] == "10.00"


def test_neither_side_does_the_others_part(world: World, opened, unmoved) -> None:
    invoice = world.one.by_provider.post("/v1/invoices", claim(opened)).json
    path = f"/v1/invoices/{invoice['id']}"
    with unmoved():
        assert world.one.by_provider.post(f"{path}/approve").status == 403
        assert world.one.by_provider.post(f"{path}/reject", {"reason": "x"}).status == 403
        assert world.a.by_payer.post(f"{path}/withdraw").status == 403
        assert world.b.by_payer.post(f"{path}/approve").status == 404
        assert world.two.by_provider.post(f"{path}/withdraw").status == 404


def test_invoices_are_listed_for_both_sides(world: World, opened) -> None:
    invoice = world.one.by_provider.post("/v1/invoices", claim(opened)).json
    for caller in (world.a.by_payer, Caller(opened["api_key"]), world.one.by_provider):
        assert [row["id"] for row in caller.get("/v1/invoices?status=submitted").json["items"]] == [invoice["id"]]
    for caller in (world.b.by_payer, world.a.by_session, world.two.by_provider):
        assert caller.get("/v1/invoices").json["items"] == []


def test_the_same_task_and_number_under_another_key_is_claimed_once(world: World, unmoved) -> None:
    asked = {"title": "t", "capability": "review", "budget": "1.00", "agent": "agent://lint.acme.dev"}
    task = world.a.by_session.post("/v1/tasks", asked).json
    terms = {"amount": "1.00", "number": "INV-7"}
    assert (
        world.one.by_provider.post(f"/v1/tasks/{task['id']}/submit", {"deliverable": {}, "invoice": terms}).status
        == 200
    )
    again = {**terms, "session_id": task["session_id"], "agent": "agent://lint.acme.dev", "task_id": task["id"]}
    with unmoved():
        for path, body in (
            (f"/v1/tasks/{task['id']}/submit", {"deliverable": {}, "invoice": terms}),
            ("/v1/invoices", again),
            ("/v1/invoices", {**again, "number": "INV-8"}),
        ):
            answer = world.one.by_provider.post(path, body)
            assert (answer.status, answer.json["code"]) == (409, "conflict")
    other = world.a.by_session.post("/v1/tasks", asked).json
    with unmoved():
        answer = world.one.by_provider.post(f"/v1/tasks/{other['id']}/submit", {"deliverable": {}, "invoice": terms})
    assert (answer.status, answer.json["code"]) == (409, "duplicate_invoice")
