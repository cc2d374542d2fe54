"""/v1/refunds and a payment's refund: given, asked for, granted, declined; who may, and what each side sees."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from escrow import ledger, refunds, settlement
from escrow.chain.signer import LocalSigner
from escrow.models import Refund
from escrow.policy import Policy
from marketplace import keys
from marketplace.models import Scope
from tests.escrow import books
from tests.marketplace.client import Caller
from tests.marketplace.conftest import World, publish

pytestmark = pytest.mark.django_db


def pay(world: World, amount: str = "0.03") -> str:
    """Pay provider one; return the payment's id."""
    return world.a.by_session.post("/v1/payments", {"to": "agent://lint.acme.dev", "amount": amount}).json["id"]


def ask(world: World, payment_id: str, **more: str) -> dict:
    """Ask for a refund as the buyer."""
    answer = world.a.by_session.post("/v1/refunds", {"payment_id": payment_id, "reason": "nothing came", **more})
    assert answer.status == 201, answer.json
    return answer.json


def land(world: World) -> None:
    """Settle what A's pool owes, and let it land."""
    batch = settlement.settle(pool=world.a.pool, authorizer=LocalSigner(b"\1" * 32), now=timezone.now())
    assert batch is not None
    books.land(batch, tx_hash=f"0x{uuid4().hex:0>64}")


def remaining(world: World) -> str:
    return world.a.by_session.get(f"/v1/sessions/{world.a.session.pk}").json["remaining"]


def paths(answer: dict) -> list[str]:
    return [f"{action['method']} {action['path']}" for action in answer["next_actions"]]


# --- given --------------------------------------------------------------------------------------------------------


def test_a_provider_gives_a_part_back_and_then_the_rest(world: World) -> None:
    id = pay(world, "0.03")
    path = f"/v1/payments/{id}/refund"
    part = world.one.by_provider.post(path, {"reason": "half of it was empty", "amount": "0.01"})
    assert (part.status, part.json["status"], part.json["refunded"]) == (200, "payable", "0.01")
    assert remaining(world) == "24.98"
    rest = world.one.by_provider.post(path, {"reason": "and so was the rest"})
    assert (rest.json["status"], rest.json["refunded"], rest.json["amount"]) == ("refunded", "0.03", "0.03")
    assert remaining(world) == "25.00"
    lines = world.a.by_session.get(f"/v1/sessions/{world.a.session.pk}/ledger").json["items"]
    listed = world.a.by_session.get("/v1/refunds").json["items"]
    seen = [(line["amount"], line["ref"]) for line in lines if line["reason"] == "refund"]
    assert seen == [("0.02", listed[0]["id"]), ("0.01", listed[1]["id"])]


def test_a_repeated_refund_has_one_effect_and_one_answer(world: World, unmoved) -> None:
    path, body = f"/v1/payments/{pay(world)}/refund", {"reason": "x", "amount": "0.01"}
    first = world.one.by_provider.post(path, body, idempotency_key="r-1")
    with unmoved():
        again = world.one.by_provider.post(path, body, idempotency_key="r-1")
    assert (again.raw, again.headers["Idempotent-Replayed"]) == (first.raw, "true")
    with unmoved():
        other = world.one.by_provider.post(path, {**body, "amount": "0.02"}, idempotency_key="r-1")
    assert (other.status, other.json["code"]) == (409, "idempotency_conflict")
    assert world.one.by_provider.post(path, body, idempotency_key="r-2").json["refunded"] == "0.02"


def test_no_more_than_is_left_goes_back(world: World, unmoved) -> None:
    path = f"/v1/payments/{pay(world, '0.03')}/refund"
    world.one.by_provider.post(path, {"reason": "x", "amount": "0.02"})
    with unmoved():
        answer = world.one.by_provider.post(path, {"reason": "x", "amount": "0.010001"})
    assert (answer.status, answer.json["errors"][0]["field"]) == (400, "amount")
    assert answer.json["errors"][0]["would_pass"] == '"0.01" or less'
    assert answer.json["outcome"] == "not_charged"


