"""/v1/approvals, the page where a person answers, /v1/decisions, and a freeze: through HTTP, on the real database."""

import logging
import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from escrow.models import Approval, Denial
from escrow.policy import Policy
from marketplace import consent, keys
from marketplace.logs import Json, Text
from marketplace.models import Scope
from tests.marketplace.client import Answer, Caller
from tests.marketplace.conftest import Buyer, World, buyer, seller

pytestmark = pytest.mark.django_db

LINT = "agent://lint.acme.dev"
LARGE = {"to": LINT, "amount": "2.00", "metadata": {"file": "<b>a.py</b>"}}


@pytest.fixture
def careful(db: None) -> Buyer:
    """Return a buyer whose session asks a person above one dollar."""
    seller("lint", "acme.dev")
    return buyer("careful", Policy(approval_above=1_000_000))


def ask(of: Buyer, body: dict[str, object] = LARGE, key: str = "k-1") -> Answer:
    """Pay more than the session may spend alone."""
    return of.by_session.post("/v1/payments", body, idempotency_key=key)


def test_a_large_payment_waits_for_a_person_and_then_passes_as_it_was_sent(careful: Buyer, unmoved) -> None:
    with unmoved():
        refused = ask(careful)
    assert (refused.status, refused.json["code"], refused.json["rule"]) == (403, "approval_required", "approval_above")
    assert (refused.json["limit"], refused.json["retryable"], refused.json["outcome"]) == ("1.00", True, "not_charged")
    path = f"/v1/approvals/{refused.json['approval_id']}"
    seen = careful.by_session.get(path).json
    assert (seen["status"], seen["amount"], seen["to"], seen["page"]) == ("waiting", "2.00", LINT, None)
    with unmoved():
        assert careful.by_payer.post(f"{path}/approve").json["status"] == "approved"
    paid = ask(careful)
    assert (paid.status, paid.json["amount"], paid.json["remaining"]) == (201, "2.00", "23.00")
    assert ask(careful).headers["Idempotent-Replayed"] == "true"


def test_an_agent_cannot_approve_for_itself(careful: Buyer, unmoved) -> None:
    path = f"/v1/approvals/{ask(careful).json['approval_id']}"
    _, reader = keys.issue(scope=Scope.PAYER, payer=careful.payer, read_only=True, now=timezone.now())
    for caller in (careful.by_session, Caller(reader), buyer("another").by_payer):
        with unmoved():
            assert caller.post(f"{path}/approve").status in (403, 404)
            assert caller.post(f"{path}/refuse", {"reason": "x"}).status in (403, 404)
    assert Caller(reader).get(path).json["page"] is None
    with unmoved():
        assert ask(careful).json["code"] == "approval_required"


def test_a_refusal_is_told_with_its_reason(careful: Buyer, unmoved) -> None:
    path = f"/v1/approvals/{ask(careful).json['approval_id']}"
    careful.by_payer.post(f"{path}/refuse", {"reason": "not this month"})
    with unmoved():
        answer = ask(careful)
    assert (answer.status, answer.json["code"], answer.json["rule"]) == (403, "policy_denied", "approval_above")
    assert "not this month" in answer.json["detail"]
    assert answer.json["retryable"] is False
    with unmoved():
        assert careful.by_payer.post(f"{path}/approve").json["state"] == "refused"


def test_a_hold_and_a_task_wait_for_a_person_too(careful: Buyer, unmoved) -> None:
    hold = {"to": LINT, "amount": "2.00", "metadata": {"file": "b.py"}}
    with unmoved():
        held = careful.by_session.post("/v1/holds", hold, idempotency_key="h-1")
        again = careful.by_session.post("/v1/holds", hold, idempotency_key="h-1")
    assert (held.json["code"], again.json["approval_id"]) == ("approval_required", held.json["approval_id"])
    asked = Approval.objects.get(pk=held.json["approval_id"])
    assert (asked.kind, asked.metadata) == ("hold", {"file": "b.py"})
    careful.by_payer.post(f"/v1/approvals/{asked.pk}/approve")
    assert careful.by_session.post("/v1/holds", hold, idempotency_key="h-1").status == 201
    task = careful.by_session.post("/v1/tasks", {"title": "t", "capability": "review", "budget": "3.00"}).json
    with unmoved():
        refused = careful.by_session.post(f"/v1/tasks/{task['id']}/assign", {"agent": LINT}, idempotency_key="t-1")
    careful.by_payer.post(f"/v1/approvals/{refused.json['approval_id']}/approve")
    assigned = careful.by_session.post(f"/v1/tasks/{task['id']}/assign", {"agent": LINT}, idempotency_key="t-2")
    assert assigned.json["status"] == "assigned"


