"""The five specialists as they really run, in a program of their own, against a market over HTTP."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sdk import stub

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def market() -> Iterator[stub.Market]:
    market = stub.Market(page=50)
    server = stub.serve(market)
    yield market
    server.shutdown()
    server.server_close()


@pytest.fixture
def specialists(market: stub.Market) -> Iterator[dict[str, dict[str, Any]]]:
    """All five in one Python; what each printed when it was ready, by name. They are listed in the market."""
    environment = {
        **os.environ,
        "AGENTMARKET_URL": market.url,
        "AGENTMARKET_API_KEY": stub.SELLER_KEY,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "sdk" / "src")]),
    }
    command = [sys.executable, "-m", "examples.specialists"]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            ready = [json.loads(running.stdout.readline()) for _ in range(5)]
            for line in ready:
                market.add_agent(line["agent"].removeprefix("agent://"), line["url"])
            yield {line["name"]: line for line in ready}
        finally:
            running.terminate()
    assert running.returncode == 0
