"""/v1/tasks: post, assign, submit, accept, reject, cancel; and what happens when nobody acts."""

from datetime import timedelta

import pytest
from django.utils import timezone

from escrow import invoices
from escrow.models import Hold
from marketplace import tasks, workers
from marketplace.models import Task
from tests.marketplace.conftest import World, money

pytestmark = pytest.mark.django_db

POST = {"title": "brief of a run", "brief": {"findings": [1, 2]}, "capability": "review", "budget": "2.40"}
DELIVER = {"deliverable": {"markdown": "# done"}, "invoice": {"amount": "2.00", "number": "INV-1", "memo": "one brief"}}


def posted(world: World, **more: object) -> str:
    answer = world.a.by_session.post("/v1/tasks", {**POST, **more})
    assert answer.status == 201, answer.json
    return f"/v1/tasks/{answer.json['id']}"


def assigned(world: World, **more: object) -> str:
    return posted(world, agent="agent://lint.acme.dev", **more)


def submitted(world: World) -> str:
    path = assigned(world)
    answer = world.one.by_provider.post(f"{path}/submit", DELIVER)
    assert answer.status == 200, answer.json
    return path


def remaining(world: World) -> str:
    return str(world.a.by_session.get(f"/v1/sessions/{world.a.session.pk}").json["remaining"])


def test_posting_holds_nothing_until_an_agent_is_named(world: World, unmoved) -> None:
    with unmoved():
        path = posted(world)
    task = world.a.by_session.get(path).json
    assert (task["status"], task["agent"], task["budget"]) == ("posted", None, "2.40")
    assert task["brief"] == POST["brief"]


@pytest.mark.promise("S15")
def test_assignment_moves_the_budget_from_the_session_to_a_hold(world: World) -> None:
    path = posted(world)
    answer = world.a.by_session.post(f"{path}/assign", {"agent": "agent://lint.acme.dev"})
    assert (answer.status, answer.json["status"], answer.json["agent"]) == (200, "assigned", "agent://lint.acme.dev")
    hold = Hold.objects.get()
    assert money()[f"hold:{hold.pk}"] == (0, 2_400_000)
    assert remaining(world) == "22.60"


def test_a_task_with_an_agent_is_assigned_at_once(world: World) -> None:
    task = world.a.by_session.get(assigned(world)).json
    assert task["status"] == "assigned"
    assert remaining(world) == "22.60"


@pytest.mark.promise("S5")
def test_an_assignment_that_the_policy_or_the_balance_refuses_leaves_nothing(world: World, unmoved) -> None:
    opened = world.a.by_payer.post("/v1/sessions", {"budget": "5.00", "policy": {"max_per_tx": "1.00"}}).json
    body = {**POST, "session_id": opened["id"], "agent": "agent://lint.acme.dev"}
    with unmoved():
        denied = world.a.by_payer.post("/v1/tasks", body)
        poor = world.a.by_payer.post("/v1/tasks", {**body, "session_id": str(world.a.session.pk), "budget": "25.01"})
    assert (denied.status, denied.json["rule"]) == (403, "max_per_tx")
    assert (poor.status, poor.json["code"]) == (402, "insufficient_funds")
    assert not Task.objects.exists()


def test_an_agent_without_the_capability_is_refused(world: World, unmoved) -> None:
    path = posted(world, capability="translate")
    with unmoved():
        answer = world.a.by_session.post(f"{path}/assign", {"agent": "agent://lint.acme.dev"})
    assert (answer.status, answer.json["errors"][0]["field"]) == (400, "agent")


@pytest.mark.promise("S16")
def test_delivery_invoices_the_hold(world: World) -> None:
    path = submitted(world)
    task = world.a.by_session.get(path).json
    assert (task["status"], task["deliverable"]) == ("submitted", {"markdown": "# done"})
    invoice = task["invoice"]
    assert (invoice["amount"], invoice["number"], invoice["task_id"]) == ("2.00", "INV-1", task["id"])
    assert task["review_by"] == invoice["review_by"]


def test_an_invoice_over_the_budget_is_refused(world: World, unmoved) -> None:
    path = assigned(world)
    over = {**DELIVER, "invoice": {"amount": "2.400001", "number": "INV-1"}}
    with unmoved():
        answer = world.one.by_provider.post(f"{path}/submit", over)
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")
    assert world.one.by_provider.get(path).json["status"] == "assigned"


def test_acceptance_owes_the_invoice_and_gives_the_rest_back(world: World) -> None:
    path = submitted(world)
    answer = world.a.by_session.post(f"{path}/accept")
    assert (answer.status, answer.json["status"]) == (200, "accepted")
    assert answer.json["invoice"]["approved_amount"] == "2.00"
    assert remaining(world) == "23.00"
    assert world.one.by_provider.get("/v1/balance").json["payable"] == "2.00"


def test_rejection_keeps_the_money_on_hold(world: World, unmoved) -> None:
    path = submitted(world)
    with unmoved():
        answer = world.a.by_session.post(f"{path}/reject", {"reason": "it is empty"})
    assert (answer.status, answer.json["status"], answer.json["reason"]) == (200, "rejected", "it is empty")


def test_a_rejected_task_can_be_accepted_after_all(world: World) -> None:
    path = submitted(world)
    world.a.by_session.post(f"{path}/reject", {"reason": "it is empty"})
    assert world.a.by_session.post(f"{path}/accept").json["status"] == "accepted"


