"""What an agent is: three lines, two settings, and no key but the one of its session."""

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from django.db import connections

from agentmarket import Seller
from escrow import ledger
from escrow.models import Payment
from marketplace.models import Agent
from tests.escrow import books
from tests.marketplace.conftest import World
from tests.promises.marks import ROOT
from tests.sdk.conftest import served

#: a whole agent; it says what it has loaded
AGENT = """
import json, sys
import agentmarket
client = agentmarket.SyncClient()
sent = client.payment.send(to="agent://lint.acme.dev", amount="0.012")
client.close()
print(json.dumps({"id": sent.id, "loaded": sorted({name.split(".")[0] for name in sys.modules})}))
"""
SIGNERS = {"web3", "eth_account", "eth_keys", "coincurve", "escrow", "django", "celery"}


def environment(url: str, key: str) -> dict[str, str]:
    """All that an agent is given."""
    paths = f"{ROOT / 'sdk' / 'src'}{os.pathsep}{ROOT}"
    return {"AGENTMARKET_URL": url, "AGENTMARKET_API_KEY": key, "PYTHONPATH": paths, "PATH": ""}


@pytest.mark.promise("S21", "S30")
def test_an_agent_pays_with_an_address_and_its_sessions_key_and_nothing_that_signs(market: World, url: str) -> None:
    given = environment(url, str(market.a.by_session.key))
    done = subprocess.run([sys.executable, "-c", AGENT], env=given, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert str(Payment.objects.get().pk) == told["id"]
    assert not SIGNERS & set(told["loaded"])
    assert books.balance(ledger.payable(market.a.pool, market.one.provider.party)) == 12_000


@pytest.mark.promise("S28")
def test_three_lines_buy_from_an_agent(market: World, url: str) -> None:
    seller = Seller(market.one.by_provider.key, agent="agent://lint.acme.dev")

    @seller.call("/check", price="0.012")
    def check(request: Any) -> Any:
        return {"findings": [f"{request['filename']}: F401"]}

    def place(where: str) -> None:
        Agent.objects.filter(uri="agent://lint.acme.dev").update(endpoint=where)
        connections.close_all()

    async def scenario() -> str:
        async with served(seller) as where:
            await asyncio.to_thread(place, where)
            program = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "examples.buyer",
                cwd=ROOT, env=environment(url, str(market.a.by_session.key)), stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            out, _ = await program.communicate()
            assert program.returncode == 0
            return out.decode()

    assert asyncio.run(scenario()) == "['a.py: F401'] left: 24.988\n"
    assert Payment.objects.get().redeemed_at is not None
