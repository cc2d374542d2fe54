"""The SDK against the market itself where a policy, a person or a parent stands between an agent and money."""

import threading
from collections.abc import Iterator
from decimal import Decimal

import pytest
from django.db import connections
from pytest_django.live_server_helper import LiveServer

import agentmarket
from agentmarket import OpenedSession, SyncClient
from tests.marketplace.conftest import World, make_world, money

from .conftest import QUICK

LINT = "agent://lint.acme.dev"


@pytest.fixture
def world(transactional_db: None, live_server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("AGENTMARKET_URL", live_server.url)
    return make_world()


@pytest.fixture
def payer(world: World) -> Iterator[SyncClient]:
    with SyncClient(world.a.by_payer.key, retries=QUICK) as client:
        yield client


def opened(payer: SyncClient, budget: str = "1.00", **policy: object) -> OpenedSession[SyncClient]:
    return payer.payment.create_session(budget=budget, policy=policy)


def test_a_session_is_paused_resumed_topped_up_and_has_versions_of_its_policy(payer: SyncClient) -> None:
    session = opened(payer, max_per_tx="0.50")
    assert session.extra == {}
    assert session.pause(reason="We look at it first.").status == "paused"
    before = money()
    with pytest.raises(agentmarket.Conflict) as caught:
        session.client().payment.send(to=LINT, amount="0.012")
    assert (caught.value.state, caught.value.outcome, money()) == ("paused", "not_charged", before)
    with pytest.raises(agentmarket.Conflict):
        session.ensure("0.01")
    assert (session.resume().status, session.resume().status) == ("open", "open")
    assert session.top_up("0.50").budget == "1.50"
    assert session.change_policy({"max_per_tx": "0.10"}).policy_version == 2
    versions = [*payer.sessions.policies(session.id)]
    assert sorted(version.version for version in versions) == [1, 2]
    assert versions[0].extra == {}
    with pytest.raises(agentmarket.PolicyDenied) as denied:
        session.client().payment.send(to=LINT, amount="0.11")
    assert (denied.value.rule, denied.value.would_allow, denied.value.outcome) == ("max_per_tx", "0.10", "not_charged")
    denials = payer.decisions.list(session=session.id, outcome="denied")
    [decision] = [one for one in denials if one.rule == "max_per_tx"]
    assert (decision.rule, decision.amount, decision.policy_version, decision.extra) == ("max_per_tx", "0.11", 2, {})


def test_a_policy_is_asked_and_tried_on_the_past_without_spending(payer: SyncClient) -> None:
    session = opened(payer, max_per_tx="0.50")
    agent = session.client()
    agent.payment.send(to=LINT, amount="0.30")
    before = money()
    allowed = agent.policy.check(to=LINT, amount="0.50", capability="code.lint")
    assert (allowed.allowed, allowed.code, allowed.remaining, allowed.extra) == (True, None, "0.20", {})
    denied = payer.policy.check(to=LINT, amount=Decimal("0.51"), session=session.id)
    assert (denied.allowed, denied.rule, denied.would_allow, denied.policy_version) == (False, "max_per_tx", "0.50", 1)
    tried = agent.policy.check(to=LINT, amount="0.51", policy={"max_per_hour": "0.80"})
    assert (tried.rule, tried.spent, tried.policy_version) == ("max_per_hour", "0.30", None)
    told = payer.policy.backtest(policy={"max_per_tx": "0.20"}, days=7)
    assert (told.days, told.decisions, told.refused.count, told.refused.amount) == (7, 1, 1, "0.30")
    assert [(rule.rule, rule.count) for rule in told.by_rule] == [("max_per_tx", 1)]
    assert told.examples[0]["would_allow"] == "0.20"
    assert (told.extra, told.waiting) == ({}, {"count": 0, "amount": "0.00"})
    assert payer.policy.backtest(policy={}, session=session.id).refused.count == 0
    with pytest.raises(agentmarket.InvalidRequest):
        agent.policy.check(to=LINT, amount="0.51", policy={"max_total": "0"})
    assert money() == before


@pytest.mark.promise("S15")
def test_a_child_spends_a_part_of_its_parent(payer: SyncClient) -> None:
    session = opened(payer, max_per_tx="0.50")
    child = session.child(budget="0.40", policy={"max_per_tx": "0.05"}, name="translator")
    assert (child.parent_id, child.remaining) == (session.id, "0.40")
    assert child.client().payment.send(to=LINT, amount="0.05").remaining == "0.35"
    assert (session.balance().delegated, session.balance().remaining) == ("0.40", "0.60")
    assert [one.id for one in payer.sessions.list(parent=session.id)] == [child.id]
    # An agent with the session's own key may open one, too.
    grandchild = child.client().sessions.child(child.id, budget="0.10")
    assert grandchild.client().payment.send(to=LINT, amount="0.01").remaining == "0.09"
    before = money()
    with pytest.raises(agentmarket.BudgetExhausted) as caught:
        session.child(budget="0.61")
    assert caught.value.outcome == "not_charged"
    assert money() == before
    session.top_up("0.01")
    assert caught.value.resume().remaining == "0.61"


@pytest.mark.promise("S13")
def test_an_empty_session_halts_and_goes_on(payer: SyncClient) -> None:
    session, ran = opened(payer, "0.01"), list[str]()
    before = money()
    with pytest.raises(agentmarket.BudgetExhausted) as caught:
        session.client().payment.send(to=LINT, amount="0.012", on_success=lambda: ran.append("ran"))
    error = caught.value
    assert (money(), ran, error.outcome) == (before, [], "not_charged")
    assert error.checkpoint == agentmarket.Checkpoint(budget="0.01", spent="0.00", remaining="0.01")
    session.top_up(Decimal("0.002"))
    assert (error.resume().remaining, ran) == ("0.00", ["ran"])
    with pytest.raises(agentmarket.BudgetExhausted):
        session.ensure("0.000001")


def test_a_person_is_asked_and_the_same_payment_goes_on(payer: SyncClient) -> None:
    session, ran = opened(payer, approval_above="0.50"), list[str]()
    before = money()
    with pytest.raises(agentmarket.ApprovalRequired) as caught:
        session.client().payment.send(to=LINT, amount="0.80", on_success=lambda: ran.append("ran"))
    error = caught.value
    assert (money(), ran, error.outcome, error.rule, error.retryable) == (
        before, [], "not_charged", "approval_above", True,
    )  # fmt: skip
    [waiting] = payer.approvals.list(status="waiting")
    assert (waiting.id, waiting.amount, waiting.extra) == (error.approval_id, "0.80", {})

    def approve() -> None:
        payer.approvals.approve(waiting.id)
        connections.close_all()

    person = threading.Timer(0.1, approve)
    person.start()
    assert error.wait(timeout=30).status == "approved"
    person.join()
    assert (error.resume().amount, ran) == ("0.80", ["ran"])
    assert session.client().payment.send(to=LINT, amount="0.80").replayed


def test_a_person_says_no(payer: SyncClient) -> None:
    session = opened(payer, approval_above="0.50")
    with pytest.raises(agentmarket.ApprovalRequired) as caught:
        session.client().payment.send(to=LINT, amount="0.80")
    payer.approvals.refuse(caught.value.approval_id or "", reason="Too dear.")
    before = money()
    with pytest.raises(agentmarket.PolicyDenied, match="Too dear"):
        caught.value.wait()
    with pytest.raises(agentmarket.PolicyDenied) as refused:
        caught.value.resume()
    assert (refused.value.rule, refused.value.outcome, money()) == ("approval_above", "not_charged", before)


def test_everything_is_frozen(payer: SyncClient) -> None:
    session = opened(payer)
    frozen = payer.freeze(reason="A key leaked.")
    assert (frozen.frozen, frozen.extra) == (True, {})
    before = money()
    with pytest.raises(agentmarket.Conflict) as caught:
        session.client().payment.send(to=LINT, amount="0.012")
    assert (caught.value.outcome, money()) == ("not_charged", before)
    assert not payer.unfreeze().frozen
    assert session.client().payment.send(to=LINT, amount="0.012").status == "payable"


def test_a_payment_is_looked_up_by_its_key(payer: SyncClient) -> None:
    session = opened(payer)
    agent = session.client()
    sent = agent.payment.send(to=LINT, amount="0.012", capability="code.lint")
    assert sent.payment.capability == "code.lint"
    assert [one.id for one in agent.payment.list(idempotency_key=sent.key)] == [sent.id]
    assert [one.id for one in payer.payment.list(idempotency_key=sent.key)] == [sent.id]
    assert [*agent.payment.list(idempotency_key="another")] == []
