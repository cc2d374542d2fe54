"""/v1/sessions: open with a key, read, top up, close, the ledger."""

import pytest

from escrow.models import Session
from marketplace.models import ApiKey, IdempotencyRecord
from tests.marketplace.client import Caller
from tests.marketplace.conftest import World, buyer, funded_pool, money

pytestmark = pytest.mark.django_db

OPEN = {"budget": "10.00", "currency": "USDC", "policy": {"max_per_tx": "0.50", "allowed_recipients": ["*.acme.dev"]}}


def test_a_session_takes_its_budget_from_the_pool_and_comes_with_a_key(world: World) -> None:
    answer = world.a.by_payer.post("/v1/sessions", {**OPEN, "name": "run 1"})
    assert answer.status == 201
    opened = answer.json
    assert (opened["budget"], opened["spent"], opened["held"], opened["remaining"]) == (
        "10.00",
        "0.00",
        "0.00",
        "10.00",
    )
    assert opened["policy"] == OPEN["policy"]
    assert opened["pool_id"] == str(world.a.pool.pk)
    me = Caller(opened["api_key"]).get("/v1/me").json
    assert (me["scope"], me["session_id"]) == ("session", opened["id"])
    assert money()[f"session:{opened['id']}"] == (0, 10_000_000)


def test_the_same_request_answers_the_same_key_which_is_stored_nowhere(world: World) -> None:
    first = world.a.by_payer.post("/v1/sessions", OPEN, idempotency_key="s-1")
    before = money()
    again = world.a.by_payer.post("/v1/sessions", OPEN, idempotency_key="s-1")
    assert (again.status, again.raw) == (201, first.raw)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert money() == before
    secret = first.json["api_key"].split("_")[3]
    record = IdempotencyRecord.objects.get(key="s-1")
    key = ApiKey.objects.get(session_id=first.json["id"])
    assert secret not in record.body
    assert secret not in str([getattr(key, field.attname) for field in ApiKey._meta.concrete_fields])


def test_the_same_key_with_another_body_opens_nothing(world: World, unmoved) -> None:
    world.a.by_payer.post("/v1/sessions", OPEN, idempotency_key="s-1")
    with unmoved():
        answer = world.a.by_payer.post("/v1/sessions", {**OPEN, "budget": "11.00"}, idempotency_key="s-1")
    assert (answer.status, answer.json["code"]) == (409, "idempotency_conflict")


def test_the_same_key_on_another_path_is_another_request(world: World, unmoved) -> None:
    top_up = f"/v1/sessions/{world.a.session.pk}/top-up"
    world.a.by_payer.post(top_up, {"amount": "1.00"}, idempotency_key="s-1")
    with unmoved():
        answer = world.a.by_payer.post("/v1/sessions", OPEN, idempotency_key="s-1")
    assert (answer.status, answer.json["code"]) == (409, "idempotency_conflict")


def test_a_refusal_is_not_remembered(world: World, unmoved) -> None:
    body = {**OPEN, "budget": "75.000001"}
    with unmoved():
        refused = world.a.by_payer.post("/v1/sessions", body, idempotency_key="s-1")
    assert (refused.status, refused.json["code"], refused.json["remaining"]) == (402, "insufficient_funds", "75.00")
    assert not Session.objects.filter(pool=world.a.pool).exclude(pk=world.a.session.pk).exists()
    world.a.by_payer.post(f"/v1/sessions/{world.a.session.pk}/close")
    assert world.a.by_payer.post("/v1/sessions", body, idempotency_key="s-1").status == 201


def test_the_policy_refuses_what_it_does_not_know_by_the_very_member(world: World, unmoved) -> None:
    day = {"days": ["mon"], "from": "09:00", "to": "17:00", "zone": "UTC"}
    for policy, field in (
        ({"max_per_week": "1.00"}, "policy.max_per_week"),
        ({"max_tx_per_minute": "60"}, "policy.max_tx_per_minute"),
        ({"max_per_hour": 1}, "policy.max_per_hour"),
        ({"max_per_tx": 0.5}, "policy.max_per_tx"),
        ({"approval_above": 1}, "policy.approval_above"),
        ({"new_recipient_max": "0"}, "policy.new_recipient_max"),
        ({"allowed_recipients": ["*"]}, "policy.allowed_recipients"),
        ({"allowed_recipients": []}, "policy.allowed_recipients"),
        ({"allowed_capabilities": ["*"]}, "policy.allowed_capabilities"),
        ({"windows": [day, day | {"to": "09:00"}]}, "policy.windows[1].to"),
        ({"windows": [day | {"zone": "+01:00"}]}, "policy.windows[0].zone"),
        ({"checkpoint_at": ["0.8", "0.5"]}, "policy.checkpoint_at"),
        ({"expires_at": "2030-01-01"}, "policy.expires_at"),
        ({"payment.budget": {"max": 10, "currency": "USDC"}}, "policy.payment.budget.max"),
        ({"constraints": [{"type": "payment.allowed_pisps"}]}, "policy.constraints[0]"),
        ([], "policy"),
    ):
        with unmoved():
            answer = world.a.by_payer.post("/v1/sessions", {"budget": "1.00", "policy": policy})
        (error,) = answer.json["errors"]
        assert (answer.status, error["field"]) == (400, field), policy
        assert error["message"] == f"{field} {error['rule']}."


