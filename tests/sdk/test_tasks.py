"""A seller's task loop delivers each assigned task once, with an invoice, and leaves alone what it cannot do."""

import asyncio
import threading
from contextlib import suppress
from typing import Any

import pytest

import agentmarket
from agentmarket import Client, Seller, SyncClient, Task
from agentmarket.working import DELIVERIES, Worker

from .conftest import asked, async_buyer, seller, served
from .stub import Market

AGENT = "agent://brief.acme.dev"


def post(client: SyncClient, **more: Any) -> Task:
    facts = {"title": "A brief", "brief": {"n": 1}, "capability": "review-brief", "budget": "2.40", "agent": AGENT}
    return client.tasks.post(**{**facts, **more})


def writer(market: Market) -> tuple[Seller, list[str]]:
    app, written = seller(market, AGENT), []

    @app.task("review-brief", price="2.40")
    def write(task: Task) -> dict[str, Any]:
        written.append(task.id)
        if task.brief.get("unserviceable"):
            raise app.Unserviceable("no findings to write about")
        if task.brief.get("bug"):
            raise ZeroDivisionError
        return {"markdown": f"# {task.title}"}

    return app, written


def until_submitted(market: Market, app: Seller, task_id: str) -> Task:
    async def run() -> Task:
        async with served(app), async_buyer(market) as client:
            return await client.tasks.wait(task_id, timeout=20)

    return asyncio.run(run())


def test_an_assigned_task_is_delivered_with_its_invoice(market: Market, buyer: SyncClient) -> None:
    app, written = writer(market)
    task = post(buyer)
    done = until_submitted(market, app, task.id)
    assert done.deliverable == {"markdown": "# A brief"}
    assert done.invoice is not None
    assert (done.invoice.amount, done.invoice.number, written) == ("2.40", f"INV-{task.id}", [task.id])
    assert buyer.tasks.accept(task.id).status == "accepted"
    assert market.charges == ["2.40"]


def test_a_delivery_whose_answer_is_lost_is_the_same_delivery(market: Market, buyer: SyncClient) -> None:
    app, written = writer(market)
    task = post(buyer)
    market.faults.extend(["drop_after", "drop_after"])
    until_submitted(market, app, task.id)
    keys = {seen.headers["idempotency-key"] for seen in market.posts("/submit")}
    assert (keys, len(written)) == ({f"submit-{task.id}"}, 1)


def test_a_seller_killed_after_delivery_does_not_deliver_again(market: Market, buyer: SyncClient) -> None:
    """The first life delivers and never learns; the second does the work again, and is told that it is done."""
    task = post(buyer)
    provider = SyncClient(seller(market)._settings.api_key, base_url=market.url)
    provider.tasks.submit(
        task.id, deliverable={"markdown": "first"}, amount="2.40", number="1", key=f"submit-{task.id}"
    )
    market.tasks[task.id]["status"] = "assigned"
    app, _ = writer(market)

    async def run() -> None:
        async with async_buyer(market) as client:
            await one_look(app, client)

    asyncio.run(run())
    provider.close()
    assert market.tasks[task.id]["deliverable"] == {"markdown": "first"}


async def one_look(app: Seller, client: Client) -> int:
    worker = Worker(client, app.agent, app._tasks)
    return await worker.work_once()


@pytest.mark.parametrize(
    "facts",
    [{"capability": "translate"}, {"budget": "2.39"}, {"brief": {"unserviceable": True}}],
    ids=["other capability", "small budget", "unserviceable"],
)
def test_a_task_that_cannot_be_done_is_left_alone(market: Market, buyer: SyncClient, facts: dict[str, Any]) -> None:
    app, written = writer(market)
    left, good = post(buyer, **facts), post(buyer)
    until_submitted(market, app, good.id)
    assert (buyer.tasks.get(left.id).status, market.charged) == ("assigned", 0)
    assert written.count(left.id) <= 1


def test_a_task_of_another_agent_is_not_touched(market: Market, buyer: SyncClient) -> None:
    app, written = writer(market)
    other, good = post(buyer, agent="agent://other.acme.dev"), post(buyer)
    until_submitted(market, app, good.id)
    assert (buyer.tasks.get(other.id).status, written) == ("assigned", [good.id])


