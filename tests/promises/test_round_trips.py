"""What a paid call costs on its way: counted, and measured. No test asserts a time; `make promises` judges the figures."""

import asyncio
import re
import statistics
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from django.db import connection, connections

from agentmarket import Client, Seller, SyncClient
from escrow import ledger
from escrow.models import Payment
from marketplace.management.stack.supervisor import Child, Supervisor
from tests.escrow import books
from tests.lane.servers import Server, serving
from tests.marketplace.conftest import World
from tests.promises.conftest import NOWHERE, listed
from tests.sdk.conftest import served
from tests.sdk.proxy import proxying

LINT = "agent://lint.acme.dev"
STATEMENT = re.compile(r"LOG:  (?:execute [^:]*|statement):\s+(\w+ \w+)")
QUESTION = {"market-data": 12_000, "patents": 25_000, "citations": 8_000}
"""A research question asks three specialists: 0.012, 0.025 and 0.008."""
ROUNDS = 5


@pytest.fixture
def postgres(request: pytest.FixtureRequest, database_url: str) -> Child:
    """Return this run's own PostgreSQL: it says in its log what it is asked."""
    owner: Supervisor = request.getfixturevalue("supervisor")
    if "postgres" not in owner.children:
        pytest.skip("DATABASE_URL names a server whose log is not ours to read")
    return owner.children["postgres"]


@pytest.fixture
def talkative(market: World, postgres: Child) -> Iterator[Server]:
    """A server whose every statement is in the log of its database."""
    name = connection.ops.quote_name(connection.settings_dict["NAME"])
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {name} SET log_statement = 'all'")  # counts for connections that are opened now
    try:
        with serving(**NOWHERE) as running:
            yield running
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER DATABASE {name} RESET log_statement")


@pytest.mark.promise("S1", "S2")
def test_a_payment_is_one_request_and_one_statement_with_no_chain_and_no_queue(
    market: World, talkative: Server, postgres: Child
) -> None:
    upstream = f"http://127.0.0.1:{talkative.port}"
    with proxying(upstream, method="GET") as reads, proxying(reads.url) as posts:

        async def agent() -> list[str]:
            async with Client(market.a.by_session.key, base_url=posts.url) as buyer:
                # A server reads a session's policy once.
                await buyer.payment.send(to=LINT, amount="0.001", metadata={"warm": "up"})
                asked, answered = len(postgres.output()), posts.count
                for price in QUESTION.values():
                    await buyer.payment.send(to=LINT, amount=f"0.{price:06d}")
                assert (posts.count - answered, reads.count) == (3, 0)
                return STATEMENT.findall(postgres.output()[asked:])

        statements = asyncio.run(agent())
    assert statements == ["WITH request"] * 3  # marketplace.lane.statement's one
    assert set(posts.answered.values()) == {201}
    assert books.balance(ledger.payable(market.a.pool, market.one.provider.party)) == 1_000 + sum(QUESTION.values())


@pytest.mark.promise("S1", "S4")
def test_two_hundred_payments_one_after_the_other(market: World, record_property: Any) -> None:
    with SyncClient(market.a.by_session.key, retries=0) as buyer:
        for number in range(5):
            buyer.payment.send(to=LINT, amount="0.001", metadata={"warm up": number})
        begun = time.perf_counter()
        for number in range(200):
            buyer.payment.send(to=LINT, amount="0.001", metadata={"number": number})
        taken = time.perf_counter() - begun
    record_property("payments_per_hour", 200 / taken * 3_600)
    assert Payment.objects.filter(session=market.a.session).count() == 205
    assert books.balance(market.a.session.account) == 25_000_000 - 205_000


def seller_of(market: World, name: str, price: int) -> Seller:
    """An agent that answers one question for its price."""
    agent = Seller(market.one.by_provider.key, agent=f"agent://{name}.acme.dev")

    @agent.call("/ask", price=f"0.{price:06d}")
    def ask(request: Any) -> Any:
        return {"from": name, "question": request["question"]}

    return agent


@pytest.mark.promise("S2", "S25")
def test_a_question_is_three_paid_calls_to_three_agents(market: World, record_property: Any) -> None:
    def place(name: str, price: int, url: str) -> None:
        listed(market, f"agent://{name}.acme.dev", url, micros=price)
        connections.close_all()

    async def scenario() -> list[float]:
        rounds = []
        async with AsyncExitStack() as running, Client(market.a.by_session.key) as buyer:
            for name, price in QUESTION.items():
                url = await running.enter_async_context(served(seller_of(market, name, price)))
                await asyncio.to_thread(place, name, price, url)
            for turn in range(ROUNDS + 1):
                begun = time.perf_counter()
                for name, price in QUESTION.items():
                    called = await buyer.call(
                        f"agent://{name}.acme.dev", path="/ask", json={"question": turn}, amount=f"0.{price:06d}"
                    )
                    assert called.value == {"from": name, "question": turn}
                rounds.append((time.perf_counter() - begun) * 1_000)
        return rounds[1:]  # in the first one connections are opened

    record_property("three_paid_calls_ms", statistics.median(asyncio.run(scenario())))
    assert books.balance(ledger.payable(market.a.pool, market.one.provider.party)) == (ROUNDS + 1) * 45_000
    assert Payment.objects.filter(redeemed_at=None).count() == 0