def test_one_yes_is_one_hold_whoever_sends_it(careful: Buyer, unmoved) -> None:
    hold = {"to": LINT, "amount": "2.00", "session_id": str(careful.session.pk)}
    asked = careful.by_session.post("/v1/holds", hold, idempotency_key="h-1").json["approval_id"]
    careful.by_payer.post(f"/v1/approvals/{asked}/approve")
    assert careful.by_session.post("/v1/holds", hold, idempotency_key="h-1").status == 201
    with unmoved():
        other = careful.by_payer.post("/v1/holds", hold, idempotency_key="h-1")
    assert (other.json["code"], other.json["approval_id"] != asked) == ("approval_required", True)


# --- the page -------------------------------------------------------------------------------------------------------


def page_of(of: Buyer) -> tuple[Approval, str]:
    """Have a person asked; return the approval and the path of its page."""
    asked = Approval.objects.get(pk=ask(of).json["approval_id"])
    told = of.by_payer.get(f"/v1/approvals/{asked.pk}").json["page"]
    assert told == consent.page_of(asked)
    return asked, "/" + told.split("/", 3)[3]


def test_a_person_reads_what_is_asked_and_approves_it_on_a_page(careful: Buyer, unmoved) -> None:
    asked, path = page_of(careful)
    browser = Client(enforce_csrf_checks=True)
    page = browser.get(path)
    text = page.content.decode()
    assert "2.00 USDC to agent://lint.acme.dev" in text
    assert "25.00 of 25.00 USDC; after this 23.00" in text
    assert "&lt;b&gt;a.py&lt;/b&gt;" in text
    assert (page["Referrer-Policy"], "no-store" in page["Cache-Control"]) == ("no-referrer", True)
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', text)
    assert token is not None
    with unmoved():
        assert browser.post(path, {"answer": "approve"}).status_code == 403
        done = browser.post(path, {"answer": "approve", "csrfmiddlewaretoken": token[1]}, follow=True)
    assert "Approved" in done.content.decode()
    asked.refresh_from_db()
    assert (asked.status, asked.decided_by) == ("approved", "the payer, on the page")
    assert ask(careful).status == 201


def test_a_no_on_the_page_needs_a_reason_and_the_second_answer_changes_nothing(
    careful: Buyer, client: Client, unmoved
) -> None:
    asked, path = page_of(careful)
    with unmoved():
        assert client.post(path, {"answer": "refuse"}).status_code == 400
    asked.refresh_from_db()
    assert asked.status == "waiting"
    with unmoved():
        assert client.post(path, {"answer": "refuse", "reason": "no"}).status_code == 302
        assert client.post(path, {"answer": "approve"}).status_code == 400
    asked.refresh_from_db()
    assert (asked.status, asked.reason) == ("refused", "no")


def test_only_the_token_opens_the_page(careful: Buyer, client: Client, unmoved) -> None:
    asked, path = page_of(careful)
    other = Approval.objects.get(pk=ask(careful, key="k-2").json["approval_id"])
    for wrong in (path[:-1] + ("0" if path[-1] != "0" else "1"), f"/approvals/{other.pk}/{consent.token_of(asked)}"):
        with unmoved():
            assert client.get(wrong).status_code == 404
            assert client.post(wrong, {"answer": "approve"}).status_code == 404
    assert set(Approval.objects.values_list("status", flat=True)) == {"waiting"}


@pytest.mark.parametrize("form", [Json, Text])
def test_no_log_has_the_address_at_which_a_person_answers(
    careful: Buyer, client: Client, caplog: pytest.LogCaptureFixture, form: type[logging.Formatter], unmoved
) -> None:
    asked, path = page_of(careful)
    with unmoved():
        assert client.post(path, {"answer": "refuse"}).status_code == 400
        assert Client(enforce_csrf_checks=True).post(path, {"answer": "approve"}).status_code == 403
    written = [form().format(record) for record in caplog.records]
    assert sum(f"/approvals/{asked.pk}/***" in line for line in written) >= 2
    assert not any(consent.token_of(asked) in line for line in written)