def test_after_landing_a_refund_comes_out_of_what_is_owed_next(world: World, unmoved) -> None:
    old = pay(world, "0.03")
    land(world)
    path = f"/v1/payments/{old}/refund"
    with unmoved():
        none = world.one.by_provider.post(path, {"reason": "x"})
    assert (none.status, none.json["code"], none.json["would_allow"]) == (409, "conflict", "0.00")
    new = pay(world, "0.02")
    with unmoved():
        little = world.one.by_provider.post(path, {"reason": "x"})
    assert (little.json["state"], little.json["would_allow"], little.json["retryable"]) == ("settled", "0.02", False)
    assert "dispute" in little.json["detail"]
    given = world.one.by_provider.post(path, {"reason": "x", "amount": "0.02"}).json
    assert (given["status"], given["refunded"]) == ("settled", "0.02")
    offset = world.a.by_session.get(f"/v1/payments/{new}").json
    assert (offset["status"], offset["refunded"], offset["amount"]) == ("offset", "0.00", "0.02")
    assert [row["id"] for row in world.a.by_payer.get("/v1/payments?status=offset").json["items"]] == [new]
    balance = world.one.by_provider.get("/v1/balance").json
    assert (balance["payable"], balance["credited"]) == ("0.00", "0.03")
    assert remaining(world) == "24.97"


def test_a_receipt_proves_what_landed_of_a_partly_refunded_payment(world: World) -> None:
    id = pay(world, "0.03")
    world.one.by_provider.post(f"/v1/payments/{id}/refund", {"reason": "x", "amount": "0.01"})
    land(world)
    receipt = world.a.by_session.get(f"/v1/payments/{id}/receipt").json
    assert (receipt["amount"], receipt["amount_micros"], receipt["leaf"]["amount_micros"]) == ("0.02", "20000", "20000")
    pay(world, "0.05")
    world.one.by_provider.post(f"/v1/payments/{id}/refund", {"reason": "x", "amount": "0.005"})
    assert world.a.by_session.get(f"/v1/payments/{id}/receipt").json["leaf"] == receipt["leaf"]
    assert world.a.by_session.get(f"/v1/payments/{id}").json["refunded"] == "0.015"


def test_only_the_provider_that_was_paid_gives_back(world: World, unmoved) -> None:
    id = pay(world)
    callers = (world.a.by_session, world.a.by_payer, world.b.by_payer, world.two.by_provider, world.nobody)
    with unmoved():
        answers = [caller.post(f"/v1/payments/{id}/refund", {"reason": "mine"}).status for caller in callers]
    assert answers == [403, 403, 403, 404, 401]


# --- asked for ----------------------------------------------------------------------------------------------------


def test_a_buyer_asks_and_both_sides_read_it(world: World, unmoved) -> None:
    id = pay(world)
    with unmoved():
        refund = ask(world, id, amount="0.01")
    assert refund == {
        "id": refund["id"], "payment_id": id, "session_id": str(world.a.session.pk),
        "provider_id": str(world.one.provider.pk), "amount": "0.01", "currency": "USDC", "status": "requested",
        "reason": "nothing came", "answer": "", "answer_by": refund["answer_by"], "created_at": refund["created_at"],
        "answered_at": None, "next_actions": refund["next_actions"],
    }  # fmt: skip
    assert paths(refund) == [f"GET /v1/payments/{id}", "POST /v1/disputes"]
    seen = world.one.by_provider.get(f"/v1/refunds/{refund['id']}").json
    assert paths(seen) == [
        f"POST /v1/refunds/{refund['id']}/grant", f"POST /v1/refunds/{refund['id']}/decline", f"GET /v1/payments/{id}",
    ]  # fmt: skip
    assert {**seen, "next_actions": []} == {**refund, "next_actions": []}


def test_a_provider_grants_once(world: World, unmoved) -> None:
    refund = ask(world, pay(world, "0.03"), amount="0.01")
    path = f"/v1/refunds/{refund['id']}/grant"
    granted = world.one.by_provider.post(path)
    assert (granted.status, granted.json["status"]) == (200, "paid")
    assert remaining(world) == "24.98"
    with unmoved():
        assert world.one.by_provider.post(path).json["status"] == "paid"
    assert world.a.by_session.get(f"/v1/refunds/{refund['id']}").json["answered_at"] is not None


def test_a_provider_declines_with_a_reason(world: World, unmoved) -> None:
    refund = ask(world, pay(world))
    with unmoved():
        path = f"/v1/refunds/{refund['id']}"
        assert world.one.by_provider.post(f"{path}/decline", {}).status == 400
        declined = world.one.by_provider.post(f"{path}/decline", {"reason": "It was served."}).json
        late = world.one.by_provider.post(f"{path}/grant")
    assert (declined["status"], declined["answer"]) == ("declined", "It was served.")
    assert (late.status, late.json["subject"], late.json["state"]) == (409, "refund", "declined")
    assert "POST /v1/disputes" in paths(world.a.by_session.get(path).json)


