"""Refusals: one form, a request id, and what to do next."""

import logging

import pytest
from django.db import OperationalError

from marketplace.api.problems import KINDS
from tests.marketplace.conftest import World

pytestmark = pytest.mark.django_db

PAY = {"to": "agent://lint.acme.dev", "amount": "0.01"}


def test_every_answer_has_an_id_of_its_own(world: World) -> None:
    answers = [world.a.by_payer.get("/v1/me"), world.a.by_payer.get("/v1/nothing"), world.nobody.get("/livez")]
    ids = {answer.headers["X-Request-Id"] for answer in answers}
    assert len(ids) == 3


def test_an_id_from_outside_is_not_taken_over(world: World) -> None:
    assert world.a.by_payer.get("/v1/me", **{"X-Request-Id": "mine"}).headers["X-Request-Id"] != "mine"


def test_a_problem_has_the_members_of_rfc_9457_and_ours(world: World) -> None:
    problem = world.a.by_payer.get("/v1/payments/0198c5f0-7a54-7c3e-9c5e-0c7c8f3f2a10").json
    assert problem["type"] == "/docs/errors/not_found"
    assert problem["title"] == KINDS["not_found"].title
    assert (problem["status"], problem["code"], problem["retryable"]) == (404, "not_found", False)
    assert {"detail", "next_actions", "request_id"} <= set(problem)
    assert "outcome" not in problem


def test_every_wrong_field_is_listed_with_what_would_pass(world: World, unmoved) -> None:
    with unmoved():
        answer = world.a.by_session.post("/v1/payments", {"to": 1, "amount": 0.5, "sesion_id": "x"})
    errors = {error["field"]: error for error in answer.json["errors"]}
    assert set(errors) == {"to", "amount", "sesion_id"}
    assert errors["sesion_id"]["rule"] == "is not a field here"
    assert "session_id" in errors["sesion_id"]["would_pass"]
    assert answer.json["detail"] == "3 fields are wrong."


def test_a_nested_field_is_named_by_its_path(world: World) -> None:
    body = {"deliverable": {}, "invoice": {"amount": "x", "number": "INV-1"}}
    answer = world.one.by_provider.post("/v1/tasks/0198c5f0-7a54-7c3e-9c5e-0c7c8f3f2a10/submit", body)
    assert answer.json["errors"][0]["field"] == "invoice.amount"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE", "DELETE"])
def test_a_method_that_is_none_says_which_are(world: World, method: str) -> None:
    answer = world.a.by_payer.send(method, "/v1/payments")
    assert (answer.status, answer.json["code"]) == (405, "method_not_allowed")
    assert {"GET", "POST"} <= set(answer.headers["Allow"].split(", "))


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "image/*", "application/json;q=x, text/html"])
def test_only_json_is_spoken(world: World, accept: str) -> None:
    answer = world.a.by_payer.get("/v1/me", Accept=accept)
    assert answer.status in (200, 406)
    if answer.status == 406:
        assert answer.json["code"] == "not_acceptable"


@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/*", "text/html, */*;q=0.1"])
def test_whoever_takes_json_gets_it(world: World, accept: str) -> None:
    assert world.a.by_payer.get("/v1/me", Accept=accept).status == 200


def test_a_fault_of_ours_is_logged_under_its_id_and_says_that_the_outcome_is_unknown(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, unmoved
) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("escrow.payments.send", broken)
    with unmoved(), caplog.at_level(logging.ERROR):
        answer = world.a.by_session.post("/v1/payments", PAY)
    assert (answer.status, answer.json["code"], answer.json["outcome"]) == (500, "internal", "unknown")
    assert answer.json["retryable"] is True
    assert b"secret" not in answer.raw
    assert answer.json["request_id"] in caplog.text
    assert answer.json["next_actions"][0] == {
        "method": "POST", "path": "/v1/payments", "why": "Repeat the request with the same Idempotency-Key.",
        "headers": ["Idempotency-Key"], "body": PAY,
    }  # fmt: skip


def test_a_database_that_does_not_answer_is_503_with_retry_after(
    world: World, monkeypatch: pytest.MonkeyPatch, unmoved
) -> None:
    def slow(**_: object) -> None:
        raise OperationalError("canceling statement due to lock timeout")

    monkeypatch.setattr("escrow.payments.send", slow)
    with unmoved():
        answer = world.a.by_session.post("/v1/payments", PAY)
    assert (answer.status, answer.json["code"], answer.json["outcome"]) == (503, "unavailable", "unknown")
    assert answer.headers["Retry-After"] == "1"


def test_keys_are_never_logged_nor_answered(world: World, caplog: pytest.LogCaptureFixture) -> None:
    key = world.a.by_session.key
    assert key is not None
    with caplog.at_level(logging.DEBUG):
        answers = [
            world.a.by_session.post("/v1/payments", PAY),
            world.a.by_session.post("/v1/payments", {"to": key}),
            world.a.by_payer.get("/v1/keys"),
        ]
    assert key not in caplog.text
    assert all(key.encode() not in answer.raw for answer in answers)


def test_pages_for_people_get_html_and_everything_else_json(world: World) -> None:
    answer = world.nobody.http.get("/nothing")
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")
