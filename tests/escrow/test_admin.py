"""The admin: money is looked at, never edited; one desk rules on disputes, with a reason."""

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from escrow import disputes, ledger, sessions
from escrow.models import Approval, Denial, Dispute, Invoice, SessionPolicy, Transfer
from escrow.policy import Policy
from marketplace import tasks
from tests.marketplace.conftest import World, make_world

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> World:
    return make_world()


@pytest.fixture
def dispute(world: World) -> Dispute:
    """An empty brief for 2.40: rejected, disputed, answered."""
    now = timezone.now()
    seller = world.one
    task = tasks.post(
        payer=world.a.payer,
        session=world.a.session,
        title="Review brief",
        brief={"files": 70},
        capability="review",
        budget_micros=2_400_000,
        now=now,
        agent_uri=seller.agent.uri,
    )
    task = tasks.submit(
        task=task, deliverable={"markdown": "<b>nothing</b>"}, amount_micros=2_400_000, number="INV-1", now=now
    )
    invoice = Invoice.objects.get()
    tasks.reject(task=task, reason="It is empty.", now=now)
    invoice.refresh_from_db()
    opened = disputes.open_for_invoice(invoice=invoice, reason="The brief is empty.", now=now)
    return disputes.answer(dispute=opened, answer="The findings were empty too.", now=now)


@pytest.fixture
def boss(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ada", password="a long enough word"))
    return client


def desk(dispute: Dispute) -> str:
    return reverse("admin:escrow_dispute_change", args=[dispute.pk])


def test_the_desk_shows_both_sides_the_task_the_deliverable_and_the_ledger(boss: Client, dispute: Dispute) -> None:
    page = boss.get(desk(dispute)).content.decode()
    for text in ("The brief is empty.", "The findings were empty too.", "Review brief", "INV-1", "2.40", "dispute:"):
        assert text in page
    assert "&lt;b&gt;nothing" in page  # a deliverable is text, never markup


def test_a_ruling_splits_the_money_once(boss: Client, dispute: Dispute) -> None:
    form = {"to_provider_percent": "70", "reason": "Some of it was there."}
    assert boss.post(desk(dispute), form).status_code == 302
    dispute.refresh_from_db()
    assert (dispute.status, dispute.to_provider_micros, dispute.ruled_by) == ("ruled", 1_680_000, "ada")
    assert ledger.balance(dispute.account) == 0
    moved = Transfer.objects.count()
    again = boss.post(desk(dispute), form)
    assert again.status_code == 200
    assert "cannot become" in again.content.decode()
    assert Transfer.objects.count() == moved


@pytest.mark.parametrize(
    "form",
    [
        {"to_provider_percent": "70", "reason": ""},
        {"to_provider_percent": "70", "reason": "   "},
        {"to_provider_percent": "101", "reason": "Why not."},
        {"to_provider_percent": "-1", "reason": "Why not."},
        {"to_provider_percent": "70.001", "reason": "Why not."},
        {},
    ],
)
def test_a_ruling_needs_a_share_and_a_reason(boss: Client, dispute: Dispute, form: dict[str, str]) -> None:
    moved = Transfer.objects.count()
    assert boss.post(desk(dispute), form).status_code == 200
    dispute.refresh_from_db()
    assert dispute.status == Dispute.Status.ANSWERED
    assert Transfer.objects.count() == moved


def test_who_may_only_look_cannot_rule(client: Client, dispute: Dispute) -> None:
    clerk = User.objects.create_user("bob", password="a long enough word", is_staff=True)
    clerk.user_permissions.add(Permission.objects.get(codename="view_dispute"))
    client.force_login(clerk)
    moved = Transfer.objects.count()
    assert "Rule, finally" not in client.get(desk(dispute)).content.decode()
    assert client.post(desk(dispute), {"to_provider_percent": "100", "reason": "For me."}).status_code == 403
    assert Transfer.objects.count() == moved


def test_nobody_outside_sees_the_desk(client: Client, dispute: Dispute) -> None:
    assert client.get(desk(dispute)).status_code == 302


MONEY = [model for model in admin.site._registry if model._meta.app_label == "escrow"]


@pytest.mark.parametrize("model", MONEY, ids=lambda model: model.__name__)
def test_money_is_read_only(boss: Client, dispute: Dispute, model: Any) -> None:
    name = f"admin:escrow_{model._meta.model_name}"
    assert boss.get(reverse(f"{name}_changelist")).status_code == 200
    assert boss.get(reverse(f"{name}_add")).status_code == 403
    row = model.objects.first()
    if row is None:
        return
    assert boss.get(reverse(f"{name}_change", args=[row.pk])).status_code == 200
    assert boss.post(reverse(f"{name}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403
    if model is not Dispute:
        assert boss.post(reverse(f"{name}_change", args=[row.pk]), {"amount_micros": "1"}).status_code == 403


@pytest.mark.parametrize("model", ["denial", "approval", "sessionpolicy"])
def test_decisions_are_looked_at_and_never_changed(boss: Client, world: World, model: str) -> None:
    sessions.change_policy(session=world.a.session, policy=Policy(approval_above=1), now=timezone.now())
    world.a.by_session.post("/v1/payments", {"to": "agent://lint.acme.dev", "amount": "0.01"})
    rows = {"denial": Denial, "approval": Approval, "sessionpolicy": SessionPolicy}[model].objects.all()
    assert rows.count()
    listed = boss.get(reverse(f"admin:escrow_{model}_changelist"))
    assert (listed.status_code, str(world.a.session) in listed.content.decode()) == (200, True)
    assert boss.get(reverse(f"admin:escrow_{model}_add")).status_code == 403
    change = reverse(f"admin:escrow_{model}_change", args=[rows[0].pk])
    assert boss.get(change).status_code == 200
    assert boss.post(change, {"reason": "x"}).status_code == 403
