"""Holds, and `send(capture="on_success")`: the money waits for the work, and nobody is charged for work that failed."""

import asyncio
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from pytest_django.live_server_helper import LiveServer

import agentmarket
from agentmarket import SyncClient
from tests.escrow import books
from tests.marketplace.conftest import make_world, money

from .conftest import QUICK, async_buyer
from .stub import Market

TO = "agent://enrich.acme.dev"
LINT = "agent://lint.acme.dev"


def capture(buyer: SyncClient, on_success: Callable[[], Any], **more: Any) -> agentmarket.Sent[Any]:
    return buyer.payment.send(to=TO, amount="0.010", capture="on_success", on_success=on_success, **more)


def states(market: Market) -> list[str]:
    return [hold["status"] for hold in market.holds.values()]


class TestVerbs:
    def test_a_hold_is_captured_in_part(self, market: Market, buyer: SyncClient) -> None:
        hold = buyer.holds.place(to=TO, amount="0.010", metadata={"job": 1}, expires_in_seconds=60)
        assert (hold.status, hold.captured, hold.payment_id, market.funds) == ("held", "0.00", None, Decimal("24.99"))
        paid = buyer.holds.capture(hold.id, amount="0.004")
        assert (paid.amount, buyer.holds.capture(hold.id, amount="0.004").id) == ("0.004", paid.id)
        assert (buyer.holds.get(hold.id).payment_id, market.charges, market.funds) == (
            paid.id,
            ["0.004"],
            Decimal("24.996"),
        )
        with pytest.raises(agentmarket.Conflict) as caught:
            buyer.holds.release(hold.id)
        assert caught.value.state == "captured"

    def test_a_hold_is_released(self, market: Market, buyer: SyncClient) -> None:
        hold = buyer.holds.place(to=TO, amount="0.010")
        assert [buyer.holds.release(hold.id).status for _ in range(2)] == ["released", "released"]
        assert [one.id for one in buyer.holds.list(status="released")] == [hold.id]
        assert (market.charged, market.funds) == (0, Decimal("25.00"))

    def test_each_place_is_a_hold_of_its_own(self, market: Market, buyer: SyncClient) -> None:
        assert len({buyer.holds.place(to=TO, amount="0.010").id for _ in range(2)}) == 2
        assert len({buyer.holds.place(to=TO, amount="0.010", key="mine").id for _ in range(2)}) == 1

    def test_a_capture_whose_reply_is_lost_is_looked_up(self, market: Market, buyer: SyncClient) -> None:
        hold = buyer.holds.place(to=TO, amount="0.010")
        market.faults.extend(["drop_before"] * 4)
        with pytest.raises(agentmarket.OutcomeUnknown) as caught:
            buyer.holds.capture(hold.id)
        assert caught.value.resolve() is None
        paid = caught.value.resume()
        assert (caught.value.resolve().id, market.charges) == (paid.id, ["0.01"])


