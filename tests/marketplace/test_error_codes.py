"""Every code: a real request that is refused with it, the document that comes, that nothing moved, and its page."""

import html
import json
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from django.db import connection, transaction
from django.test import Client

from marketplace.api import error_pages, rates
from marketplace.api.errors import Problem
from marketplace.api.fields import POLICY_SCHEMA
from marketplace.api.problems import KINDS
from marketplace.api.rates import Quota
from tests.escrow import books
from tests.marketplace.client import Answer, check_action, validator
from tests.marketplace.conftest import World

pytestmark = pytest.mark.django_db

Refused = Callable[[], Answer]
PAY = {"to": "agent://lint.acme.dev", "amount": "0.01"}
RAW = json.dumps(PAY).encode()
NOTHING = "0198c5f0-7a54-7c3e-9c5e-0c7c8f3f2a10"
REFUSALS: dict[str, Callable[[World, pytest.MonkeyPatch], Refused]] = {}
"""For each code: what has to be before, and the request that is refused."""


def of(code: str) -> Callable[[Callable[[World, pytest.MonkeyPatch], Refused]], None]:
    def add(make: Callable[[World, pytest.MonkeyPatch], Refused]) -> None:
        REFUSALS[code] = make

    return add


@of("invalid_request")
def _(world: World, _: pytest.MonkeyPatch) -> Refused:
    return lambda: world.a.by_session.post("/v1/payments", {**PAY, "amount": 0.01})


@of("invalid_json")
def _(world: World, _: pytest.MonkeyPatch) -> Refused:
    return lambda: world.a.by_session.send("POST", "/v1/payments", b'{"to": NaN}', idempotency_key="new")


@of("idempotency_key_required")
def _(world: World, _: pytest.MonkeyPatch) -> Refused:
    return lambda: world.a.by_session.post("/v1/payments", PAY, idempotency_key=None)


@of("unauthenticated")
def _(world: World, _: pytest.MonkeyPatch) -> Refused:
    return lambda: world.nobody.post("/v1/payments", PAY)


@of("insufficient_funds")
def _(world: World, _: pytest.MonkeyPatch) -> Refused:
    return lambda: world.a.by_session.post("/v1/payments", {**PAY, "amount": "25.000001"})


@of("forbidden")
def _(world: World, _: pytest.MonkeyPatch) -> Refused:
    return lambda: world.one.by_provider.post("/v1/payments", PAY)


@of("policy_denied")
def _(world: World, _: pytest.MonkeyPatch) -> Refused:
    body = {"budget": "1.00", "policy": {"max_per_tx": "0.50"}}
    caller = type(world.nobody)(world.a.by_payer.post("/v1/sessions", body).json["api_key"])
    return lambda: caller.post("/v1/payments", {**PAY, "amount": "0.51"})


@of("not_found")
def _(world: World, _: pytest.MonkeyPatch) -> Refused:
    return lambda: world.a.by_session.post("/v1/payments", {**PAY, "to": "agent://nobody.acme.dev"})


@of("method_not_allowed")
def _(world: World, _: pytest.MonkeyPatch) -> Refused:
    return lambda: world.a.by_session.send("PUT", "/v1/payments", RAW, idempotency_key="new")


@of("not_acceptable")
def _(world: World, _: pytest.MonkeyPatch) -> Refused:
    return lambda: world.a.by_session.post("/v1/payments", PAY, Accept="text/html")


@of("conflict")
def _(world: World, _: pytest.MonkeyPatch) -> Refused:
    world.a.by_payer.post(f"/v1/sessions/{world.a.session.pk}/close")
    return lambda: world.a.by_session.post("/v1/payments", PAY)


@of("already_redeemed")
def _(world: World, _: pytest.MonkeyPatch) -> Refused:
    path = f"/v1/payments/{world.a.by_session.post('/v1/payments', PAY).json['id']}/redeem"
    world.one.by_provider.post(path, {"request_hash": "a" * 64})
    return lambda: world.one.by_provider.post(path, {"request_hash": "b" * 64})


@of("duplicate_invoice")
def _(world: World, _: pytest.MonkeyPatch) -> Refused:
    body = {"budget": "5.00", "policy": {"allowed_recipients": [PAY["to"]]}}
    session = world.a.by_payer.post("/v1/sessions", body).json["id"]
    claim = {"session_id": session, "agent": PAY["to"], "amount": "1.00", "number": "INV-1"}
    assert world.one.by_provider.post("/v1/invoices", claim).status == 201
    return lambda: world.one.by_provider.post("/v1/invoices", {**claim, "amount": "1.50"})


@of("not_settled_yet")
def _(world: World, _: pytest.MonkeyPatch) -> Refused:
    payment = world.a.by_session.post("/v1/payments", PAY).json["id"]
    return lambda: world.a.by_session.get(f"/v1/payments/{payment}/receipt")


@of("idempotency_conflict")
def _(world: World, _: pytest.MonkeyPatch) -> Refused:
    world.a.by_session.post("/v1/payments", PAY, idempotency_key="k-1")
    return lambda: world.a.by_session.post("/v1/payments", {**PAY, "amount": "0.02"}, idempotency_key="k-1")


@of("payload_too_large")
def _(world: World, _: pytest.MonkeyPatch) -> Refused:
    return lambda: world.a.by_session.post("/v1/payments", {**PAY, "metadata": {"x": "y" * 300_000}})


