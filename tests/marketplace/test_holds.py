"""/v1/holds: placed, captured on success, released, expired; who may, and what each side sees."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from escrow import holds
from escrow.models import Hold, Payment
from escrow.policy import Policy
from marketplace import keys
from marketplace.models import Scope
from tests.marketplace.client import Caller
from tests.marketplace.conftest import World, buyer, publish

pytestmark = pytest.mark.django_db
LINT = "agent://lint.acme.dev"


def place(world: World, amount: str = "0.05", **more: Any) -> dict[str, Any]:
    answer = world.a.by_session.post("/v1/holds", {"to": LINT, "amount": amount, **more})
    assert answer.status == 201, answer.json
    return dict(answer.json)


def remaining(world: World) -> str:
    return str(world.a.by_session.get(f"/v1/sessions/{world.a.session.pk}").json["remaining"])


def paths(answer: dict[str, Any]) -> list[str]:
    return [f"{action['method']} {action['path']}" for action in answer["next_actions"]]


def assigned(world: World) -> str:
    """Have a task hold money; return its hold's id."""
    body = {"title": "t", "capability": "review", "budget": "1.00", "agent": LINT}
    assert world.a.by_session.post("/v1/tasks", body).status == 201
    return str(Hold.objects.get(expires_at=None).pk)


def test_a_hold_is_placed_and_both_sides_read_it(world: World) -> None:
    before = timezone.now()
    held = place(world, "0.05", metadata={"file": "a.py"})
    assert held == {
        "id": held["id"], "session_id": str(world.a.session.pk), "to": LINT, "agent": LINT,
        "provider_id": str(world.one.provider.pk), "amount": "0.05", "captured": "0.00", "currency": "USDC",
        "status": "held", "metadata": {"file": "a.py"}, "capability": None, "expires_at": held["expires_at"],
        "payment_id": None, "remaining": "24.95", "created_at": held["created_at"], "next_actions": held["next_actions"],
    }  # fmt: skip
    lasts = datetime.fromisoformat(held["expires_at"]) - before
    assert timedelta(seconds=900) <= lasts < timedelta(seconds=930)
    assert paths(held) == [f"POST /v1/holds/{held['id']}/capture", f"POST /v1/holds/{held['id']}/release"]
    seen = world.one.by_provider.get(f"/v1/holds/{held['id']}").json
    assert (seen["remaining"], paths(seen)) == (None, [f"POST /v1/holds/{held['id']}/release"])
    session = world.a.by_session.get(f"/v1/sessions/{world.a.session.pk}").json
    assert (session["held"], session["spent"], session["remaining"]) == ("0.05", "0.00", "24.95")


def test_a_metered_price_is_a_hold_and_the_capture_of_a_part(world: World) -> None:
    held = place(world, "0.05")
    paid = world.a.by_session.post(f"/v1/holds/{held['id']}/capture", {"amount": "0.03"})
    assert (paid.status, paid.json["amount"], paid.json["kind"], paid.json["status"]) == (
        201,
        "0.03",
        "call",
        "payable",
    )
    assert (paid.json["remaining"], remaining(world)) == ("24.97", "24.97")
    after = world.a.by_payer.get(f"/v1/holds/{held['id']}").json
    assert (after["status"], after["captured"], after["payment_id"]) == ("captured", "0.03", paid.json["id"])
    assert paths(after) == [f"GET /v1/payments/{paid.json['id']}"]
    redeem = world.one.by_provider.post(f"/v1/payments/{paid.json['id']}/redeem", {"request_hash": "a" * 64})
    assert (redeem.status, redeem.json["redeemed_before"]) == (200, False)
    back = world.one.by_provider.post(f"/v1/payments/{paid.json['id']}/refund", {"reason": "x", "amount": "0.01"})
    assert (back.json["refunded"], remaining(world)) == ("0.01", "24.98")


def test_a_hold_and_its_payment_are_for_a_capability(world: World, unmoved) -> None:
    held = place(world, "0.05", capability="code.lint")
    paid = world.a.by_session.post(f"/v1/holds/{held['id']}/capture").json
    assert (held["capability"], paid["capability"]) == ("code.lint", "code.lint")
    with unmoved():
        other = world.a.by_session.post("/v1/holds", {"to": LINT, "amount": "0.01", "capability": "code.bake"})
    assert (other.status, other.json["code"]) == (400, "invalid_request")


def test_a_paused_session_captures_nothing(world: World, unmoved) -> None:
    path, session = f"/v1/holds/{place(world)['id']}/capture", f"/v1/sessions/{world.a.session.pk}"
    assert world.a.by_payer.post(f"{session}/pause", {"reason": "look first"}).status == 200
    with unmoved():
        stopped = world.a.by_session.post(path)
    assert (stopped.status, stopped.json["subject"], stopped.json["state"]) == (409, "session", "paused")
    assert world.a.by_payer.post(f"{session}/resume").status == 200
    assert world.a.by_session.post(path).status == 201


