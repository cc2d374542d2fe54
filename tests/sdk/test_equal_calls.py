"""Equal calls are one payment: in one process, in two, after a crash, and in every version of this package."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import agentmarket
from agentmarket import SyncClient, derive, wire

from .conftest import async_buyer, seller, served
from .stub import Market

TO = "agent://enrich.acme.dev"
SESSION = "0190b2c4-0000-7000-8000-000000000001"
PAYMENT = "0190b2c4-0000-7000-8000-000000000002"
SAID: dict[str, Any] = {
    "session": None, "to": TO, "amount": "0.008", "currency": "USDC", "metadata": None, "capability": None,
}  # fmt: skip


class TestKeysAreTheSameInEveryVersion:
    """Fixed vectors. A key that changes charges twice whoever upgrades between a lost reply and the repetition."""

    @pytest.mark.parametrize(
        ("key", "vector"),
        [
            (lambda: derive.payment(**SAID), "am-e4db368f0ecbba85fdc79c0acfdd91cd0fe9f629d8b62bd225ad152ab5f947d2"),
            (
                lambda: derive.payment(
                    **{
                        **SAID,
                        "session": SESSION,
                        "metadata": {"b": [1, 2.5, None, True], "a": "Ünï"},
                        "capability": "enrich",
                    }
                ),
                "am-a3a76e8511ee81767f4fe0cb50c95479ce8ef9101bd46e6c8c6973db809c2852",
            ),
            (
                lambda: derive.payment(**SAID, kind="hold"),
                "am-e98a5c18e55e3fcf1db1bdaf8d4d10b8a1456496f7f4fd7f2ea17e5658af5c1e",
            ),
            (
                lambda: derive.call(
                    derive.payment(**SAID), path="check", body=wire.canonical({"source": "x", "filename": "a.py"})
                ),
                "am-0b9bbf4725295681a20a0d26d8c4b20ef141cd6d0b855b506d37ff996161eec1",
            ),
            (
                lambda: derive.after_return(derive.payment(**SAID), PAYMENT),
                "am-79b88d1d96cae26461392694dc880227a6e660dc1727b6144e4bc9ae69c68e60",
            ),
            (
                lambda: derive.step("capture", "0190b2c4-0000-7000-8000-000000000003", "0.004"),
                "am-d64f1eb14150b10f349b0c4b6bc7b7eacb4f030359db61c859c8e75a0450df63",
            ),
        ],
        ids=["payment", "everything", "hold", "call", "again", "capture"],
    )
    def test_vectors(self, key: Callable[[], str], vector: str) -> None:
        assert key() == vector

    @pytest.mark.parametrize(
        "other",
        [
            {"session": SESSION},
            {"to": "agent://enrich.acme.de"},
            {"amount": "0.009"},
            {"currency": "EURC"},
            {"metadata": {"a": 1}},
            {"metadata": {"a": "1"}},
            {"capability": "enrich"},
            {"to": 'agent://enrich.acme.dev","0.008'},
            {"kind": "hold"},
        ],
        ids=str,
    )
    def test_whatever_differs_makes_another_key(self, other: dict[str, Any]) -> None:
        assert derive.payment(**{**SAID, **other}) != derive.payment(**SAID)

    def test_how_a_thing_is_written_makes_no_difference(self) -> None:
        ordered = [{"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}]
        assert len({derive.payment(**{**SAID, "metadata": metadata}) for metadata in ordered}) == 1
        assert derive.payment(**{**SAID, "metadata": {}}) == derive.payment(**SAID)


class TestSend:
    def test_an_equal_call_finds_the_first_payment(self, market: Market, buyer: SyncClient) -> None:
        first = buyer.payment.send(to=TO, amount="0.008", metadata={"query": "valves", "page": 1})
        again = buyer.payment.send(to=TO, amount="0.0080", metadata={"page": 1, "query": "valves"})
        assert (first.replayed, again.replayed) == (False, True)
        assert (again.id, again.key, market.charges) == (first.id, first.key, ["0.008"])

    def test_another_client_finds_it_too(self, market: Market, buyer: SyncClient) -> None:
        async def scenario() -> agentmarket.Sent[None]:
            async with async_buyer(market) as client:
                return await client.payment.send(to=TO, amount="0.008")

        first = buyer.payment.send(to=TO, amount="0.008")
        again = asyncio.run(scenario())
        assert (again.id, again.replayed, market.charges) == (first.id, True, ["0.008"])

    def test_what_is_paid_twice_on_purpose_says_so(self, market: Market, buyer: SyncClient) -> None:
        buyer.payment.send(to=TO, amount="0.008")
        buyer.payment.send(to=TO, amount="0.008", key="second")
        buyer.payment.send(to=TO, amount="0.008", metadata={"turn": 2})
        assert market.charges == ["0.008"] * 3

    def test_the_reply_that_was_lost_is_a_repetition_too(self, market: Market, buyer: SyncClient) -> None:
        market.faults.append("drop_after")
        assert buyer.payment.send(to=TO, amount="0.008").replayed
        assert market.charges == ["0.008"]

    def test_on_success_runs_for_the_payment_that_was_found(self, market: Market, buyer: SyncClient) -> None:
        """A process that ended between paying and working has to work when it comes back."""
        buyer.payment.send(to=TO, amount="0.008")
        ran: list[str] = []
        buyer.payment.send(to=TO, amount="0.008", on_success=lambda: ran.append("ran"))
        assert (ran, market.charges) == (["ran"], ["0.008"])

    def test_what_came_back_is_paid_anew(self, market: Market, buyer: SyncClient) -> None:
        first = buyer.payment.send(to=TO, amount="0.008")
        buyer.payment.refund(first.id, reason="Not delivered.")
        second = buyer.payment.send(to=TO, amount="0.008")
        third = buyer.payment.send(to=TO, amount="0.008")
        assert (second.id != first.id, second.replayed, third.id, third.replayed) == (True, False, second.id, True)
        assert market.charges == ["0.008"]
        assert buyer.payment.send(to=TO, amount="0.008", key=first.key).id == first.id

    def test_what_came_back_after_it_was_settled_is_paid_anew_too(self, market: Market, buyer: SyncClient) -> None:
        first = buyer.payment.send(to=TO, amount="0.008")
        market.payments[first.id].update(status="settled", refunded="0.007")
        assert buyer.payment.send(to=TO, amount="0.008").id == first.id
        market.payments[first.id].update(refunded="0.008")
        assert buyer.payment.send(to=TO, amount="0.008").id != first.id

    def test_a_session_opened_twice_is_two_sessions(self, market: Market, buyer: SyncClient) -> None:
        assert buyer.payment.create_session(budget="1.00").id != buyer.payment.create_session(budget="1.00").id
        mine = [buyer.payment.create_session(budget="1.00", key="mine").id for _ in range(2)]
        assert mine[0] == mine[1]


class TestCall:
    def test_the_same_request_is_paid_once_and_another_one_again(self, market: Market) -> None:
        lint = seller(market, "agent://lint.acme.dev")
        worked: list[Any] = []

        @lint.call("/check", price="0.012")
        def check(request: Any) -> Any:
            worked.append(request)
            if request.get("broken"):
                raise lint.Unserviceable("it is broken")
            return {"run": len(worked)}

        async def scenario() -> None:
            async with served(lint) as url, async_buyer(market) as client:
                market.add_agent("lint.acme.dev", url)

                async def call(path: str = "/check", **json: Any) -> agentmarket.Called:
                    return await client.call("agent://lint.acme.dev", path=path, json=json, amount="0.012")

                first, again, other = await call(a=1, b=2), await call(path="check", b=2, a=1), await call(a=2)
                assert (first.value, again.value, other.value) == ({"run": 1}, {"run": 1}, {"run": 2})
                assert (first.replayed, again.replayed, other.replayed) == (False, True, False)
                assert again.payment.id == first.payment.id
                assert market.charges == ["0.012", "0.012"]
                for _ in range(2):
                    with pytest.raises(agentmarket.CallFailed) as caught:
                        await call(broken=True)
                    assert (caught.value.status, caught.value.refunded) == (422, True)

        asyncio.run(scenario())
        assert market.charges == ["0.012", "0.012"]
        assert market.counts() == {"payable": 2, "refunded": 2}
        assert worked == [{"a": 1, "b": 2}, {"a": 2}, {"broken": True}, {"broken": True}]
