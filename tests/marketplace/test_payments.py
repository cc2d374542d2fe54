"""POST /v1/payments and what follows: pay, read, redeem, refund."""

from uuid import uuid4

import pytest

from escrow.models import Payment
from tests.marketplace.conftest import World, money

pytestmark = pytest.mark.django_db

PAY = {"to": "agent://lint.acme.dev", "amount": "0.012", "currency": "USDC", "metadata": {"file": "a.py"}}


def test_a_payment_moves_its_amount_from_the_session_to_what_is_owed(world: World) -> None:
    answer = world.a.by_session.post("/v1/payments", PAY)
    assert answer.status == 201
    paid = answer.json
    assert paid["amount"] == "0.012"
    assert paid["remaining"] == "24.988"
    assert paid["status"] == "payable"
    assert paid["to"] == paid["agent"] == "agent://lint.acme.dev"
    assert paid["metadata"] == {"file": "a.py"}
    assert paid["session_id"] == str(world.a.session.pk)
    assert paid["provider_id"] == str(world.one.provider.pk)
    accounts = money()
    assert accounts[f"session:{world.a.session.pk}"] == (12_000, 25_000_000)
    assert accounts[f"payable:{world.a.pool.pk}:{world.one.provider.party_id}"] == (0, 12_000)


def test_the_same_key_and_body_pay_once_and_answer_the_same_bytes(world: World) -> None:
    first = world.a.by_session.post("/v1/payments", PAY, idempotency_key="k-1")
    before = money()
    again = world.a.by_session.post("/v1/payments", dict(reversed(PAY.items())), idempotency_key="k-1")
    assert (again.status, again.raw) == (201, first.raw)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert money() == before


def test_the_answer_stays_the_same_after_the_payment_has_moved_on(world: World) -> None:
    first = world.a.by_session.post("/v1/payments", PAY, idempotency_key="k-1")
    path = f"/v1/payments/{first.json['id']}"
    assert world.one.by_provider.post(f"{path}/refund", {"reason": "cannot parse it"}).json["status"] == "refunded"
    assert world.a.by_session.post("/v1/payments", PAY, idempotency_key="k-1").raw == first.raw


def test_the_same_key_with_another_body_is_refused(world: World, unmoved) -> None:
    world.a.by_session.post("/v1/payments", PAY, idempotency_key="k-1")
    with unmoved():
        answer = world.a.by_session.post("/v1/payments", {**PAY, "amount": "0.013"}, idempotency_key="k-1")
    assert (answer.status, answer.json["code"]) == (409, "idempotency_conflict")
    assert answer.json["outcome"] == "not_charged"


def test_two_sessions_may_use_the_same_key(world: World) -> None:
    assert world.a.by_session.post("/v1/payments", PAY, idempotency_key="k-1").status == 201
    assert world.b.by_session.post("/v1/payments", PAY, idempotency_key="k-1").status == 201


def test_without_a_key_nothing_is_paid(world: World, unmoved) -> None:
    with unmoved():
        answer = world.a.by_session.post("/v1/payments", PAY, idempotency_key=None)
    assert (answer.status, answer.json["code"]) == (400, "idempotency_key_required")


def test_more_than_the_session_holds_is_refused_with_what_is_left(world: World, unmoved) -> None:
    with unmoved():
        answer = world.a.by_session.post("/v1/payments", {**PAY, "amount": "25.000001"})
    assert (answer.status, answer.json["code"]) == (402, "insufficient_funds")
    assert answer.json["remaining"] == answer.json["would_allow"] == "25.00"
    assert answer.json["required"] == "25.000001"
    assert answer.json["retryable"] is True
    assert answer.json["next_actions"][0]["path"] == f"/v1/sessions/{world.a.session.pk}"


def test_a_payer_is_told_to_top_up(world: World) -> None:
    body = {**PAY, "amount": "26.00", "session_id": str(world.a.session.pk)}
    answer = world.a.by_payer.post("/v1/payments", body)
    assert answer.json["next_actions"][0]["path"] == f"/v1/sessions/{world.a.session.pk}/top-up"


def test_a_policy_that_refuses_names_its_rule_and_what_would_pass(world: World, unmoved) -> None:
    opened = world.a.by_payer.post(
        "/v1/sessions", {"budget": "10.00", "policy": {"max_per_tx": "0.50", "allowed_recipients": ["*.acme.dev"]}}
    )
    caller = type(world.nobody)(opened.json["api_key"])
    with unmoved():
        dear = caller.post("/v1/payments", {**PAY, "amount": "0.51"})
        stranger = caller.post("/v1/payments", {**PAY, "to": "agent://check.example.dev"})
    assert (dear.status, dear.json["code"], dear.json["rule"]) == (403, "policy_denied", "max_per_tx")
    assert (dear.json["limit"], dear.json["would_allow"]) == ("0.50", "0.50")
    assert (stranger.status, stranger.json["rule"]) == (403, "allowed_recipients")
    assert stranger.json["would_allow"] == ["*.acme.dev"]
    assert caller.post("/v1/payments", {**PAY, "amount": "0.50"}).status == 201


@pytest.mark.promise("S32")
def test_nobody_is_paid_by_a_name_that_no_agent_has(world: World, unmoved) -> None:
    with unmoved():
        answer = world.a.by_session.post("/v1/payments", {**PAY, "to": "agent://unknown.acme.dev"})
    assert (answer.status, answer.json["code"]) == (404, "not_found")