def test_nothing_can_be_accepted_before_it_is_delivered(world: World, unmoved) -> None:
    path = assigned(world)
    with unmoved():
        answer = world.a.by_session.post(f"{path}/accept")
    assert (answer.status, answer.json["code"], answer.json["state"]) == (409, "conflict", "assigned")


def test_a_second_delivery_is_refused(world: World, unmoved) -> None:
    path = submitted(world)
    with unmoved():
        answer = world.one.by_provider.post(
            f"{path}/submit", {**DELIVER, "invoice": {"amount": "2.00", "number": "INV-2"}}
        )
    assert (answer.status, answer.json["state"]) == (409, "submitted")


def test_a_posted_task_can_be_cancelled_and_an_assigned_one_only_when_overdue(world: World, unmoved) -> None:
    assert world.a.by_session.post(f"{posted(world)}/cancel").json["status"] == "cancelled"
    path = assigned(world)
    with unmoved():
        early = world.a.by_session.post(f"{path}/cancel")
    assert (early.status, early.json["code"]) == (409, "conflict")
    Task.objects.filter(pk=path.split("/")[-1]).update(due_at=timezone.now() - timedelta(seconds=1))
    assert world.a.by_session.post(f"{path}/cancel").json["status"] == "cancelled"
    assert remaining(world) == "25.00"


def test_a_posted_task_that_nobody_took_expires_when_it_is_due(world: World) -> None:
    task = Task.objects.get(pk=posted(world, due_in_seconds=60).split("/")[-1])
    assert tasks.expire_due(now=task.due_at - timedelta(microseconds=1)) == 0
    assert tasks.expire_due(now=task.due_at) == 1
    task.refresh_from_db()
    assert task.status == "expired"


def test_an_assigned_task_that_nobody_delivered_expires_after_the_grace_and_frees_its_money(
    world: World, settings
) -> None:
    path = assigned(world, due_in_seconds=60)
    task = Task.objects.get(pk=path.split("/")[-1])
    assert tasks.expire_due(now=task.due_at + settings.TASK_GRACE - timedelta(microseconds=1)) == 0
    assert tasks.expire_due(now=task.due_at + settings.TASK_GRACE) == 1
    assert world.a.by_session.get(path).json["status"] == "expired"
    assert remaining(world) == "25.00"


def test_a_late_delivery_counts_until_the_task_has_ended(world: World) -> None:
    path = assigned(world)
    Task.objects.filter(pk=path.split("/")[-1]).update(due_at=timezone.now() - timedelta(seconds=1))
    assert world.one.by_provider.post(f"{path}/submit", DELIVER).status == 200


def test_the_sweep_may_run_twice(world: World) -> None:
    path = posted(world)
    Task.objects.filter(pk=path.split("/")[-1]).update(due_at=timezone.now())
    assert workers.task_sweep() == 1
    assert workers.task_sweep() == 0


def test_silence_after_delivery_accepts_the_task(world: World) -> None:
    path = submitted(world)
    invoices.approve_by_silence(now=timezone.now() + timedelta(hours=73), limit=10)
    assert world.one.by_provider.get(path).json["status"] == "accepted"


def test_a_task_without_a_time_is_due_after_the_default(world: World, settings) -> None:
    task = Task.objects.get(pk=posted(world).split("/")[-1])
    assert abs(task.due_at - task.created_at - settings.TASK_DEFAULT_DUE) < timedelta(seconds=5)


def test_buyers_see_theirs_and_providers_what_is_assigned_to_them(world: World) -> None:
    mine, open_one = assigned(world), posted(world, title="open")
    ids = {path.split("/")[-1] for path in (mine, open_one)}
    assert {row["id"] for row in world.a.by_session.get("/v1/tasks").json["items"]} == ids
    assert [row["id"] for row in world.one.by_provider.get("/v1/tasks?status=assigned").json["items"]] == [mine[10:]]
    assert world.two.by_provider.get("/v1/tasks").json["items"] == []
    assert world.b.by_payer.get("/v1/tasks").json["items"] == []


def test_open_tasks_are_offered_to_providers_with_the_capability(world: World) -> None:
    open_one = posted(world)
    posted(world, capability="translate")
    listed = world.two.by_provider.get("/v1/tasks?open=true").json["items"]
    assert [row["id"] for row in listed] == [open_one[10:]]
    assert listed[0]["session_id"] is None
    assert world.two.by_provider.get(open_one).status == 404


def test_the_status_filter_follows_the_invoice(world: World) -> None:
    path = submitted(world)
    world.a.by_session.post(f"{path}/accept")
    assert [row["id"] for row in world.a.by_session.get("/v1/tasks?status=accepted").json["items"]] == [path[10:]]
    assert world.a.by_session.get("/v1/tasks?status=submitted").json["items"] == []


def test_repeating_an_assignment_with_its_key_holds_once(world: World) -> None:
    path = posted(world)
    body = {"agent": "agent://lint.acme.dev"}
    first = world.a.by_session.post(f"{path}/assign", body, idempotency_key="t-1")
    before = money()
    again = world.a.by_session.post(f"{path}/assign", body, idempotency_key="t-1")
    assert again.raw == first.raw
    assert money() == before