def test_a_request_that_lapsed_says_so(world: World, unmoved) -> None:
    refund = ask(world, pay(world))
    with unmoved():
        assert refunds.lapse_by_silence(now=timezone.now() + timedelta(days=4), limit=9) == 1
    seen = world.a.by_payer.get("/v1/refunds?status=lapsed").json["items"]
    assert [(row["id"], row["answer"][:29]) for row in seen] == [(refund["id"], "The provider did not answer i")]
    assert "POST /v1/disputes" in paths(seen[0])


def test_a_buyer_cannot_force_a_refund(world: World, unmoved) -> None:
    refund = ask(world, pay(world))
    with unmoved():
        for caller, status in (
            (world.a.by_session, 403),
            (world.a.by_payer, 403),
            (world.two.by_provider, 404),
            (world.nobody, 401),
        ):
            assert caller.post(f"/v1/refunds/{refund['id']}/grant").status == status
            assert caller.post(f"/v1/refunds/{refund['id']}/decline", {"reason": "x"}).status == status
    assert Refund.objects.get().status == "requested"


def test_nobody_asks_for_anothers_payment_or_reads_anothers_refund(world: World, unmoved) -> None:
    id = pay(world)
    refund = ask(world, id)
    _, text = keys.open_session(pool=world.a.pool, budget_micros=1, policy=Policy(), now=timezone.now())
    with unmoved():
        for caller in (world.b.by_payer, world.b.by_session, Caller(text)):
            assert caller.post("/v1/refunds", {"payment_id": id, "reason": "x"}).status == 404
            assert caller.get(f"/v1/refunds/{refund['id']}").status == 404
            assert caller.get("/v1/refunds").json["items"] == []
        assert world.two.by_provider.get("/v1/refunds").json["items"] == []
        assert world.one.by_provider.post("/v1/refunds", {"payment_id": id, "reason": "x"}).status == 403
    assert [row["id"] for row in world.a.by_payer.get("/v1/refunds").json["items"]] == [refund["id"]]


def test_a_read_only_key_reads_and_is_offered_nothing_else(world: World, unmoved) -> None:
    refund = ask(world, pay(world))
    _, text = keys.issue(scope=Scope.PROVIDER, provider=world.one.provider, read_only=True, now=timezone.now())
    with unmoved():
        seen = Caller(text).get(f"/v1/refunds/{refund['id']}").json
        assert Caller(text).post(f"/v1/refunds/{refund['id']}/grant").status == 403
    assert all(path.startswith("GET ") for path in paths(seen))


def test_the_feed_of_each_side_has_every_step(world: World) -> None:
    id = pay(world)
    first = ask(world, id, amount="0.01")
    world.one.by_provider.post(f"/v1/refunds/{first['id']}/decline", {"reason": "no"})
    second = ask(world, id)
    world.one.by_provider.post(f"/v1/refunds/{second['id']}/grant")
    publish()
    for caller in (world.a.by_payer, world.one.by_provider):
        told = caller.get("/v1/events").json["items"]
        assert [(event["type"], event["subject_id"]) for event in told if "refund" in event["type"]] == [
            ("refund.requested", first["id"]),
            ("refund.declined", first["id"]),
            ("refund.requested", second["id"]),
            ("refund.paid", second["id"]),
            ("payment.refunded", id),
        ]


def test_a_page_of_refunds_costs_the_same_however_long(world: World) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as seen:
            assert world.a.by_payer.get("/v1/refunds").status == 200
        return len(seen)

    for _ in range(2):
        ask(world, pay(world))
    queries()  # the first notes that the key is in use
    few = queries()
    for _ in range(5):
        ask(world, pay(world))
    assert queries() == few


def test_refunds_are_listed_by_session_payment_and_status(world: World) -> None:
    ids = [pay(world), pay(world)]
    found = [ask(world, id)["id"] for id in ids]
    world.one.by_provider.post(f"/v1/refunds/{found[0]}/grant")

    def listed(query: str) -> list[str]:
        return [row["id"] for row in world.a.by_payer.get(f"/v1/refunds?{query}").json["items"]]

    assert listed("status=paid") == [found[0]]
    assert listed(f"payment_id={ids[1]}") == [found[1]]
    assert listed(f"session_id={world.a.session.pk}") == found[::-1]
    assert listed(f"session_id={world.b.session.pk}") == []
    assert ledger.balance(world.a.session.account) == 25_000_000 - 30_000
