"""A call that halts goes on: an unknown outcome, an empty budget, a person who is asked. Nothing is paid or run twice."""

import asyncio
import pickle
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest

import agentmarket
from agentmarket import Client, OpenedSession, SyncClient

from .conftest import async_buyer
from .stub import PAYER_KEY, Market

TO = "agent://enrich.acme.dev"


def opened(buyer: SyncClient, budget: str = "1.00", **policy: Any) -> OpenedSession[SyncClient]:
    return buyer.payment.create_session(budget=budget, policy=policy)


@asynccontextmanager
async def opened_async(market: Market, budget: str = "1.00", **policy: Any) -> AsyncIterator[OpenedSession[Client]]:
    async with async_buyer(market) as client:
        yield await client.payment.create_session(budget=budget, policy=policy)


class TestUnknownOutcomes:
    def test_resolve_finds_what_was_charged(self, market: Market, buyer: SyncClient) -> None:
        market.faults.extend(["drop_after"] * 4)
        with pytest.raises(agentmarket.OutcomeUnknown) as caught:
            buyer.payment.send(to=TO, amount="0.008")
        assert "it is charged once, however often. resolve() looks whether it was. [" in str(caught.value)
        found = caught.value.resolve()
        assert (found.id, found.amount) == (next(iter(market.payments)), "0.008")
        assert market.charges == ["0.008"]

    def test_resolve_finds_nothing_where_nothing_was_charged(self, market: Market, buyer: SyncClient) -> None:
        market.faults.extend(["drop_before"] * 4)
        with pytest.raises(agentmarket.OutcomeUnknown) as caught:
            buyer.payment.send(to=TO, amount="0.008")
        assert caught.value.resolve() is None
        assert market.charged == 0

    @pytest.mark.parametrize("fault", ["drop_after", "drop_before"])
    def test_resume_is_the_very_same_request(self, market: Market, buyer: SyncClient, fault: Any) -> None:
        market.faults.extend([fault] * 4)
        ran: list[str] = []
        with pytest.raises(agentmarket.OutcomeUnknown) as caught:
            buyer.payment.send(to=TO, amount="0.008", on_success=lambda: ran.append("ran"))
        sent = caught.value.resume()
        assert (sent.replayed, sent.key, ran) == (fault == "drop_after", caught.value.key, ["ran"])
        assert {(seen.headers["idempotency-key"], str(seen.body)) for seen in market.posts("/payments")} == {
            (sent.key, str(market.posts("/payments")[0].body))
        }
        assert market.charges == ["0.008"]

    def test_both_are_awaited_with_the_async_client(self, market: Market) -> None:
        async def scenario() -> None:
            async with async_buyer(market) as client:
                market.faults.extend(["drop_after"] * 4)
                with pytest.raises(agentmarket.OutcomeUnknown) as caught:
                    await client.payment.send(to=TO, amount="0.008", key="mine")
                assert (await caught.value.resolve()).amount == "0.008"
                assert (await caught.value.resume()).key == "mine"

        asyncio.run(scenario())
        assert market.charges == ["0.008"]

    def test_it_may_halt_again_and_still_go_on(self, market: Market, buyer: SyncClient) -> None:
        market.faults.extend(["drop_after"] * 8)
        with pytest.raises(agentmarket.OutcomeUnknown) as caught:
            buyer.payment.send(to=TO, amount="0.008")
        with pytest.raises(agentmarket.OutcomeUnknown) as again:
            caught.value.resume()
        assert again.value.resume().amount == "0.008"
        assert market.charges == ["0.008"]

    def test_a_session_whose_opening_is_unknown_is_opened_once(self, market: Market, buyer: SyncClient) -> None:
        market.faults.extend(["drop_after"] * 4)
        with pytest.raises(agentmarket.OutcomeUnknown) as caught:
            buyer.payment.create_session(budget="1.00")
        assert "resolve()" not in str(caught.value)
        session = caught.value.resume()
        assert (len(market.sessions), session.client().me().scope) == (1, "session")
        with pytest.raises(agentmarket.InvalidRequest, match="resume"):
            caught.value.resolve()

    def test_in_another_process_the_error_says_what_to_do(self, market: Market, buyer: SyncClient) -> None:
        market.faults.extend(["drop_after"] * 4)
        with pytest.raises(agentmarket.OutcomeUnknown) as caught:
            buyer.payment.send(to=TO, amount="0.008")
        elsewhere = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own bytes
        assert (elsewhere.key, str(elsewhere)) == (caught.value.key, str(caught.value))
        with pytest.raises(RuntimeError, match="make the same call again"):
            elsewhere.resume()