@of("unsupported_media_type")
def _(world: World, _: pytest.MonkeyPatch) -> Refused:
    return lambda: world.a.by_session.send(
        "POST", "/v1/payments", RAW, content_type="text/plain", idempotency_key="new"
    )


@of("rate_limited")
def _(world: World, patch: pytest.MonkeyPatch) -> Refused:
    patch.setattr(rates, "PAYMENTS", Quota("payments", "payments", "1/minute"))
    world.a.by_session.post("/v1/payments", PAY)
    return lambda: world.a.by_session.post("/v1/payments", PAY)


@of("internal")
def _(world: World, _: pytest.MonkeyPatch) -> Refused:
    def broken() -> Answer:
        before = transaction.savepoint()
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE marketplace_idempotencyrecord RENAME COLUMN body TO gone")
        answer = world.a.by_payer.post(f"/v1/sessions/{world.a.session.pk}/top-up", {"amount": "1.00"})
        transaction.savepoint_rollback(before)
        return answer

    return broken


@of("unavailable")
def _(world: World, _: pytest.MonkeyPatch) -> Refused:
    def busy() -> Answer:
        given = connection.get_connection_params()
        names = ("host", "port", "user", "password", "dbname")
        with psycopg.connect(**{name: given[name] for name in names if given.get(name)}) as other:
            other.execute("LOCK TABLE marketplace_idempotencyrecord IN ACCESS EXCLUSIVE MODE")
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL lock_timeout = 20")
            return world.a.by_payer.post(f"/v1/sessions/{world.a.session.pk}/top-up", {"amount": "1.00"})

    return busy


@of("approval_required")
def _(world: World, _: pytest.MonkeyPatch) -> Refused:
    body = {"budget": "1.00", "policy": {"approval_above": "0.50"}}
    caller = type(world.nobody)(world.a.by_payer.post("/v1/sessions", body).json["api_key"])
    return lambda: caller.post("/v1/payments", {**PAY, "amount": "0.51"})


@of("settlement_paused")
def _(world: World, _: pytest.MonkeyPatch) -> Refused:
    books.settlement_paused(world.a.pool)
    return lambda: world.a.by_session.post("/v1/payments", PAY)


# No verb refuses with this one yet; the document, its header and its page are what they will be.
@of("pool_opening")
def _(world: World, patch: pytest.MonkeyPatch) -> Refused:
    wait = {"Retry-After": "5"}
    return _refusing(world, patch, Problem("pool_opening", "It opens.", headers=wait, retryable=True))


def _refusing(world: World, patch: pytest.MonkeyPatch, problem: Problem) -> Refused:
    def refuse(**_: object) -> None:
        raise problem

    patch.setattr("escrow.payments.send", refuse)
    return lambda: world.a.by_session.post("/v1/payments", PAY)


@pytest.mark.parametrize("code", list(KINDS))
def test_a_real_request_is_refused_with_it_and_nothing_moves(
    world: World, unmoved, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    assert code in REFUSALS, f"add a request that is refused with {code}"
    refused = REFUSALS[code](world, monkeypatch)
    with unmoved():
        answer = refused()
    document = answer.json
    assert (document["code"], answer.status, document["title"]) == (code, KINDS[code].status, KINDS[code].title)
    assert document["type"] == f"/docs/errors/{code}"
    assert document.get("outcome", "not_charged") == KINDS[code].outcome
    assert document["retryable"] == (code in error_pages.RETRYABLE) or code == "policy_denied"
    assert document["next_actions"][-1]["path"] == f"/docs/errors/{code}"
    assert ("Retry-After" in answer.headers) == (
        code in ("rate_limited", "unavailable", "pool_opening", "settlement_paused")
    )
    schema = json.dumps({"$ref": "#/components/schemas/ProblemDocument"})
    assert not list(validator(schema).iter_errors(document))


# --- Pages -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("code", list(KINDS))
def test_its_page_says_what_it_is_what_helps_and_how_it_comes(client: Client, code: str) -> None:
    page = client.get(f"/docs/errors/{code}")
    said, kind = html.unescape(page.content.decode()), KINDS[code]
    assert page.status_code == 200
    for words in (kind.title, kind.meaning, kind.remedy, str(kind.status), "not_charged"):
        assert words in said
    shown = json.loads(said.split("<pre><code>")[1].split("</code></pre>")[0])
    assert shown == error_pages.example(code)
    assert not list(validator(json.dumps({"$ref": "#/components/schemas/ProblemDocument"})).iter_errors(shown))
    assert (shown["code"], shown["status"]) == (code, kind.status)
    for action in shown["next_actions"]:
        check_action(action)


def test_the_page_of_a_policys_refusal_has_a_part_for_each_of_its_rules(client: Client) -> None:
    said = client.get("/docs/errors/policy_denied").content.decode()
    rules = set(POLICY_SCHEMA["properties"]) - {"checkpoint_at"}
    assert set(error_pages.RULES) == rules
    assert all(f'id="{rule}"' in said for rule in rules)


def test_an_index_has_a_link_to_every_page(client: Client) -> None:
    said = client.get("/docs/errors").content.decode()
    assert all(f'href="/docs/errors/{code}"' in said for code in KINDS)


def test_the_committed_page_is_what_the_code_says() -> None:
    committed = Path(__file__).resolve().parents[2] / "docs" / "errors.md"
    assert committed.read_text(encoding="utf-8") == error_pages.markdown(), "run: .venv/bin/python .ci/errors.py"