def test_a_mandate_is_read_and_answered_in_our_own_keys(world: World) -> None:
    policy = {
        "windows": [{"days": ["sun", "mon"], "from": "00:00", "to": "24:00", "zone": "Europe/Berlin"}],
        "constraints": [
            {"type": "payment.budget", "max": "5.0", "currency": "USDC"},
            {"type": "payment.allowed_payees", "allowed": ["*.acme.dev"]},
        ],
    }
    opened = world.a.by_payer.post("/v1/sessions", {"budget": "1.00", "policy": policy})
    assert opened.status == 201
    assert opened.json["policy"] == {
        "windows": [{"days": ["mon", "sun"], "from": "00:00", "to": "24:00", "zone": "Europe/Berlin"}],
        "max_total": "5.00",
        "allowed_recipients": ["*.acme.dev"],
    }


def test_the_pool_is_the_only_open_one_or_is_named(world: World, unmoved) -> None:
    second = funded_pool(world.a.payer, 5_000_000)
    with unmoved():
        unnamed = world.a.by_payer.post("/v1/sessions", {"budget": "1.00"})
        foreign = world.a.by_payer.post("/v1/sessions", {"budget": "1.00", "pool_id": str(world.b.pool.pk)})
    assert (unnamed.status, unnamed.json["errors"][0]["field"]) == (400, "pool_id")
    assert foreign.status == 404
    named = world.a.by_payer.post("/v1/sessions", {"budget": "1.00", "pool_id": str(second.pk)})
    assert named.json["pool_id"] == str(second.pk)


def test_a_top_up_moves_more_into_it(world: World) -> None:
    path = f"/v1/sessions/{world.a.session.pk}"
    answer = world.a.by_payer.post(f"{path}/top-up", {"amount": "5.00"})
    assert (answer.json["budget"], answer.json["remaining"]) == ("30.00", "30.00")


def test_closing_gives_the_rest_back_and_ends_spending(world: World, unmoved) -> None:
    pay = {"to": "agent://lint.acme.dev", "amount": "1.00"}
    world.a.by_session.post("/v1/payments", pay)
    closed = world.a.by_payer.post(f"/v1/sessions/{world.a.session.pk}/close").json
    assert (closed["status"], closed["spent"], closed["remaining"]) == ("closed", "1.00", "0.00")
    assert world.a.by_payer.get(f"/v1/pools/{world.a.pool.pk}").json["available"] == "99.00"
    with unmoved():
        late = world.a.by_session.post("/v1/payments", pay)
    assert (late.status, late.json["code"], late.json["state"]) == (409, "conflict", "closed")


def test_the_ledger_shows_every_transfer_from_the_sessions_view(world: World) -> None:
    paid = world.a.by_session.post("/v1/payments", {"to": "agent://lint.acme.dev", "amount": "0.008"}).json
    lines = world.a.by_session.get(f"/v1/sessions/{world.a.session.pk}/ledger").json["items"]
    assert [(line["reason"], line["amount"]) for line in lines] == [("payment", "-0.008"), ("session_open", "25.00")]
    assert lines[0]["ref"] == paid["id"]
    assert lines[0]["counterparty"].startswith("payable:")


def test_sessions_are_listed_newest_first(world: World) -> None:
    ids = [world.a.by_payer.post("/v1/sessions", {"budget": "1.00"}).json["id"] for _ in range(4)]
    first = world.a.by_payer.get("/v1/sessions?limit=3").json
    rest = world.a.by_payer.get(f"/v1/sessions?limit=3&cursor={first['next']}").json
    assert [row["id"] for row in first["items"] + rest["items"]] == [*ids[::-1], str(world.a.session.pk)]
    assert rest["next"] is None


def test_an_expired_session_pays_nobody(world: World, unmoved) -> None:
    past = world.a.by_payer.post(
        "/v1/sessions", {"budget": "1.00", "policy": {"expires_at": "2020-01-01T00:00:00Z"}}
    ).json
    with unmoved():
        answer = Caller(past["api_key"]).post("/v1/payments", {"to": "agent://lint.acme.dev", "amount": "0.01"})
    assert (answer.status, answer.json["rule"]) == (403, "expires_at")


def test_two_payers_may_use_the_same_idempotency_key(world: World) -> None:
    other = buyer("payer C")
    first = world.a.by_payer.post("/v1/sessions", {"budget": "1.00"}, idempotency_key="s-1")
    second = other.by_payer.post("/v1/sessions", {"budget": "1.00"}, idempotency_key="s-1")
    assert (first.status, second.status) == (201, 201)
    assert first.json["id"] != second.json["id"]
