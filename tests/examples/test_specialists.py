"""Each specialist finds what is there, tells it the same way, and is not paid for what cannot be checked."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentmarket
from agentmarket import SyncClient
from examples.findings import Finding
from examples.specialists import SPECIALISTS, brief
from tests.sdk import stub

SOURCE = """import os
import subprocess

def run(command):
    subprocess.call(command, shell=True)
    assert command

def busy(a):
""" + "".join(f"    if a == {n}:\n        return {n}\n" for n in range(24))


@pytest.fixture
def buyer(market: stub.Market) -> Iterator[SyncClient]:
    with SyncClient(stub.PAYER_KEY, base_url=market.url) as client:
        yield client


def check(buyer: SyncClient, name: str, source: Any, filename: Any = "pkg/a.py") -> list[dict[str, Any]]:
    document = {"filename": filename, "source": source}
    found = buyer.call(SPECIALISTS[name].agent, path="/check", json=document, amount=SPECIALISTS[name].price)
    findings: list[dict[str, Any]] = found.value["findings"]
    return findings


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lint", {("ruff/F401", 1, "medium")}),
        ("security", {("bandit/B404", 2, "low"), ("bandit/B602", 5, "high"), ("bandit/B101", 6, "low")}),
        ("complexity", {("radon/CC", 8, "medium")}),
    ],
)
def test_findings_are_real(
    market: stub.Market, specialists: dict[str, Any], buyer: SyncClient, name: str, expected: set[tuple[str, int, str]]
) -> None:
    findings = check(buyer, name, SOURCE)
    assert {(item["rule"], item["line"], item["severity"]) for item in findings} >= expected
    assert {item["file"] for item in findings} == {"pkg/a.py"}
    assert all(item["message"] for item in findings)
    assert check(buyer, name, "x = 1\n") == []
    assert market.charges == [SPECIALISTS[name].price] * 2


@pytest.mark.parametrize(
    ("source", "filename"),
    [
        ("def broken(:\n", "a.py"),
        ("x = " + "(" * 3000, "a.py"),
        ("x = '\0'\n", "a.py"),
        (17, "a.py"),
        ("x = 1", None),
    ],
    ids=["syntax", "deep", "nul", "no text", "no name"],
)
def test_what_cannot_be_checked_is_refunded(
    market: stub.Market, specialists: dict[str, Any], buyer: SyncClient, source: Any, filename: Any
) -> None:
    for name in ("lint", "security", "complexity"):
        with pytest.raises(agentmarket.CallFailed) as caught:
            check(buyer, name, source, filename)
        assert (caught.value.status, caught.value.refunded) == (422, True), name
    assert (market.charged, market.counts()) == (0, {"refunded": 3})


def test_each_has_its_own_agent_and_address(specialists: dict[str, Any]) -> None:
    assert {line["agent"] for line in specialists.values()} == {one.agent for one in SPECIALISTS.values()}
    assert len({line["url"] for line in specialists.values()}) == 5
    assert len({line["pid"] for line in specialists.values()}) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_all_five_together_are_small(specialists: dict[str, Any], buyer: SyncClient) -> None:
    for name in ("lint", "security", "complexity"):
        check(buyer, name, SOURCE)
    status = Path(f"/proc/{specialists['lint']['pid']}/status").read_text(encoding="utf-8")
    resident = int(status.partition("VmRSS:")[2].split()[0]) // 1024
    assert resident < 120, f"{resident} MB"


def test_a_brief_names_the_worst_first() -> None:
    findings = [
        Finding("a.py", 3, "F401", "medium", "`os` imported but unused"),
        Finding("b.py", 9, "B602", "high", "subprocess call with shell=True"),
        Finding("a.py", 1, "E701", "low", "Multiple | <statements>"),
        Finding("a.py", 7, "E701", "low", "Multiple | <statements>"),
    ]
    page = brief.markdown("shop", 2, findings)
    assert page.startswith("# Review brief: shop\n\n2 files were checked")
    assert "4 findings (1 high, 1 medium, 2 low) in 2 of them" in page
    assert page.index("`b.py`") < page.index("`a.py`")
    assert "- low, `E701`, line 1, 7: Multiple / ‹statements›" in page
    assert "| `B602` | 1 | subprocess call with shell=True |" in page


def test_a_brief_of_nothing_says_so() -> None:
    assert "nothing was found" in brief.markdown("shop", 3, [])