class TestEmptyBudgets:
    def test_it_halts_with_where_it_stands_and_goes_on_after_a_top_up(self, market: Market, buyer: SyncClient) -> None:
        session = opened(buyer)
        ran: list[str] = []
        agent = session.client()
        agent.payment.send(to=TO, amount="0.90")
        with pytest.raises(agentmarket.BudgetExhausted) as caught:
            agent.payment.send(to=TO, amount="0.20", on_success=lambda: ran.append("ran"))
        error = caught.value
        assert error.checkpoint == agentmarket.Checkpoint(budget="1.00", spent="0.90", remaining="0.10")
        assert (error.outcome, error.remaining, ran, market.charges) == ("not_charged", "0.10", [], ["0.90"])
        assert (error.next_actions[0].path, error.next_actions[0].body) == (
            f"/v1/sessions/{session.id}/top-up",
            {"amount": "0.10"},
        )
        with pytest.raises(agentmarket.BudgetExhausted):
            error.resume()
        session.top_up("0.10")
        sent = error.resume()
        assert (sent.remaining, sent.replayed, ran, market.charges) == ("0.00", False, ["ran"], ["0.90", "0.20"])
        assert sent.key == error.key

    def test_the_async_client_awaits_it(self, market: Market) -> None:
        async def scenario() -> None:
            async with opened_async(market) as session:
                agent = session.client()
                with pytest.raises(agentmarket.BudgetExhausted) as caught:
                    await agent.payment.send(to=TO, amount="1.20", on_success=fetch)
                await session.top_up("0.20")
                assert (await caught.value.resume()).value == "fetched"

        async def fetch() -> str:
            return "fetched"

        asyncio.run(scenario())
        assert market.charges == ["1.20"]

    def test_a_paid_call_goes_on_as_a_whole(self, market: Market) -> None:
        market.add_agent("lint.acme.dev", "http://127.0.0.1:9")
        with SyncClient(PAYER_KEY, base_url=market.url, retries=0) as buyer:
            session = opened(buyer, "0.01")
            with pytest.raises(agentmarket.BudgetExhausted) as caught:
                session.client().call("agent://lint.acme.dev", json={}, amount="0.012")
            session.top_up("0.01")
            with pytest.raises(agentmarket.CallFailed):  # it is asked now, and nobody is there
                caught.value.resume()
        assert market.charges == ["0.012"]

    def test_holds_and_children_halt_too(self, market: Market, buyer: SyncClient) -> None:
        session = opened(buyer)
        with pytest.raises(agentmarket.BudgetExhausted) as hold:
            session.client().holds.place(to=TO, amount="1.50")
        with pytest.raises(agentmarket.BudgetExhausted) as child:
            session.child(budget="2.00")
        assert [error.value.checkpoint.budget for error in (hold, child) if error.value.checkpoint] == ["1.00", "1.00"]
        assert (market.holds, market.sessions[session.id]["remaining"]) == ({}, "1.00")
        session.top_up("2.50")
        assert hold.value.resume().status == "held"
        assert child.value.resume().client().payment.send(to=TO, amount="2.00").remaining == "0.00"

    def test_ensure_asks_before_anything_is_spent(self, market: Market, buyer: SyncClient) -> None:
        session = opened(buyer)
        assert session.ensure("1.00").remaining == "1.00"
        assert buyer.sessions.ensure(session.id, Decimal("0.5")).id == session.id
        with pytest.raises(agentmarket.BudgetExhausted) as caught:
            session.ensure("1.01")
        assert caught.value.checkpoint == agentmarket.Checkpoint(budget="1.00", spent="0.00", remaining="1.00")
        assert (caught.value.required, caught.value.outcome, market.charged) == ("1.01", "not_charged", 0)
        session.top_up("0.01")
        assert caught.value.resume().remaining == "1.01"
        session.pause(reason="lunch")
        with pytest.raises(agentmarket.Conflict) as paused:
            session.ensure("0.01")
        assert paused.value.state == "paused"

    def test_a_loop_halts_and_goes_on(self, market: Market) -> None:
        """The loop of the documentation: 5 payments with a budget for 2, topped up by somebody else when it is dry."""

        async def scenario() -> list[str]:
            done: list[str] = []
            async with opened_async(market, "0.02") as session:
                agent = session.client()
                for number in range(5):
                    try:
                        await session.ensure("0.01")
                    except agentmarket.BudgetExhausted as dry:
                        await session.top_up("0.01")
                        await dry.resume()
                    done.append((await agent.payment.send(to=TO, amount="0.01", metadata={"n": number})).amount)
            return done

        assert asyncio.run(scenario()) == ["0.01"] * 5
        assert market.charges == ["0.01"] * 5