class TestCaptureOnSuccess:
    def test_it_holds_works_and_then_captures(self, market: Market, buyer: SyncClient) -> None:
        seen: list[tuple[list[str], int]] = []
        sent = capture(buyer, lambda: seen.append((states(market), market.charged)) or "work", metadata={"job": 1})
        assert (sent.value, sent.amount, sent.replayed) == ("work", "0.01", False)
        assert seen == [(["held"], 0)]
        assert (states(market), market.charges) == (["captured"], ["0.01"])

    def test_work_that_fails_costs_nothing(self, market: Market, buyer: SyncClient) -> None:
        def work() -> None:
            raise ValueError("the page is gone")

        with pytest.raises(agentmarket.OnSuccessFailed, match="was released") as caught:
            capture(buyer, work)
        error = caught.value
        assert isinstance(error.__cause__, ValueError)
        assert (error.outcome, error.released, error.payment) == ("not_charged", True, None)
        assert (states(market), market.charged, market.funds) == (["released"], 0, Decimal("25.00"))

    def test_the_same_call_tries_again_with_a_new_hold(self, market: Market, buyer: SyncClient) -> None:
        def work() -> None:
            raise ValueError("the page is gone")

        for _ in range(2):
            with pytest.raises(agentmarket.OnSuccessFailed):
                capture(buyer, work)
        assert capture(buyer, lambda: "work").value == "work"
        assert (states(market), market.charges) == (["released", "released", "captured"], ["0.01"])

    def test_a_process_that_ends_in_between_finds_its_hold_again(self, market: Market, buyer: SyncClient) -> None:
        def die() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            capture(buyer, die)
        assert (states(market), market.charged) == (["held"], 0)
        assert capture(buyer, lambda: "work").value == "work"
        assert (states(market), market.charges) == (["captured"], ["0.01"])

    def test_what_was_captured_is_not_captured_again(self, market: Market, buyer: SyncClient) -> None:
        first, again = capture(buyer, lambda: 1), capture(buyer, lambda: 2)
        assert (again.id, again.value, again.replayed, market.charges) == (first.id, 2, True, ["0.01"])

    def test_a_payment_and_a_capture_of_the_same_are_two(self, market: Market, buyer: SyncClient) -> None:
        buyer.payment.send(to=TO, amount="0.01")
        capture(buyer, lambda: 1)
        assert market.charges == ["0.01", "0.01"]

    def test_the_price_may_follow_from_the_work(self, market: Market, buyer: SyncClient) -> None:
        sent = capture(buyer, lambda: {"tokens": 400}, charge=lambda answer: Decimal(answer["tokens"]) / 100_000)
        assert (sent.value, sent.amount, market.charges) == ({"tokens": 400}, "0.004", ["0.004"])
        assert market.funds == Decimal("24.996")

    @pytest.mark.parametrize("charge", ["0.011", "0", 0.004, None])
    def test_a_price_that_is_none_or_more_than_is_held_costs_nothing(
        self, market: Market, buyer: SyncClient, charge: Any
    ) -> None:
        with pytest.raises(agentmarket.OnSuccessFailed) as caught:
            capture(buyer, lambda: "work", charge=lambda value: charge)
        assert isinstance(caught.value.__cause__, agentmarket.InvalidAmount)
        assert (states(market), market.charged, market.funds) == (["released"], 0, Decimal("25.00"))

    def test_a_release_that_is_lost_is_said_and_the_hold_ends_by_itself(
        self, market: Market, buyer: SyncClient
    ) -> None:
        def work() -> None:
            market.faults.extend(["drop_before"] * 4)
            raise ValueError("the page is gone")

        with pytest.raises(agentmarket.OnSuccessFailed, match="comes back by itself at 2026-01-01 00:15") as caught:
            capture(buyer, work)
        assert (caught.value.released, caught.value.outcome, states(market)) == (False, "not_charged", ["held"])
        assert market.charged == 0

    @pytest.mark.parametrize("fault", ["drop_before", "drop_after"])
    def test_a_capture_that_is_lost_goes_on_without_working_again(
        self, market: Market, buyer: SyncClient, fault: Any
    ) -> None:
        ran: list[int] = []

        def work() -> str:
            ran.append(1)
            market.faults.extend([fault] * 4)
            return "work"

        with pytest.raises(agentmarket.OutcomeUnknown) as caught:
            capture(buyer, work)
        assert (caught.value.resolve() is None) == (fault == "drop_before")
        sent = caught.value.resume()
        assert (sent.value, sent.amount, ran, market.charges) == ("work", "0.01", [1], ["0.01"])

    def test_a_capture_that_is_refused_keeps_the_work(self, market: Market, buyer: SyncClient) -> None:
        def work() -> str:
            next(iter(market.holds.values()))["status"] = "released"  # it took longer than the hold lasts
            return "work"

        with pytest.raises(agentmarket.CaptureFailed, match="The hold is released") as caught:
            capture(buyer, work)
        assert (caught.value.value, caught.value.outcome, market.charged) == ("work", "not_charged", 0)

    def test_an_equal_call_that_captured_meanwhile_has_paid_for_both(self, market: Market, buyer: SyncClient) -> None:
        def work() -> str:
            [hold] = buyer.holds.list()
            buyer.holds.capture(hold.id, amount="0.003")
            return "work"

        sent = capture(buyer, work, charge=lambda value: "0.004")
        assert (sent.value, sent.amount, sent.replayed, market.charges) == ("work", "0.003", True, ["0.003"])

    def test_a_hold_that_is_not_placed_runs_nothing_and_goes_on(self, market: Market, buyer: SyncClient) -> None:
        session, ran = buyer.payment.create_session(budget="0.005"), list[str]()
        with pytest.raises(agentmarket.BudgetExhausted) as caught:
            capture(session.client(), lambda: ran.append("ran"))
        assert (ran, market.holds) == ([], {})
        session.top_up("0.005")
        caught.value.resume()
        assert (ran, states(market), market.charges) == (["ran"], ["captured"], ["0.01"])

    def test_a_hold_whose_reply_is_lost_is_found_by_the_same_call(self, market: Market, buyer: SyncClient) -> None:
        market.faults.extend(["drop_after"] * 4)
        with pytest.raises(agentmarket.OutcomeUnknown) as caught:
            capture(buyer, lambda: "work")
        assert (caught.value.resolve(), market.charged) == (None, 0)
        assert caught.value.resume().value == "work"
        assert (states(market), market.charges) == (["captured"], ["0.01"])

    def test_the_async_client_awaits_the_work(self, market: Market) -> None:
        async def work() -> dict[str, int]:
            await asyncio.sleep(0)
            return {"tokens": 400}

        async def scenario() -> agentmarket.Sent[dict[str, int]]:
            async with async_buyer(market) as client:
                return await client.payment.send(
                    to=TO, amount="0.010", capture="on_success", on_success=work, charge=lambda answer: "0.004"
                )

        sent = asyncio.run(scenario())
        assert (sent.value, sent.amount, market.charges) == ({"tokens": 400}, "0.004", ["0.004"])

    @pytest.mark.parametrize(
        ("arguments", "fault"),
        [
            ({"capture": "on_success"}, "needs on_success"),
            ({"capture": "always", "on_success": int}, 'capture is "on_success"'),
            ({"charge": str, "on_success": int}, 'add capture="on_success"'),
            ({"expires_in_seconds": 5}, 'add capture="on_success"'),
        ],
    )
    def test_what_makes_no_sense_is_refused_before_anything_is_sent(
        self, market: Market, buyer: SyncClient, arguments: dict[str, Any], fault: str
    ) -> None:
        with pytest.raises(agentmarket.InvalidRequest, match=fault) as caught:
            buyer.payment.send(to=TO, amount="0.01", **arguments)
        assert (market.seen, caught.value.outcome) == ([], "not_charged")


