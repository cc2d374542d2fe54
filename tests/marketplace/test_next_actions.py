"""Next actions can be sent as they are: what the API offers, it takes. The tests' caller checks the form of each it gets."""

from typing import Any

import pytest
from django.db import OperationalError

from marketplace.api import rates
from marketplace.api.rates import Quota
from tests.marketplace.client import Answer, Caller
from tests.marketplace.conftest import World

pytestmark = pytest.mark.django_db

PAY = {"to": "agent://lint.acme.dev", "amount": "0.01", "metadata": {"file": "a.py"}}
FORM = {400, 404, 405, 406, 413, 415}
"""What an offer that is wrong in its form would be refused with."""


def take(caller: Caller, action: dict[str, Any]) -> Answer | None:
    """Send an offer as it is; None for one that wants what only the caller knows."""
    if "needs" in action:
        return None
    if action["path"].startswith("/docs/"):
        assert caller.http.get(action["path"]).status_code == 200
        return None
    if action["method"] == "POST":
        key = "new" if "Idempotency-Key" in action.get("headers", ()) else None
        return caller.post(action["path"], action["body"], idempotency_key=key)
    return caller.get(action["path"]) if action["method"] == "GET" else caller.delete(action["path"])


def take_all(caller: Caller, actions: list[dict[str, Any]]) -> int:
    """Send each offer, and return how many could be sent."""
    sent = [answer for action in actions if (answer := take(caller, action)) is not None]
    for answer in sent:
        assert answer.status not in FORM, answer.json
    return len(sent)


def task_of(world: World) -> dict[str, Any]:
    body = {"title": "t", "capability": "review", "budget": "1.00", "agent": "agent://lint.acme.dev"}
    return dict(world.a.by_session.post("/v1/tasks", body).json)


def submitted(world: World) -> dict[str, Any]:
    delivery = {"deliverable": {}, "invoice": {"amount": "1.00", "number": "INV-1"}}
    return dict(world.one.by_provider.post(f"/v1/tasks/{task_of(world)['id']}/submit", delivery).json)


def test_what_a_new_payment_offers_its_buyer(world: World) -> None:
    paid = world.a.by_session.post("/v1/payments", PAY).json
    dispute = paid["next_actions"][1]
    assert dispute["body"] == {
        "payment_id": paid["id"],
        "reason": "What was paid for did not come, or is not what was asked for.",
    }
    assert take_all(world.a.by_session, paid["next_actions"]) == 2
    assert world.a.by_session.get("/v1/disputes").json["items"][0]["payment_id"] == paid["id"]


def test_what_a_payment_offers_its_provider(world: World) -> None:
    id = world.a.by_session.post("/v1/payments", PAY).json["id"]
    offers = world.one.by_provider.get(f"/v1/payments/{id}").json["next_actions"]
    redeem, refund = offers
    assert (redeem["needs"], "headers" in redeem, "body" in redeem) == (["request_hash"], False, False)
    assert refund["body"] == {"reason": "The request could not be served."}
    assert take(world.one.by_provider, refund).json["status"] == "refunded"  # type: ignore[union-attr]


def test_what_a_session_offers(world: World) -> None:
    of_payer = world.a.by_payer.get(f"/v1/sessions/{world.a.session.pk}").json["next_actions"]
    of_agent = world.a.by_session.get(f"/v1/sessions/{world.a.session.pk}").json["next_actions"]
    needs = [
        {action["path"]: action.get("needs") for action in offers if action["method"] == "POST"}
        for offers in (of_agent, of_payer)
    ]
    assert needs[0] == {"/v1/payments": ["to", "amount"], "/v1/tasks": ["title", "capability", "budget"]}
    assert needs[1]["/v1/payments"] == ["to", "amount", "session_id"]
    assert take_all(world.a.by_payer, of_payer) == 2
    assert world.a.by_payer.get(f"/v1/sessions/{world.a.session.pk}").json["status"] == "closed"


def test_what_a_delivery_offers_its_buyer_and_its_provider(world: World) -> None:
    task = submitted(world)
    of_buyer = world.a.by_session.get(f"/v1/tasks/{task['id']}").json["next_actions"]
    reject = next(action for action in of_buyer if action["path"].endswith("/reject"))
    rejected = take(world.a.by_session, reject)
    assert (rejected.status, rejected.json["reason"]) == (200, "It is not what was asked for.")  # type: ignore[union-attr]
    again = world.a.by_session.get(f"/v1/tasks/{task['id']}").json["next_actions"]
    dispute = next(action for action in again if action["path"] == "/v1/disputes")
    assert take(world.a.by_session, dispute).status == 201  # type: ignore[union-attr]