def test_without_an_amount_all_is_captured(world: World) -> None:
    held = place(world, "0.05", metadata={"file": "a.py"})
    paid = world.a.by_payer.post(f"/v1/holds/{held['id']}/capture")
    assert (paid.status, paid.json["amount"], paid.json["metadata"]) == (201, "0.05", {"file": "a.py"})


def test_a_repeated_capture_has_one_effect_and_one_answer(world: World, unmoved) -> None:
    path = f"/v1/holds/{place(world)['id']}/capture"
    first = world.a.by_session.post(path, {"amount": "0.02"}, idempotency_key="c-1")
    with unmoved():
        again = world.a.by_session.post(path, {"amount": "0.02"}, idempotency_key="c-1")
        other = world.a.by_session.post(path, {"amount": "0.02"}, idempotency_key="c-2")
        changed = world.a.by_session.post(path, {"amount": "0.03"}, idempotency_key="c-1")
    assert (again.status, again.raw, again.headers["Idempotent-Replayed"]) == (201, first.raw, "true")
    assert (other.status, other.json["code"], other.json["state"]) == (409, "conflict", "captured")
    assert first.json["id"] in other.json["detail"]
    assert other.json["next_actions"][0]["path"] == path.removesuffix("/capture")
    assert (changed.status, changed.json["code"]) == (409, "idempotency_conflict")
    assert Payment.objects.count() == 1


def test_a_repeated_hold_has_one_effect_and_one_answer(world: World, unmoved) -> None:
    body = {"to": LINT, "amount": "0.05"}
    first = world.a.by_session.post("/v1/holds", body, idempotency_key="h-1")
    with unmoved():
        again = world.a.by_session.post("/v1/holds", body, idempotency_key="h-1")
    assert (again.status, again.raw) == (201, first.raw)
    assert Hold.objects.count() == 1


def test_more_than_is_held_is_not_captured(world: World, unmoved) -> None:
    held = place(world, "0.05")
    with unmoved():
        answer = world.a.by_session.post(f"/v1/holds/{held['id']}/capture", {"amount": "0.050001"})
    assert (answer.status, answer.json["errors"][0]["field"]) == (400, "amount")
    assert answer.json["errors"][0]["would_pass"] == '"0.05" or less'
    assert answer.json["outcome"] == "not_charged"


def test_an_expired_hold_is_not_captured_and_comes_back(world: World, unmoved) -> None:
    held = place(world, "0.05", expires_in_seconds=1)
    Hold.objects.update(expires_at=timezone.now())
    with unmoved():
        late = world.a.by_session.post(f"/v1/holds/{held['id']}/capture")
    assert (late.status, late.json["subject"], late.json["state"]) == (409, "hold", "expired")
    assert paths(world.a.by_session.get(f"/v1/holds/{held['id']}").json) == [f"POST /v1/holds/{held['id']}/release"]
    assert holds.release_expired(now=timezone.now(), limit=9) == 1
    assert (remaining(world), world.a.by_session.get(f"/v1/holds/{held['id']}").json["status"]) == ("25.00", "released")


@pytest.mark.parametrize("seconds", [0, -1, 604_801, "900", 1.5, True, None])
def test_a_time_that_is_no_time_is_refused(world: World, unmoved, seconds: object) -> None:
    with unmoved():
        answer = world.a.by_session.post("/v1/holds", {"to": LINT, "amount": "0.05", "expires_in_seconds": seconds})
    assert (answer.status, answer.json["errors"][0]["field"]) == (400, "expires_in_seconds")


def test_a_hold_is_under_the_session_s_policy_and_balance(world: World, unmoved) -> None:
    tight = buyer("payer C", Policy(max_per_tx=50_000))
    with unmoved():
        denied = tight.by_session.post("/v1/holds", {"to": LINT, "amount": "0.06"})
        poor = world.a.by_session.post("/v1/holds", {"to": LINT, "amount": "25.01"})
        nobody = world.a.by_session.post("/v1/holds", {"to": "agent://new.acme.dev", "amount": "0.01"})
    assert (denied.status, denied.json["code"], denied.json["rule"]) == (403, "policy_denied", "max_per_tx")
    assert (poor.status, poor.json["code"], poor.json["remaining"]) == (402, "insufficient_funds", "25.00")
    assert (nobody.status, nobody.json["code"]) == (404, "not_found")
    assert not Hold.objects.exists()


@pytest.mark.parametrize("who", ["session", "payer", "provider"])
def test_the_buyer_releases_or_the_provider_gives_up(world: World, unmoved, who: str) -> None:
    callers = {"session": world.a.by_session, "payer": world.a.by_payer, "provider": world.one.by_provider}
    path = f"/v1/holds/{place(world)['id']}/release"
    released = callers[who].post(path)
    assert (released.status, released.json["status"], released.json["next_actions"]) == (200, "released", [])
    assert remaining(world) == "25.00"
    with unmoved():
        assert callers[who].post(path).json["status"] == "released"
        late = world.a.by_session.post(path.replace("release", "capture"))
    assert (late.status, late.json["state"]) == (409, "released")


