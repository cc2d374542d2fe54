"""What is sold, at the prices that were promised: by outcome, by inference, and by how fresh it is."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from django.db import connections

from agentmarket import Client, Seller, SyncClient
from escrow import ledger
from escrow.models import Payment
from marketplace.models import Pricing
from tests.escrow import books
from tests.marketplace.conftest import World
from tests.promises.conftest import listed
from tests.sdk.conftest import served


def owed(market: World) -> int:
    """Return what the first seller has earned from the first buyer."""
    return books.balance(ledger.payable(market.a.pool, market.one.provider.party))


@pytest.mark.promise("S15", "S16", "S22")
@pytest.mark.parametrize(("name", "price"), [("brief", "2.40"), ("company", "0.15")])
def test_an_outcome_is_paid_for_when_it_is_delivered(market: World, name: str, price: str) -> None:
    uri, micros = f"agent://{name}.acme.dev", int(Decimal(price) * 1_000_000)
    listed(market, uri, f"https://{name}.acme.dev", micros=micros, pricing=Pricing.PER_OUTCOME)
    with SyncClient(market.a.by_session.key) as buyer, SyncClient(market.one.by_provider.key) as provider:
        (offering,) = buyer.agents.get(uri).offerings
        assert (offering.pricing, offering.price) == ("per_outcome", price)
        task = buyer.tasks.post(title="One", brief={"of": name}, capability=name, budget=price, agent=uri)
        assert (task.status, owed(market)) == ("assigned", 0)
        provider.tasks.submit(task.id, deliverable={"markdown": "# Done"}, amount=price, number="INV-1")
        assert owed(market) == 0
        accepted = buyer.tasks.accept(task.id)
    assert accepted.invoice is not None
    assert (accepted.status, accepted.invoice.approved_amount) == ("accepted", price)
    assert owed(market) == micros
    assert books.balance(market.a.session.account) == 25_000_000 - micros


def agent_of(market: World, uri: str, price: str, answer: Callable[[Any], Any]) -> Seller:
    """An agent that sells one function."""
    seller = Seller(market.one.by_provider.key, agent=uri)
    seller.call("/ask", price=price)(answer)
    return seller


async def bought(market: World, seller: Seller, uri: str, price: str, asked: list[Any]) -> list[Any]:
    """Run the agent, list it, and buy one answer after the other from it."""

    def place(url: str) -> None:
        listed(market, uri, url, micros=int(Decimal(price) * 1_000_000))
        connections.close_all()

    async with served(seller) as url, Client(market.a.by_session.key) as buyer:
        await asyncio.to_thread(place, url)
        return [(await buyer.call(uri, path="/ask", json=one, amount=price)).value for one in asked]


@pytest.mark.promise("S23")
def test_an_inference_is_a_call_of_four_tenths_of_a_cent(market: World) -> None:
    uri = "agent://model.acme.dev"

    def infer(request: Any) -> Any:
        return {"label": "spam" if "win" in request["text"] else "mail"}

    asked = [{"text": "win now"}, {"text": "see you at nine"}]
    answers = asyncio.run(bought(market, agent_of(market, uri, "0.004", infer), uri, "0.004", asked))
    assert answers == [{"label": "spam"}, {"label": "mail"}]
    assert owed(market) == 8_000
    assert {payment.amount_micros for payment in Payment.objects.all()} == {4_000}


@pytest.mark.promise("S24")
def test_what_is_fresh_is_bought_when_it_is_needed(market: World) -> None:
    uri, tick = "agent://ticker.acme.dev", count(101)

    def quote(request: Any) -> Any:
        return {"symbol": request["symbol"], "price": next(tick)}

    seller = agent_of(market, uri, "0.012", quote)
    now, later = {"symbol": "ACME", "at": "12:00"}, {"symbol": "ACME", "at": "12:01"}
    answers = asyncio.run(bought(market, seller, uri, "0.012", [now, later, now]))
    assert [answer["price"] for answer in answers] == [101, 102, 101]  # the same question is the same purchase
    assert owed(market) == 24_000
    assert Payment.objects.exclude(redeemed_at=None).count() == 2