# --- After refusals --------------------------------------------------------------------------------------------------
def test_too_little_is_topped_up_with_just_what_is_missing_and_the_request_passes(world: World, unmoved) -> None:
    body = {**PAY, "amount": "26.5", "session_id": str(world.a.session.pk)}
    with unmoved():
        refused = world.a.by_payer.post("/v1/payments", body, idempotency_key="k-1")
    top_up = refused.json["next_actions"][0]
    assert (top_up["path"], top_up["body"]) == (f"/v1/sessions/{world.a.session.pk}/top-up", {"amount": "1.50"})
    assert take(world.a.by_payer, top_up).status == 200  # type: ignore[union-attr]
    paid = world.a.by_payer.post("/v1/payments", body, idempotency_key="k-1")
    assert (paid.status, paid.json["remaining"]) == (201, "0.00")


def test_after_an_outage_the_very_same_request_is_offered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(**_: object) -> None:
        raise OperationalError("canceling statement due to lock timeout")

    with monkeypatch.context() as broken:
        broken.setattr("escrow.payments.send", slow)
        again = world.a.by_session.post("/v1/payments", PAY, idempotency_key="k-1").json["next_actions"][0]
        large = world.a.by_session.post("/v1/payments", {**PAY, "metadata": {"x": "y" * 5_000}}).json["next_actions"][0]
    assert (again["method"], again["path"], again["body"]) == ("POST", "/v1/payments", PAY)
    assert world.a.by_session.post("/v1/payments", again["body"], idempotency_key="k-1").status == 201
    assert (large["needs"], "body" in large) == (["the same body"], False)


def test_a_read_is_repeated_with_its_query(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object, **__: object) -> None:
        raise OperationalError("timeout")

    with monkeypatch.context() as broken:
        broken.setattr("marketplace.api.payments.page", slow)
        again = world.a.by_session.get("/v1/payments?limit=5&status=payable").json["next_actions"][0]
    assert again == {"method": "GET", "path": "/v1/payments?limit=5&status=payable", "why": "Repeat the request."}
    assert take(world.a.by_session, again).status == 200  # type: ignore[union-attr]


def test_when_the_quota_is_used_up_the_same_request_is_offered_for_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "PAYMENTS", Quota("payments", "payments", "1/minute"))
    world.a.by_session.post("/v1/payments", PAY)
    again = world.a.by_session.post("/v1/payments", PAY, idempotency_key="k-2").json["next_actions"][0]
    assert (again["body"], again["why"][:25]) == (PAY, "Wait for Retry-After seco")
    rates.PAYMENTS.forget()
    assert take(world.a.by_session, again).status == 201  # type: ignore[union-attr]


def test_what_needs_a_person_is_asked_for_approved_and_sent_again(world: World, unmoved) -> None:
    opened = world.a.by_payer.post("/v1/sessions", {"budget": "2.00", "policy": {"approval_above": "0.50"}}).json
    agent, body = Caller(opened["api_key"]), {**PAY, "amount": "0.51"}
    with unmoved():
        refused = agent.post("/v1/payments", body, idempotency_key="k-1").json
    see, again = refused["next_actions"][:2]
    assert see["path"] == f"/v1/approvals/{refused['approval_id']}"
    [approve] = [
        action
        for action in world.a.by_payer.get(see["path"]).json["next_actions"]
        if action["path"].endswith("/approve")
    ]
    assert take(world.a.by_payer, approve).status == 200  # type: ignore[union-attr]
    assert again["body"] == body
    assert agent.post(again["path"], again["body"], idempotency_key="k-1").status == 201


def test_a_conflict_shows_the_subject_whatever_it_is(world: World) -> None:
    key = world.one.by_provider.post("/v1/keys").json
    world.one.by_provider.delete(f"/v1/keys/{key['id']}")
    task = submitted(world)
    refusals = [
        (world.one.by_provider, world.one.by_provider.post(f"/v1/keys/{key['id']}/rotate")),
        (world.a.by_session, world.a.by_session.post(f"/v1/tasks/{task['id']}/cancel")),
        (world.a.by_session, world.a.by_session.post(f"/v1/tasks/{task['id']}/assign", {"agent": PAY["to"]})),
        (world.one.by_provider, world.one.by_provider.post("/v1/agents", {"uri": PAY["to"], "name": "again"})),
    ]
    for caller, refused in refusals:
        assert refused.status == 409, refused.json
        assert take_all(caller, refused.json["next_actions"]) == 1


def test_who_may_not_is_told_what_its_key_is(world: World) -> None:
    refused = world.a.by_session.post("/v1/keys")
    assert (refused.status, refused.json["next_actions"][0]["path"]) == (403, "/v1/me")
    assert take_all(world.a.by_session, refused.json["next_actions"]) == 1
