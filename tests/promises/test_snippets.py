"""The two examples of the SDK's shape as they were promised, word for word, against a real server and its books."""

import ast
import asyncio
import inspect
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import connections

import agentmarket
from escrow import ledger
from escrow.models import Payment, Session
from marketplace.models import ApiKey
from tests.escrow import books
from tests.marketplace.conftest import World
from tests.promises.conftest import listed

PROMISED = """\
client = agentmarket.Client(api_key="am_test_...")
result = await client.payment.send(to="agent://enrich.acme.dev", amount="0.008", currency="USDC",
                                   metadata={"task_id": task.id, "query": query},
                                   on_success=lambda: fetch_enriched_data(query))
session = await client.payment.create_session(budget="10.00", currency="USDC",
                                   policy={"max_per_tx": "0.50", "allowed_recipients": ["*.acme.dev"]})
"""
PLACEHOLDER = "am_test_..."
CLIENT, SEND, CREATE_SESSION = (
    ast.get_source_segment(PROMISED, node) or ""
    for node in compile(PROMISED, "<promised>", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT).body
)
"""Its three statements. An agent that spends has a session's key; the payer's own can do both."""


@dataclass
class Job:
    """What the caller works on."""

    id: str = "task-7"


@pytest.fixture
def enrich(market: World) -> World:
    listed(market, "agent://enrich.acme.dev", "https://enrich.acme.dev")
    return market


async def run(source: str, key: str, **names: Any) -> dict[str, Any]:
    """Run promised lines with a real key in the place of the dots; return what they named."""
    assert source.count(PLACEHOLDER) == 1
    code = compile(source.replace(PLACEHOLDER, key), "<promised>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    namespace: dict[str, Any] = {"agentmarket": agentmarket, **names}
    outcome = eval(code, namespace)  # noqa: S307 - the promised text
    if inspect.iscoroutine(outcome):
        await outcome
    return namespace


@pytest.mark.promise("S1", "S26", "S32", "S33")
def test_a_payment_as_promised(enrich: World) -> None:
    query, seen = "who makes valves", list[tuple[str, int]]()

    async def fetch_enriched_data(question: str) -> dict[str, Any]:
        seen.append((question, await asyncio.to_thread(paid)))
        return {"question": question, "companies": 3}

    def paid() -> int:
        found = Payment.objects.filter(session=enrich.a.session).count()
        connections.close_all()  # a thread's connection would outlive the database of the tests
        return found

    async def scenario() -> None:
        text = f"{CLIENT}\n{SEND}\n"
        names = {"task": Job(), "query": query, "fetch_enriched_data": fetch_enriched_data}
        one = await run(text, str(enrich.a.by_session.key), **names)
        result = one["result"]
        assert result.value == {"question": query, "companies": 3}
        assert (result.amount, result.remaining, result.status, result.replayed) == (
            "0.008",
            "24.992",
            "payable",
            False,
        )
        other = await run(text, str(enrich.a.by_session.key), **names)
        again = other["result"]
        assert (again.id, again.replayed, again.remaining) == (result.id, True, "24.992")
        for client in (one["client"], other["client"]):
            await client.aclose()

    asyncio.run(scenario())
    assert seen == [(query, 1), (query, 1)]  # it ran when it was paid, and for the payment that was found
    [payment] = Payment.objects.all()
    assert (payment.to, payment.amount_micros, payment.metadata) == (
        "agent://enrich.acme.dev", 8_000, {"task_id": "task-7", "query": query},
    )  # fmt: skip
    assert books.balance(enrich.a.session.account) == 25_000_000 - 8_000
    assert books.balance(ledger.payable(enrich.a.pool, enrich.one.provider.party)) == 8_000


@pytest.mark.promise("S6", "S7", "S8", "S26", "S27")
def test_a_session_as_promised(enrich: World) -> None:
    async def scenario() -> str:
        opened = await run(f"{CLIENT}\n{CREATE_SESSION}\n", str(enrich.a.by_payer.key))
        session = opened["session"]
        assert (session.budget, session.remaining, session.status) == ("10.00", "10.00", "open")
        assert session.policy == {"max_per_tx": "0.50", "allowed_recipients": ["*.acme.dev"]}
        agent = session.client()
        assert (await agent.payment.send(to="agent://enrich.acme.dev", amount="0.50")).remaining == "9.50"
        with pytest.raises(agentmarket.PolicyDenied) as dear:
            await agent.payment.send(to="agent://enrich.acme.dev", amount="0.500001")
        with pytest.raises(agentmarket.PolicyDenied) as stranger:
            await agent.payment.send(to="agent://check.example.dev", amount="0.01")
        for refused, rule in ((dear, "max_per_tx"), (stranger, "allowed_recipients")):
            assert (refused.value.rule, refused.value.outcome) == (rule, "not_charged")
        assert (await session.balance()).remaining == "9.50"
        await opened["client"].aclose()
        return str(session.id)

    spent_from = Session.objects.get(pk=asyncio.run(scenario()))
    assert books.balance(spent_from.account) == 9_500_000
    assert ApiKey.objects.get(session=spent_from).scope == "session"
    assert books.balance(ledger.free(enrich.a.pool)) == 75_000_000 - 10_000_000
    assert books.balance(ledger.payable(enrich.a.pool, enrich.one.provider.party)) == 500_000
    assert [payment.amount_micros for payment in Payment.objects.all()] == [500_000]


def test_the_text_is_run_as_it_was_promised() -> None:
    statements = [line.split("=")[0].strip() for line in (CLIENT, SEND, CREATE_SESSION)]
    assert statements == ["client", "result", "session"]
    assert f"{CLIENT}\n{SEND}\n{CREATE_SESSION}\n" == PROMISED


@pytest.mark.promise("S26", "S27")
def test_the_whole_text_with_one_client(enrich: World) -> None:
    async def fetch_enriched_data(question: str) -> str:
        return question.upper()

    async def scenario() -> dict[str, Any]:
        names = {"task": Job(), "query": "who makes valves", "fetch_enriched_data": fetch_enriched_data}
        named = await run(PROMISED, str(enrich.a.by_payer.key), **names)
        await named["client"].aclose()
        return named

    named = asyncio.run(scenario())
    assert (named["result"].value, named["result"].payment.session_id) == ("WHO MAKES VALVES", str(enrich.a.session.pk))
    assert (named["session"].budget, named["session"].status) == ("10.00", "open")
    assert books.balance(enrich.a.session.account) == 25_000_000 - 8_000
    assert books.balance(ledger.free(enrich.a.pool)) == 75_000_000 - 10_000_000
