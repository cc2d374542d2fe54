"""The SDK against the market itself, over HTTP: every answer is read, and a refusal leaves the books as they were."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from django.db import connections
from pytest_django.live_server_helper import LiveServer

import agentmarket
from agentmarket import Client, Seller, SyncClient, Task
from marketplace.models import Agent
from tests.marketplace.conftest import World, make_world, money

from .conftest import QUICK, served

LINT = "agent://lint.acme.dev"


@pytest.fixture
def world(transactional_db: None, live_server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("AGENTMARKET_URL", live_server.url)
    return make_world()


def client(caller: Any) -> SyncClient:
    return SyncClient(caller.key, retries=QUICK)


def move_to(url: str) -> None:
    """Say where the agent is, in a thread that leaves no connection behind."""
    Agent.objects.filter(uri=LINT).update(endpoint=url)
    connections.close_all()


@asynccontextmanager
async def market_of(world: World) -> AsyncIterator[tuple[Client, Seller]]:
    """A buyer's client, and provider one's agent: it lints what has a source, and reviews what has findings."""
    seller = Seller(world.one.by_provider.key, agent=LINT, retries=QUICK)

    @seller.call("/check", price="0.012")
    def check(request: Any) -> Any:
        if "source" not in request:
            raise seller.Unserviceable("send the source")
        return {"findings": []}

    @seller.task("review", price="2.40")
    def review(task: Task) -> dict[str, Any]:
        return {"markdown": task.brief.get("text", "")}

    async with served(seller) as url, Client(world.a.by_session.key, retries=QUICK) as buyer:
        await asyncio.to_thread(move_to, url)
        yield buyer, seller


def test_the_promised_shape(world: World) -> None:
    async def scenario() -> None:
        async def fetch() -> str:
            return "enriched"

        async with Client(world.a.by_payer.key) as payer:
            session = await payer.payment.create_session(
                budget="10.00", currency="USDC", policy={"max_per_tx": "0.50", "allowed_recipients": ["*.acme.dev"]}
            )
            agent = session.client()
            result = await agent.payment.send(
                to=LINT, amount="0.008", currency="USDC", metadata={"task_id": "t", "query": "q"}, on_success=fetch
            )
            again = await agent.payment.send(
                to=LINT, amount="0.008", metadata={"task_id": "t", "query": "q"}, key=result.key
            )
        assert (result.value, result.status, result.amount, result.remaining) == (
            "enriched", "payable", "0.008", "9.992",
        )  # fmt: skip
        assert again.id == result.id
        assert result.payment.extra == {}
        assert session.policy["max_per_tx"] == "0.50"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("to", "amount", "kind", "facts"),
    [
        (LINT, "0.51", agentmarket.PolicyDenied, {"rule": "max_per_tx", "limit": "0.50", "would_allow": "0.50"}),
        ("agent://check.example.dev", "0.01", agentmarket.PolicyDenied, {"rule": "allowed_recipients"}),
        ("agent://nobody.acme.dev", "0.01", agentmarket.NotFound, {}),
        ("lint.acme.dev", "0.01", agentmarket.InvalidRequest, {}),
    ],
)
@pytest.mark.promise("S8", "S29", "S32")
def test_a_refusal_teaches_and_moves_no_money(
    world: World, to: str, amount: str, kind: type[agentmarket.AgentMarketError], facts: dict[str, Any]
) -> None:
    with client(world.a.by_payer) as payer:
        session = payer.payment.create_session(
            budget="1.00", policy={"max_per_tx": "0.50", "allowed_recipients": ["*.acme.dev"]}
        )
        before, ran = money(), []
        with pytest.raises(kind) as caught:
            session.client().payment.send(to=to, amount=amount, on_success=lambda: ran.append("ran"))
    assert (money(), ran) == (before, [])
    error = caught.value
    assert error.outcome == "not_charged"
    assert {name: getattr(error, name) for name in facts} == facts
    assert error.request_id
    assert "Nothing was charged." in str(error)


@pytest.mark.promise("S13")
def test_an_empty_session_says_what_is_left(world: World) -> None:
    with client(world.a.by_session) as buyer:
        before = money()
        with pytest.raises(agentmarket.InsufficientFunds) as caught:
            buyer.payment.send(to=LINT, amount="25.01")
    assert (caught.value.remaining, money()) == ("25.00", before)


def test_a_paid_call_is_bound_to_its_request_and_a_failed_one_is_refunded(world: World) -> None:
    async def scenario() -> None:
        async with market_of(world) as (buyer, _):
            called = await buyer.call(LINT, path="/check", json={"source": "x"}, amount="0.012")
            assert called.value == {"findings": []}
            paid = await buyer.payment.get(called.payment.id)
            assert paid.redeemed_at is not None
            with pytest.raises(agentmarket.CallFailed) as caught:
                await buyer.call(LINT, path="/check", json={"source": "y"}, amount="0.012", payment=paid.id)
            assert (caught.value.status, caught.value.refunded) == (409, False)
            with pytest.raises(agentmarket.CallFailed) as caught:
                await buyer.call(LINT, path="/check", json={}, amount="0.012")
            assert (caught.value.status, caught.value.refunded) == (422, True)
            with pytest.raises(agentmarket.CallFailed) as caught:
                await buyer.call(LINT, path="/check", json={"source": "x"}, amount="0.011")
            assert (caught.value.status, caught.value.refunded) == (402, True)
            session = await buyer.sessions.get(str(world.a.session.pk))
            assert Decimal(session.remaining) == Decimal("24.988")

    asyncio.run(scenario())


def test_a_payment_of_another_provider_is_worth_nothing(world: World) -> None:
    async def scenario() -> None:
        async with market_of(world) as (buyer, _):
            other = await buyer.payment.send(to="agent://check.example.dev", amount="0.012")
            with pytest.raises(agentmarket.CallFailed) as caught:
                await buyer.call(LINT, path="/check", json={"source": "x"}, amount="0.012", payment=other.id)
            assert caught.value.status == 402
            assert (await buyer.payment.get(other.id)).redeemed_at is None

    asyncio.run(scenario())


@pytest.mark.promise("S15", "S16")
def test_a_task_from_its_post_to_its_approved_invoice(world: World) -> None:
    async def scenario() -> None:
        async with market_of(world) as (buyer, _):
            task = await buyer.tasks.post(
                title="A review", brief={"text": "# fine"}, capability="review", budget="2.40", agent=LINT
            )
            assert task.status == "assigned"
            done = await buyer.tasks.wait(task.id, timeout=20)
            assert done.deliverable == {"markdown": "# fine"}
            accepted = await buyer.tasks.accept(task.id)
            assert accepted.status == "accepted"
            assert accepted.invoice is not None
            assert (accepted.invoice.status, accepted.invoice.approved_amount) == ("approved", "2.40")
            assert [one.id async for one in buyer.tasks.list(status="accepted")] == [task.id]

    asyncio.run(scenario())


def test_a_bad_delivery_is_rejected_disputed_and_answered(world: World) -> None:
    async def scenario() -> None:
        async with market_of(world) as (buyer, _):
            task = await buyer.tasks.post(title="A review", brief={}, capability="review", budget="2.40", agent=LINT)
            done = await buyer.tasks.wait(task.id, timeout=20)
            rejected = await buyer.tasks.reject(done.id, reason="It is empty.")
            dispute = await buyer.disputes.open(invoice=rejected.invoice_id, reason="It is empty.")
            assert (rejected.status, dispute.status, dispute.amount) == ("rejected", "open", "2.40")
            async with Client(world.one.by_provider.key) as provider:
                answered = await provider.disputes.answer(dispute.id, answer="It was what was asked.")
            assert answered.status == "answered"
            assert [one.id async for one in buyer.disputes.list()] == [dispute.id]

    asyncio.run(scenario())


def test_every_other_answer_is_read(world: World) -> None:
    with (
        client(world.a.by_payer) as payer,
        client(world.a.by_session) as buyer,
        client(world.one.by_provider) as seller,
    ):
        sent = [buyer.payment.send(to=LINT, amount="0.01", metadata={"n": n}).id for n in range(5)]
        assert sorted(payment.id for payment in buyer.payment.list(limit=2)) == sorted(sent)
        assert [line.amount for line in buyer.sessions.ledger(str(world.a.session.pk), limit=2)].count("-0.01") == 5
        positions = [event.position for event in payer.events(limit=2)]
        assert positions == sorted(set(positions))
        assert (payer.me().scope, buyer.me().scope, seller.me().scope) == ("payer", "session", "provider")
        assert Decimal(seller.balance().payable) == Decimal("0.05")
        assert payer.sessions.top_up(str(world.a.session.pk), amount="1.00").budget == "26.00"
        assert [pool.status for pool in payer.pools.list()] == ["open"]
        assert [agent.uri for agent in buyer.agents.search(capability="code.lint", q="acme")] == [LINT]
        assert buyer.agents.get(LINT).offerings[0].currency == "USDC"
        offered = seller.agents.offer(LINT, {"capability": "code.lint", "pricing": "per_call", "price": "0.02"})
        assert (offered.version, offered.price) == (2, "0.02")
        key = payer.keys.create(session=str(world.a.session.pk), name="another")
        with SyncClient(key.api_key) as other:
            assert other.me().session_id == str(world.a.session.pk)
            assert payer.keys.revoke(key.id).revoked_at is not None
            with pytest.raises(agentmarket.Unauthenticated):
                other.me()
        assert payer.sessions.close(str(world.a.session.pk)).status == "closed"


@pytest.mark.promise("S16", "S17", "S18")
def test_an_agent_invoices_a_session_directly(world: World) -> None:
    with client(world.a.by_payer) as buyer, client(world.one.by_provider) as seller:
        session = buyer.payment.create_session(budget="25.00", policy={"allowed_recipients": [LINT]}).id
        first = seller.invoices.submit(session=session, agent=LINT, amount="1.00", number="1")
        second = seller.invoices.submit(session=session, agent=LINT, amount="2.00", number="2")
        before = money()
        with pytest.raises(agentmarket.Conflict):
            seller.invoices.submit(session=session, agent=LINT, amount="3.00", number="2")
        assert money() == before
        assert buyer.invoices.approve(first.id).status == "approved"
        assert buyer.invoices.reject(second.id, reason="Not agreed.").status == "rejected"
        assert seller.invoices.withdraw(second.id).status == "withdrawn"
        assert buyer.sessions.get(session).remaining == "24.00"


def test_a_refund_is_asked_for_granted_and_the_same_call_pays_anew(world: World) -> None:
    with client(world.a.by_session) as buyer, client(world.one.by_provider) as seller:
        first = buyer.payment.send(to=LINT, amount="0.012", metadata={"file": "a.py"})
        asked = buyer.refunds.ask(first.id, reason="A page was missing.", amount="0.004")
        assert (asked.status, asked.amount, asked.extra) == ("requested", "0.004", {})
        assert [one.id for one in seller.refunds.list(status="requested")] == [asked.id]
        assert seller.refunds.grant(asked.id).status == "paid"
        part = buyer.payment.get(first.id)
        assert (part.refunded, part.is_returned) == ("0.004", False)
        assert buyer.payment.send(to=LINT, amount="0.012", metadata={"file": "a.py"}).id == first.id
        again = buyer.refunds.ask(first.id, reason="And another.")
        declined = seller.refunds.decline(again.id, reason="It was there.")
        assert (declined.status, declined.answer) == ("declined", "It was there.")
        rest = seller.payment.refund(first.id, reason="All of it, then.")
        assert (rest.refunded, rest.status, rest.is_returned) == ("0.012", "refunded", True)
        assert seller.payment.refund(first.id, reason="All of it, then.").refunded == "0.012"
        before = money()
        with pytest.raises(agentmarket.Conflict) as caught:
            seller.payment.refund(first.id, reason="Again.", amount="0.001")
        assert (caught.value.outcome, money()) == ("not_charged", before)
        second = buyer.payment.send(to=LINT, amount="0.012", metadata={"file": "a.py"})
        third = buyer.payment.send(to=LINT, amount="0.0120", metadata={"file": "a.py"})
        assert (second.id != first.id, second.replayed, third.id, third.replayed) == (True, False, second.id, True)
        assert third.remaining == second.remaining == "24.988"
