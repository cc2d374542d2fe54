"""The whole review with real specialists: each payment has its call, the bad file its refund, the briefs their end."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentmarket import Client
from examples import files, orchestrator
from tests.sdk import stub

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A small code base with something to find, and things that are not to be sent."""
    base = tmp_path / "shop"
    (base / "migrations").mkdir(parents=True)
    body = "import os\n\n\ndef f(a):\n    assert a\n" + "    # so that there is something to read\n" * 40
    for name in ("a.py", "b.py", "c.py", "d.py", "migrations/0001.py"):
        (base / name).write_text(body, encoding="utf-8")
    (base / "latin.py").write_bytes(b"# \xe9\n" + body.encode())
    (base / "tiny.py").write_text("x = 1\n", encoding="utf-8")
    return base


@pytest.mark.promise("S25")
def test_a_review(market: stub.Market, specialists: dict[str, Any], code: Path) -> None:
    stages: list[tuple[str, int, int]] = []

    async def run() -> orchestrator.ReviewResult:
        async with Client(stub.PAYER_KEY, base_url=market.url) as client:
            return await orchestrator.review(
                client=client, path=code, files=3, progress=lambda *stage: stages.append(stage)
            )

    result = asyncio.run(run())
    assert result.files == ("shop/a.py", "shop/b.py", "shop/c.py")
    bought = {(paid.file, paid.agent.split(".")[0].removeprefix("agent://")) for paid in result.payments}
    assert bought == {(file, check) for file in result.files for check in orchestrator.CHECKS}
    assert result.micropayments == "0.135"
    assert all(paid.elapsed_ms > 0 for paid in result.payments)
    assert result.three_payments_ms == sum(paid.elapsed_ms for paid in result.payments[:3])
    assert {paid.file for paid in result.payments[:3]} == {"shop/a.py"}
    [refund] = result.refunds
    assert (refund.amount, market.payments[refund.payment_id]["status"]) == ("0.012", "refunded")
    assert refund.file == "generated/unparsable_on_purpose.py"
    assert refund.file in refund.reason
    assert {finding.rule for finding in result.findings} >= {"ruff/F401", "bandit/B101"}
    assert result.brief.startswith("# Review brief: shop")
    assert (market.tasks[result.brief_task_id]["status"], market.tasks[result.rejected_task_id]["status"]) == (
        "accepted", "rejected",
    )  # fmt: skip
    assert market.disputes[result.dispute_id]["invoice_id"] == result.rejected_invoice_id
    assert sorted(market.charges) == sorted(["0.012", "0.025", "0.008"] * 3 + ["2.40"])
    assert ("calls", 9, 9) in stages
    assert stages[-1] == ("dispute", 2, 2)
    assert "9 micropayments, 0.135 USDC in all" in result.summary()


def test_the_same_files_each_time_spread_over_all(code: Path) -> None:
    assert [file.name for file in files.choose(code, 2)] == ["a.py", "c.py"]
    assert [file.name for file in files.choose(code, 99)] == ["a.py", "b.py", "c.py", "d.py"]
    django = files.choose(files.default_path(), 70)
    assert django == files.choose(files.default_path(), 70)
    assert len({file.parent for file in django}) > 20


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--path", "/nowhere"], "/nowhere is not a folder"),
        (["--files", "0"], "ask for 1 at least"),
        ([], "Could not connect"),
    ],
)
def test_the_command_says_what_is_wrong(arguments: list[str], fault: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.orchestrator", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={"AGENTMARKET_URL": "http://127.0.0.1:9", "AGENTMARKET_API_KEY": "k", "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 1
    assert fault in done.stderr
    assert "Traceback" not in done.stderr


def test_jobs_run_in_turns_and_the_first_failure_stops_them() -> None:
    running, most, ran = 0, 0, []

    async def job(n: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        ran.append(n)
        if n == 7:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(orchestrator.in_turns((lambda n=n: job(n) for n in range(100)), 3))
    assert (most, len(ran) < 20) == (3, True)