class TestApprovals:
    def halted(self, session: OpenedSession[SyncClient], on_success: Callable[[], object] | None = None) -> Any:
        with pytest.raises(agentmarket.ApprovalRequired) as caught:
            session.client().payment.send(to=TO, amount="0.80", on_success=on_success)
        return caught.value

    def test_it_waits_for_a_person_and_goes_on(self, market: Market, buyer: SyncClient) -> None:
        session, ran = opened(buyer, approval_above="0.50"), list[str]()
        error = self.halted(session, on_success=lambda: ran.append("ran"))
        assert (error.rule, error.limit, error.outcome, error.retryable) == (
            "approval_above", "0.50", "not_charged", True,
        )  # fmt: skip
        assert (ran, market.charged, market.sessions[session.id]["remaining"]) == ([], 0, "1.00")
        [approval] = buyer.approvals.list(status="waiting")
        assert (approval.id, approval.amount, approval.to) == (error.approval_id, "0.80", TO)
        person = threading.Timer(0.05, lambda: buyer.approvals.approve(approval.id))
        person.start()
        assert error.wait(timeout=30).status == "approved"
        person.join()
        sent = error.resume()
        assert (sent.amount, sent.key, ran, market.charges) == ("0.80", error.key, ["ran"], ["0.80"])
        assert len(market.approvals) == 1

    def test_a_refusal_is_a_policy_that_says_no(self, market: Market, buyer: SyncClient) -> None:
        error = self.halted(opened(buyer, approval_above="0.50"))
        buyer.approvals.refuse(error.approval_id, reason="Too dear.")
        with pytest.raises(agentmarket.PolicyDenied, match="Too dear") as refused:
            error.wait()
        assert (refused.value.rule, refused.value.outcome) == ("approval_above", "not_charged")
        with pytest.raises(agentmarket.PolicyDenied):
            error.resume()
        assert market.charged == 0

    def test_nobody_answers(self, market: Market, buyer: SyncClient) -> None:
        error = self.halted(opened(buyer, approval_above="0.50"))
        with pytest.raises(agentmarket.Timeout):
            error.wait(timeout=0.01)
        market.approvals[error.approval_id]["status"] = "expired"
        with pytest.raises(agentmarket.Timeout, match="is expired"):
            error.wait()
        with pytest.raises(agentmarket.ApprovalRequired):
            error.resume()
        assert market.charged == 0

    def test_a_hold_may_need_one_as_well_and_the_async_client_awaits_it(self, market: Market) -> None:
        async def scenario() -> None:
            async with opened_async(market, approval_above="0.50") as session:
                agent = session.client()
                with pytest.raises(agentmarket.ApprovalRequired) as caught:
                    await agent.holds.place(to=TO, amount="0.80")
                await session.owner.approvals.approve(caught.value.approval_id or "")
                assert (await caught.value.wait()).status == "approved"
                assert (await caught.value.resume()).status == "held"

        asyncio.run(scenario())
        assert market.charged == 0


class TestOpenedSessions:
    def test_a_session_has_its_verbs(self, market: Market, buyer: SyncClient) -> None:
        session = opened(buyer, max_per_tx="0.50")
        assert session.balance().remaining == "1.00"
        assert session.top_up("0.50").budget == "1.50"
        assert session.pause(reason="night").status == "paused"
        with pytest.raises(agentmarket.Conflict) as caught:
            session.client().payment.send(to=TO, amount="0.10")
        assert (caught.value.outcome, caught.value.state, market.charged) == ("not_charged", "paused", 0)
        assert session.resume().status == "open"
        assert session.pause().status == "paused"  # another pause, not the answer to the first
        session.resume()
        assert session.change_policy({"max_per_tx": "0.10"}).policy_version == 2
        assert [version.version for version in buyer.sessions.policies(session.id)] == [1, 2]
        child = session.child(budget="0.40", policy={"max_per_tx": "0.05"})
        assert (child.parent_id, child.client().payment.send(to=TO, amount="0.05").remaining) == (session.id, "0.35")
        assert session.balance().delegated == "0.40"
        assert session.close().status == "closed"
        assert market.charges == ["0.05"]

    def test_the_async_one_awaits_them(self, market: Market) -> None:
        async def scenario() -> None:
            async with opened_async(market) as session:
                await session.pause()
                await session.resume()
                child = await session.child(budget="0.40")
                grandchild = await child.child(budget="0.10")
                assert (await grandchild.balance()).remaining == "0.10"
                assert (await session.close()).status == "closed"

        asyncio.run(scenario())


def test_a_pool_that_opens_is_waited_for(market: Market, buyer: SyncClient) -> None:
    market.opening = 9
    assert buyer.payment.create_session(budget="10.00").remaining == "10.00"
    assert len({seen.headers["idempotency-key"] for seen in market.posts("/v1/sessions")}) == 1
    assert len(market.sessions) == 1
