"""Six agents work on one thing: the orchestrator of the examples, the five specialists it hires, a real server between them."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentmarket import Client
from escrow import ledger
from escrow.models import Dispute, Payment, Session
from examples import orchestrator
from examples.specialists import SPECIALISTS
from marketplace import agents
from marketplace.models import Agent, Pricing, Terms
from tests.escrow import books
from tests.marketplace.conftest import World
from tests.promises.marks import ROOT

FILES = 3
CALLS = FILES * (12_000 + 25_000 + 8_000)


def enlist(market: World, name: str, url: str) -> None:
    """List a specialist at its price, as a provider does."""
    one = SPECIALISTS[name]
    price = int(one.price.replace(".", "").ljust(one.price.index(".") + 6, "0"))
    terms = [Terms(capability=one.capability, pricing=Pricing(one.pricing), price_micros=price, unit=one.unit)]
    uri = market.one.agent.uri
    if one.agent == uri:  # the market has one of that name: it runs here
        Agent.objects.filter(uri=uri).update(endpoint=url)
    else:
        agents.register(
            provider=market.one.provider,
            uri=one.agent,
            name=name,
            endpoint=url,
            capabilities=[one.capability],
            terms=terms,
        )


@pytest.fixture
def hired(market: World, url: str) -> Iterator[World]:
    """A market in which all five specialists run, in a program of their own."""
    environment = {
        **os.environ,
        "AGENTMARKET_URL": url,
        "AGENTMARKET_API_KEY": str(market.one.by_provider.key),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "sdk" / "src")]),
    }
    command = [sys.executable, "-m", "examples.specialists"]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            for line in (json.loads(running.stdout.readline()) for _ in SPECIALISTS):
                enlist(market, line["name"], line["url"])
            yield market
        finally:
            running.terminate()


@pytest.mark.promise("S11", "S15", "S16", "S22", "S25")
def test_an_orchestrator_and_five_specialists_review_code_and_everybody_is_paid(hired: World, tmp_path: Path) -> None:
    body = "import os\n\n\ndef f(a):\n    assert a\n" + "    # so that there is something to read\n" * 40
    for number in range(FILES):
        (tmp_path / f"file{number}.py").write_text(body, encoding="utf-8")

    async def run() -> orchestrator.ReviewResult:
        async with Client(hired.a.by_session.key) as client:
            return await orchestrator.review(client=client, path=tmp_path, files=FILES)

    result = asyncio.run(run())
    assert (len(result.files), len(result.payments), len(result.refunds)) == (FILES, 3 * FILES, 1)
    assert {finding.rule for finding in result.findings} >= {"ruff/F401", "bandit/B101"}
    assert result.brief.startswith("# Review brief")
    # Nine calls and a brief are owed, one call came back, and the empty brief's money waits for its ruling.
    owed = books.balance(ledger.payable(hired.a.pool, hired.one.provider.party))
    assert owed == CALLS + 2_400_000
    assert Payment.objects.filter(status=Payment.Status.REFUNDED).count() == 1
    assert [str(dispute.pk) for dispute in Dispute.objects.all()] == [result.dispute_id]
    session = Session.objects.get(pk=hired.a.session.pk)
    assert books.balance(session.account) == 25_000_000 - owed - 2_400_000