def test_a_provider_never_captures(world: World, unmoved) -> None:
    held = place(world)
    with unmoved():
        assert world.one.by_provider.post(f"/v1/holds/{held['id']}/capture").status == 403
        assert world.one.by_provider.post("/v1/holds", {"to": LINT, "amount": "0.01"}).status == 403


def test_a_hold_is_nobody_elses(world: World, unmoved) -> None:
    path = f"/v1/holds/{place(world)['id']}"
    _, text = keys.open_session(pool=world.a.pool, budget_micros=1, policy=Policy(), now=timezone.now())
    with unmoved():
        for stranger in (world.b.by_payer, world.b.by_session, Caller(text)):
            assert stranger.get(path).status == 404
            assert stranger.post(f"{path}/capture").status == 404
            assert stranger.post(f"{path}/release").status == 404
            assert stranger.get("/v1/holds").json["items"] == []
        assert world.two.by_provider.get(path).status == 404
        assert world.two.by_provider.post(f"{path}/release").status == 404
        assert world.two.by_provider.get("/v1/holds").json["items"] == []
        body = {"to": LINT, "amount": "0.01", "session_id": str(world.a.session.pk)}
        assert world.b.by_payer.post("/v1/holds", body).status == 404


def test_a_read_only_key_reads_and_is_offered_nothing_else(world: World, unmoved) -> None:
    path = f"/v1/holds/{place(world)['id']}"
    _, text = keys.issue(scope=Scope.SESSION, session=world.a.session, read_only=True, now=timezone.now())
    with unmoved():
        assert paths(Caller(text).get(path).json) == []
        assert Caller(text).post(f"{path}/capture").status == 403


def test_a_task_s_hold_is_seen_and_moved_by_its_task_alone(world: World, unmoved) -> None:
    id = assigned(world)
    seen = world.a.by_session.get(f"/v1/holds/{id}").json
    assert (seen["expires_at"], seen["amount"], paths(seen)) == (None, "1.00", [])
    with unmoved():
        for caller, verb in (
            (world.a.by_session, "capture"),
            (world.a.by_payer, "release"),
            (world.one.by_provider, "release"),
        ):
            answer = caller.post(f"/v1/holds/{id}/{verb}")
            assert (answer.status, answer.json["subject"], answer.json["state"]) == (409, "hold", "held")
            assert "task or an invoice" in answer.json["detail"]


def test_holds_are_listed_by_session_and_status(world: World) -> None:
    first, second = place(world), place(world)
    world.a.by_session.post(f"/v1/holds/{first['id']}/release")

    def listed(query: str) -> list[str]:
        return [row["id"] for row in world.a.by_payer.get(f"/v1/holds?{query}").json["items"]]

    assert listed("") == [second["id"], first["id"]]
    assert listed("status=held") == [second["id"]]
    assert listed(f"status=released&session_id={world.a.session.pk}") == [first["id"]]
    assert listed(f"session_id={world.b.session.pk}") == []
    assert world.a.by_payer.get("/v1/holds?status=expired").status == 400
    page = world.one.by_provider.get("/v1/holds?limit=1").json
    rest = world.one.by_provider.get(f"/v1/holds?limit=1&cursor={page['next']}").json
    assert [row["id"] for row in page["items"] + rest["items"]] == [second["id"], first["id"]]


def test_a_page_of_holds_costs_the_same_however_long(world: World) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as seen:
            assert world.a.by_payer.get("/v1/holds").status == 200
        return len(seen)

    for _ in range(2):
        place(world)
    world.a.by_session.post(f"/v1/holds/{place(world)['id']}/capture")
    queries()  # the first notes that the key is in use
    few = queries()
    for _ in range(3):
        place(world)
        world.a.by_session.post(f"/v1/holds/{place(world)['id']}/capture")
    assert queries() == few


def test_the_feed_of_each_side_has_every_step(world: World) -> None:
    held = [place(world)["id"] for _ in range(2)]
    world.a.by_session.post(f"/v1/holds/{held[0]}/capture", {"amount": "0.01"})
    world.one.by_provider.post(f"/v1/holds/{held[1]}/release")
    publish()
    for caller in (world.a.by_payer, world.one.by_provider):
        told = [event for event in caller.get("/v1/events").json["items"] if event["subject_type"] == "hold"]
        assert [(event["type"], event["subject_id"]) for event in told] == [
            ("hold.placed", held[0]),
            ("hold.placed", held[1]),
            ("hold.captured", held[0]),
            ("hold.released", held[1]),
        ]
        assert (told[2]["payload"]["amount"], told[2]["payload"]["released"]) == ("0.01", "0.04")