class TestRefunds:
    def test_a_part_comes_back(self, market: Market, buyer: SyncClient) -> None:
        paid = buyer.payment.send(to=TO, amount="0.010")
        assert buyer.payment.refund(paid.id, reason="A page was missing.", amount="0.004").refunded == "0.004"
        back = buyer.payment.refund(paid.id, reason="Another one.", amount="0.006")
        assert (back.refunded, back.status, market.charged) == ("0.010", "refunded", 0)

    def test_a_buyer_asks_and_the_provider_answers(self, market: Market, buyer: SyncClient) -> None:
        paid = [buyer.payment.send(to=TO, amount="0.010", metadata={"n": n}).id for n in range(2)]
        asked = [buyer.refunds.ask(one, reason="Nothing came.") for one in paid]
        assert [one.status for one in buyer.refunds.list(status="requested")] == ["requested"] * 2
        assert buyer.refunds.grant(asked[0].id).status == "paid"
        declined = buyer.refunds.decline(asked[1].id, reason="It was delivered.")
        assert (declined.status, declined.answer) == ("declined", "It was delivered.")
        assert buyer.refunds.get(asked[0].id).payment_id == paid[0]
        assert (market.counts(), market.charged) == ({"refunded": 1, "payable": 1}, 1)


class TestPolicies:
    def test_a_policy_is_asked_without_spending(self, market: Market, buyer: SyncClient) -> None:
        session = buyer.payment.create_session(budget="1.00", policy={"max_per_tx": "0.50"})
        verdict = buyer.policy.check(to=TO, amount="0.80", session=session.id)
        assert (verdict.allowed, verdict.rule, verdict.would_allow) == (False, "max_per_tx", "0.50")
        assert buyer.policy.check(to=TO, amount="0.80", policy={"max_per_tx": Decimal("0.80")}).allowed
        assert market.charged == 0

    def test_decisions_are_listed_and_a_policy_is_tried_on_them(self, market: Market, buyer: SyncClient) -> None:
        session = buyer.payment.create_session(budget="1.00", policy={"max_per_tx": "0.50"})
        session.client().payment.send(to=TO, amount="0.40")
        with pytest.raises(agentmarket.PolicyDenied):
            session.client().payment.send(to=TO, amount="0.60")
        [denied] = buyer.decisions.list(outcome="denied", session=session.id)
        assert (denied.rule, denied.amount, denied.code) == ("max_per_tx", "0.60", "policy_denied")
        tried = buyer.policy.backtest(policy={"max_per_tx": "0.30"}, days=7)
        assert (tried.days, tried.decisions, tried.refused.count, tried.refused.amount) == (7, 2, 2, "1.00")
        assert tried.by_rule[0].rule == "max_per_tx"

    def test_everything_is_frozen_and_let_go(self, market: Market, buyer: SyncClient) -> None:
        assert buyer.freeze(reason="A key leaked.").frozen
        assert market.frozen
        assert not buyer.unfreeze().frozen

    def test_keys_have_ceilings_and_are_rotated(self, market: Market, buyer: SyncClient) -> None:
        key = buyer.keys.create(session="s", ceiling=Decimal("0.5"))
        assert key.ceiling == "0.50"
        assert buyer.keys.rotate(key.id, overlap_seconds=0).api_key is not None
        assert market.posts("/rotate")[0].body == {"overlap_seconds": 0}


