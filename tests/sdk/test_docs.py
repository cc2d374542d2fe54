"""The pages that show the SDK are true: their blocks run, one after the other, as one program."""

import ast
import asyncio
import inspect
import re
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from agentmarket import Client, Seller, Task

from . import node as chain
from . import stub
from .conftest import seller, served

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[str]:
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


async def run(source: str, namespace: dict[str, Any]) -> None:
    """Run one block, which may await."""
    code = compile(source, "<block>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    outcome = eval(code, namespace)  # noqa: S307 - our own pages
    if inspect.iscoroutine(outcome):
        await outcome


def reviewers(market: stub.Market) -> tuple[Seller, Seller]:
    """The two agents that the page hires."""
    lint, brief = seller(market, "agent://lint.acme.dev"), seller(market, "agent://brief.acme.dev")

    @lint.call("/check", price="0.012")
    def check(request: Any) -> Any:
        if "source" not in request:
            raise lint.Unserviceable("send the source")
        return {"findings": [{"file": request["filename"], "rule": "F401"}]}

    @brief.task("review-brief", price="2.40")
    def write(task: Task) -> dict[str, Any]:
        return {"markdown": "# Brief"}

    return lint, brief


def test_every_block_of_the_sdk_page_runs(
    market: stub.Market, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AGENTMARKET_URL", market.url)
    monkeypatch.setenv("AGENTMARKET_API_KEY", stub.PAYER_KEY)
    lint, brief = reviewers(market)
    node = chain.Node()
    stop = chain.serve(node)
    market.prove = lambda payment: chain.document(node, payment_id=UUID(payment))
    namespace: dict[str, Any] = {
        "provider_key": stub.SELLER_KEY,
        "rpc_url": node.url,
        "contract": chain.CONTRACT,
    }

    async def scenario() -> None:
        async with served(lint) as lint_url, served(brief) as brief_url:
            market.add_agent("lint.acme.dev", lint_url)
            market.add_agent("brief.acme.dev", brief_url)
            for block in blocks("docs/sdk.md"):
                await run(block, namespace)

    asyncio.run(scenario())
    stop()
    assert Counter(market.charges) == Counter(
        {
            "0.001": 1, "0.004": 1, "0.006": 1, "0.007": 1, "0.008": 4, "0.01": 4, "0.012": 1, "0.015": 1, "1.20": 1,
            "2.40": 1,
        }
    )  # fmt: skip
    assert Counter(hold["status"] for hold in market.holds.values()) == {"captured": 3, "released": 1}
    assert market.counts()["refunded"] == 1
    assert "F401" in capsys.readouterr().out


def test_the_blocks_of_the_readme_are_python() -> None:
    found = blocks("sdk/README.md")
    assert len(found) == 2
    for block in found:
        ast.parse(block)


@pytest.mark.promise("S28")
def test_the_smallest_examples_are_as_small_as_they_say() -> None:
    def lines(name: str) -> int:
        tree = ast.parse((ROOT / "examples" / name).read_text(encoding="utf-8"))
        return len([node for node in tree.body[1:] if not isinstance(node, ast.Import)])

    assert lines("buyer.py") == 3
    assert len((ROOT / "examples" / "seller.py").read_text(encoding="utf-8").splitlines()) < 20


def test_the_smallest_seller_sells(market: stub.Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTMARKET_URL", market.url)
    monkeypatch.setenv("AGENTMARKET_API_KEY", stub.SELLER_KEY)
    namespace: dict[str, Any] = {"__name__": "example"}
    exec((ROOT / "examples" / "seller.py").read_text(encoding="utf-8"), namespace)  # noqa: S102 - our own example

    async def scenario() -> Any:
        async with served(namespace["seller"]) as url, Client(stub.PAYER_KEY) as client:
            market.add_agent("count.acme.dev", url)
            return await client.call("agent://count.acme.dev", path="/count", json={"text": "a b"}, amount="0.001")

    assert asyncio.run(scenario()).value == {"words": 2}