def test_an_approval_whose_time_is_over_says_so(careful: Buyer, client: Client, unmoved) -> None:
    asked, path = page_of(careful)
    Approval.objects.filter(pk=asked.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert "Expired" in client.get(path).content.decode()
    with unmoved():
        assert client.post(path, {"answer": "approve"}).status_code == 400


# --- decisions ------------------------------------------------------------------------------------------------------


def test_decisions_are_listed_with_rule_version_and_facts(careful: Buyer, unmoved) -> None:
    careful.by_session.post("/v1/payments", {"to": LINT, "amount": "0.50"})
    with unmoved():
        ask(careful)
        careful.by_session.post("/v1/payments", {"to": LINT, "amount": "26.00"})
    rows = careful.by_payer.get("/v1/decisions").json["items"]
    assert [(row["outcome"], row["rule"], row["amount"], row["policy_version"]) for row in rows] == [
        ("denied", "insufficient_funds", "26.00", 1),
        ("denied", "approval_required", "2.00", 1),
        ("allowed", None, "0.50", 1),
    ]
    assert rows[0]["facts"] == {"budget": "25.00", "spent": "0.50", "remaining": "24.50"}
    denied = careful.by_session.get("/v1/decisions?outcome=denied&limit=1").json
    assert [row["rule"] for row in denied["items"]] == ["insufficient_funds"]
    rest = careful.by_session.get(f"/v1/decisions?outcome=denied&cursor={denied['next']}").json
    assert [row["rule"] for row in rest["items"]] == ["approval_required"]


def test_a_refused_hold_is_kept_although_its_database_transaction_is_not(careful: Buyer, unmoved) -> None:
    with unmoved():
        careful.by_session.post("/v1/holds", {"to": LINT, "amount": "26.00"})
    kept = Denial.objects.get()
    assert (kept.kind, kept.rule, kept.amount_micros) == ("hold", "insufficient_funds", 26_000_000)


def test_a_hold_and_a_payment_are_refused_by_rules_of_the_same_name(careful: Buyer, unmoved) -> None:
    hold = {"to": LINT, "amount": "2.00"}
    for path, body, key in (("/v1/payments", LARGE, "k-1"), ("/v1/holds", hold, "h-1")):
        with unmoved():
            asked = careful.by_session.post(path, body, idempotency_key=key).json["approval_id"]
            careful.by_payer.post(f"/v1/approvals/{asked}/refuse", {"reason": "no"})
            careful.by_session.post(path, body, idempotency_key=key)
    listed = careful.by_payer.get("/v1/decisions").json["items"]
    assert [(row["kind"], row["rule"], row["facts"]["limit"]) for row in reversed(listed)] == [
        (kind, rule, "1.00") for kind in ("payment", "hold") for rule in ("approval_required", "approval_refused")
    ]


# --- everything at once ---------------------------------------------------------------------------------------------


def test_one_call_freezes_an_account_and_another_lets_it_spend_again(world: World, unmoved) -> None:
    frozen = world.a.by_payer.post("/v1/freeze", {"reason": "a key has leaked"})
    assert frozen.json == {"frozen": True, "pools": [str(world.a.pool.pk)]}
    with unmoved():
        refused = world.a.by_session.post("/v1/payments", {"to": LINT, "amount": "0.01"})
        opened = world.a.by_payer.post("/v1/sessions", {"budget": "1.00"})
    for answer in (refused, opened):
        assert (answer.status, answer.json["subject"], answer.json["state"]) == (409, "pool", "frozen")
    assert world.b.by_session.post("/v1/payments", {"to": LINT, "amount": "0.01"}).status == 201
    assert world.a.by_payer.post("/v1/unfreeze").json["frozen"] is False
    assert world.a.by_session.post("/v1/payments", {"to": LINT, "amount": "0.01"}).status == 201


def test_a_child_is_opened_by_its_parents_own_key_and_spends_within_both(world: World, unmoved) -> None:
    parent = f"/v1/sessions/{world.a.session.pk}"
    body = {"budget": "5.00", "policy": {"max_per_tx": "0.10"}, "name": "subtask"}
    first = world.a.by_session.post(f"{parent}/children", body, idempotency_key="c-1")
    again = world.a.by_session.post(f"{parent}/children", body, idempotency_key="c-1")
    assert (first.status, again.raw) == (201, first.raw)
    inside = first.json
    assert (inside["parent_id"], inside["remaining"], inside["policy"]) == (parent[13:], "5.00", {"max_per_tx": "0.10"})
    own = Caller(inside["api_key"])
    assert own.post("/v1/payments", {"to": LINT, "amount": "0.10"}).status == 201
    with unmoved():
        assert own.post("/v1/payments", {"to": LINT, "amount": "0.11"}).json["rule"] == "max_per_tx"
        assert own.get(parent).status == 404
        assert own.post(f"/v1/sessions/{inside['id']}/close").status == 403
    seen = world.a.by_session.get(parent).json
    assert (seen["remaining"], seen["delegated"], seen["spent"]) == ("20.00", "5.00", "0.00")
    listed = world.a.by_session.get(f"/v1/sessions?parent_id={parent[13:]}").json["items"]
    assert [row["id"] for row in listed] == [inside["id"]]
    assert world.a.by_session.post(f"/v1/sessions/{inside['id']}/close").json["status"] == "closed"
    assert world.a.by_session.get(parent).json["remaining"] == "24.90"


def test_a_policy_changes_by_versions_that_stay(world: World, unmoved) -> None:
    path = f"/v1/sessions/{world.a.session.pk}"
    changed = world.a.by_payer.post(f"{path}/policy", {"policy": {"max_per_tx": "0.01"}}).json
    assert (changed["policy_version"], changed["policy"]) == (2, {"max_per_tx": "0.01"})
    versions = world.a.by_session.get(f"{path}/policies").json["items"]
    assert [(row["version"], row["policy"]) for row in versions] == [(2, {"max_per_tx": "0.01"}), (1, {})]
    with unmoved():
        assert world.a.by_session.post(f"{path}/policy", {"policy": {}}).status == 403