def test_a_payer_pays_from_the_session_it_names(world: World, unmoved) -> None:
    with unmoved():
        foreign = world.a.by_payer.post("/v1/payments", {**PAY, "session_id": str(world.b.session.pk)})
    assert foreign.status == 404
    assert world.a.by_payer.post("/v1/payments", {**PAY, "session_id": str(world.a.session.pk)}).status == 201


def test_a_payer_that_names_no_session_pays_from_its_oldest_open_one(world: World, unmoved) -> None:
    pay = world.a.by_payer.post
    first = pay("/v1/payments", PAY, idempotency_key="p-1")
    newer = pay("/v1/sessions", {"budget": "5.00"}).json
    assert first.json["session_id"] == str(world.a.session.pk)
    assert pay("/v1/payments", PAY, idempotency_key="p-2").json["session_id"] == str(world.a.session.pk)
    pay(f"/v1/sessions/{world.a.session.pk}/close")
    with unmoved():
        again = pay("/v1/payments", PAY, idempotency_key="p-1")
    assert (again.json["id"], again.headers["Idempotent-Replayed"]) == (first.json["id"], "true")
    assert pay("/v1/payments", PAY, idempotency_key="p-3").json["session_id"] == newer["id"]
    pay(f"/v1/sessions/{newer['id']}/close")
    with unmoved():
        none = pay("/v1/payments", PAY, idempotency_key="p-4")
    assert (none.status, none.json["subject"], none.json["state"]) == (409, "session", "none")


def test_a_session_key_cannot_name_another_session(world: World, unmoved) -> None:
    with unmoved():
        answer = world.a.by_session.post("/v1/payments", {**PAY, "session_id": str(world.b.session.pk)})
    assert answer.status == 404


def test_the_provider_sees_the_payment_without_what_the_buyer_has_left(world: World) -> None:
    payment_id = world.a.by_session.post("/v1/payments", PAY).json["id"]
    seen = world.one.by_provider.get(f"/v1/payments/{payment_id}").json
    assert seen["amount"] == "0.012"
    assert seen["remaining"] is None
    assert world.two.by_provider.get(f"/v1/payments/{payment_id}").status == 404


def test_redeeming_binds_the_payment_to_one_request(world: World) -> None:
    payment_id = world.a.by_session.post("/v1/payments", PAY).json["id"]
    redeem = f"/v1/payments/{payment_id}/redeem"
    first = world.one.by_provider.post(redeem, {"request_hash": "a" * 64}, idempotency_key=None)
    retry = world.one.by_provider.post(redeem, {"request_hash": "a" * 64}, idempotency_key=None)
    other = world.one.by_provider.post(redeem, {"request_hash": "b" * 64}, idempotency_key=None)
    assert (first.status, retry.status) == (200, 200)
    assert first.json["redeemed_at"] == retry.json["redeemed_at"]
    assert (other.status, other.json["code"]) == (409, "already_redeemed")


def test_another_provider_cannot_redeem_or_refund(world: World, unmoved) -> None:
    payment_id = world.a.by_session.post("/v1/payments", PAY).json["id"]
    with unmoved():
        assert world.two.by_provider.post(f"/v1/payments/{payment_id}/redeem", {"request_hash": "a" * 64}).status == 404
        assert world.two.by_provider.post(f"/v1/payments/{payment_id}/refund", {"reason": "mine"}).status == 404
    assert Payment.objects.get(pk=payment_id).redeemed_hash == ""


def test_a_refund_gives_the_amount_back_once(world: World) -> None:
    payment_id = world.a.by_session.post("/v1/payments", PAY).json["id"]
    refund = f"/v1/payments/{payment_id}/refund"
    first = world.one.by_provider.post(refund, {"reason": "cannot parse it"}, idempotency_key="r-1")
    again = world.one.by_provider.post(refund, {"reason": "cannot parse it"}, idempotency_key="r-1")
    assert (first.status, first.json["status"]) == (200, "refunded")
    assert again.raw == first.raw
    assert world.a.by_session.get(f"/v1/sessions/{world.a.session.pk}").json["remaining"] == "25.00"


def test_a_refunded_payment_buys_nothing(world: World) -> None:
    payment_id = world.a.by_session.post("/v1/payments", PAY).json["id"]
    world.one.by_provider.post(f"/v1/payments/{payment_id}/refund", {"reason": "cannot parse it"})
    answer = world.one.by_provider.post(f"/v1/payments/{payment_id}/redeem", {"request_hash": "a" * 64})
    assert (answer.status, answer.json["code"], answer.json["state"]) == (409, "conflict", "refunded")


def test_payments_are_listed_newest_first_and_by_status(world: World) -> None:
    ids = [world.a.by_session.post("/v1/payments", PAY).json["id"] for _ in range(3)]
    world.one.by_provider.post(f"/v1/payments/{ids[0]}/refund", {"reason": "cannot parse it"})
    listed = world.a.by_session.get("/v1/payments").json
    assert [row["id"] for row in listed["items"]] == ids[::-1]
    assert listed["next"] is None
    assert [row["id"] for row in world.a.by_payer.get("/v1/payments?status=refunded").json["items"]] == [ids[0]]
    assert world.b.by_session.get("/v1/payments").json["items"] == []
    assert world.a.by_payer.get(f"/v1/payments?session_id={uuid4()}").json["items"] == []