class TestWithTheMarket:
    """The same against the market itself: what is held, captured and released is in the books."""

    @pytest.fixture
    def agent(
        self, transactional_db: None, live_server: LiveServer, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[SyncClient]:
        monkeypatch.setenv("AGENTMARKET_URL", live_server.url)
        with SyncClient(make_world().a.by_session.key, retries=QUICK) as client:
            yield client
        books.check_conservation()

    def remaining(self, agent: SyncClient) -> str:
        session = agent.me().session_id
        assert session is not None
        return agent.sessions.get(session).remaining

    def test_a_hold_is_captured_in_part_and_another_released(self, agent: SyncClient) -> None:
        hold = agent.holds.place(to=LINT, amount="0.010", metadata={"job": 1}, expires_in_seconds=60)
        assert (hold.status, hold.remaining, hold.captured, hold.extra) == ("held", "24.99", "0.00", {})
        paid = agent.holds.capture(hold.id, amount="0.004")
        assert (paid.amount, agent.holds.capture(hold.id, amount="0.004").id) == ("0.004", paid.id)
        assert (agent.holds.get(hold.id).payment_id, self.remaining(agent)) == (paid.id, "24.996")
        other = agent.holds.place(to=LINT, amount="0.010")
        assert [agent.holds.release(other.id).status for _ in range(2)] == ["released", "released"]
        assert [one.id for one in agent.holds.list(status="released")] == [other.id]
        assert self.remaining(agent) == "24.996"

    @pytest.mark.promise("S23")
    def test_work_is_paid_when_it_is_done_and_only_then(self, agent: SyncClient) -> None:
        def work() -> None:
            raise ValueError("the page is gone")

        more: dict[str, Any] = {"to": LINT, "amount": "0.010", "capture": "on_success"}
        for _ in range(2):
            with pytest.raises(agentmarket.OnSuccessFailed) as caught:
                agent.payment.send(**more, on_success=work)
            assert (caught.value.released, self.remaining(agent)) == (True, "25.00")
        sent = agent.payment.send(**more, on_success=lambda: 400, charge=lambda tokens: f"0.{tokens:05d}")
        assert (sent.value, sent.amount, self.remaining(agent)) == (400, "0.004", "24.996")
        again = agent.payment.send(**more, on_success=lambda: 400)
        assert (again.id, again.replayed, self.remaining(agent)) == (sent.id, True, "24.996")

    def test_a_process_that_ends_in_between_finds_its_hold_again(self, agent: SyncClient) -> None:
        def die() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            agent.payment.send(to=LINT, amount="0.010", capture="on_success", on_success=die)
        assert self.remaining(agent) == "24.99"
        sent = agent.payment.send(to=LINT, amount="0.010", capture="on_success", on_success=lambda: "work")
        assert (sent.value, self.remaining(agent), len([*agent.holds.list()])) == ("work", "24.99", 1)

    def test_a_hold_over_the_budget_halts(self, agent: SyncClient) -> None:
        before = money()
        with pytest.raises(agentmarket.BudgetExhausted) as caught:
            agent.holds.place(to=LINT, amount="25.01")
        assert (caught.value.outcome, money()) == ("not_charged", before)