def test_a_function_that_raises_is_tried_three_times_and_ends_nothing(market: Market, buyer: SyncClient) -> None:
    app, written = writer(market)
    bad = post(buyer, brief={"bug": True})

    async def run() -> None:
        async with async_buyer(market) as client:
            worker = Worker(client, app.agent, app._tasks)
            assert [await worker.work_once() for _ in range(5)] == [0] * 5
            good = await client.tasks.post(
                title="A brief", brief={}, capability="review-brief", budget="2.40", agent=AGENT
            )
            assert await worker.work_once() == 1
            assert (await client.tasks.get(good.id)).status == "submitted"

    asyncio.run(run())
    assert (written.count(bad.id), market.tasks[bad.id]["status"], market.charged) == (3, "assigned", 0)


@pytest.mark.parametrize(
    ("refusal", "looks"),
    [
        ((409, {"code": "conflict"}), 1),
        ((403, {"code": "forbidden"}), 1),
        ((400, {"code": "invalid_request"}), 1),
        ((503, {"code": "unavailable", "retryable": False, "outcome": "not_charged"}), DELIVERIES),
        ((500, {"code": "internal", "retryable": True}), DELIVERIES),
    ],
    ids=str,
)
def test_a_delivery_that_is_not_taken_is_left_in_the_end_and_holds_up_no_other(
    market: Market, buyer: SyncClient, refusal: tuple[int, dict[str, Any]], looks: int
) -> None:
    app, written = writer(market)
    bad, good = post(buyer), post(buyer)
    market.stuck[f"/tasks/{bad.id}/"] = refusal

    async def run() -> None:
        async with async_buyer(market) as client:
            worker = Worker(client, app.agent, app._tasks)
            for _ in range(looks + 3):
                with suppress(agentmarket.AgentMarketError):
                    await worker.work_once()
                assert market.tasks[good.id]["status"] == "submitted"

    asyncio.run(run())
    assert (written.count(bad.id), written.count(good.id)) == (looks, 1)


def test_stopping_finishes_the_task_in_hand(market: Market, buyer: SyncClient) -> None:
    app, started, release = seller(market, AGENT), threading.Event(), threading.Event()

    @app.task("review-brief", price="2.40")
    def write(task: Task) -> dict[str, Any]:
        started.set()
        release.wait(10)
        return {"markdown": "done"}

    task, waiting = post(buyer), post(buyer)

    async def run() -> None:
        await app.start()
        await asyncio.to_thread(started.wait, 10)
        stopping = asyncio.ensure_future(app.stop())
        await asyncio.sleep(0)
        release.set()
        await stopping

    asyncio.run(run())
    assert (market.tasks[task.id]["status"], market.tasks[waiting.id]["status"]) == ("submitted", "assigned")


def test_trouble_with_the_market_ends_nothing(market: Market, buyer: SyncClient) -> None:
    app, _ = writer(market)
    task = post(buyer)
    listed, market.tasks = market.tasks, {"broken": {"status": "assigned"}}

    async def run() -> None:
        async with async_buyer(market) as client:
            worker = Worker(client, app.agent, app._tasks)
            working = asyncio.ensure_future(worker.work())
            await asked(market, "GET", "/tasks")
            market.tasks = listed
            await client.tasks.wait(task.id, timeout=20)
            worker.stop()
            await working

    asyncio.run(run())


def test_rejecting_and_disputing(market: Market, buyer: SyncClient) -> None:
    app, _ = writer(market)
    done = until_submitted(market, app, post(buyer).id)
    rejected = buyer.tasks.reject(done.id, reason="The brief is empty.")
    dispute = buyer.disputes.open(invoice=rejected.invoice_id, reason="The brief is empty.")
    assert (rejected.status, dispute.status, dispute.amount, market.charged) == ("rejected", "open", "2.40", 0)


def test_waiting_ends(market: Market, buyer: SyncClient) -> None:
    task = post(buyer)
    with pytest.raises(agentmarket.Timeout, match=f"task {task.id} to be submitted"):
        buyer.tasks.wait(task.id, timeout=0)
