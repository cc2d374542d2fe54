"""`manage.py demo`: the money adds up to the last micro-USDC, whoever dies on the way, and nothing is left running."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.stack.runs import ROOT, leftovers

FILES = 70
CALLS = 3 * FILES
GROSS = {"lint": "0.84", "security": "1.75", "complexity": "0.56", "brief": "2.40", "sloppy": "1.68"}
FEES = {"lint": "0.0084", "security": "0.0175", "complexity": "0.0056", "brief": "0.024", "sloppy": "0.0168"}


@dataclass
class Run:
    report: dict[str, Any]
    kills: int
    brief: Path
    home: Path


@pytest.fixture(scope="module", params=[(), ("--kill-worker",)], ids=["undisturbed", "worker killed twice"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    home, brief = Path(tempfile.mkdtemp(prefix="demo-")), tmp_path_factory.mktemp("out") / "brief.md"
    home.chmod(0o711)  # for root PostgreSQL runs as another user, and must get through
    words = [sys.executable, "manage.py", "demo", "--json", "--files", str(FILES), "--out", str(brief), *request.param]
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, "TMPDIR": str(home)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1, "one JSON object, and nothing else"
    return Run(json.loads(done.stdout), 2 if request.param else 0, brief, home)


def test_every_micro_usdc_is_where_it_should_be(run: Run) -> None:
    report, pool = run.report, run.report["pool"]
    assert report["problems"] == []
    assert report["reconciled"] is True
    assert report["worker_kills"] == run.kills
    assert (pool["deposited"], pool["spent"], pool["refunded"]) == ("25.00", "7.23", "17.77")
    assert (pool["paid_out"], pool["fees"]) == ("7.1577", "0.0723")
    assert Decimal(pool["deposited"]) == Decimal(pool["spent"]) + Decimal(pool["refunded"])
    assert pool["status"] == "closed"
    assert {one["name"]: one["gross"] for one in report["providers"]} == GROSS
    assert {one["name"]: one["fee"] for one in report["providers"]} == FEES
    for one in report["providers"]:
        assert Decimal(one["balance"]) == Decimal(GROSS[one["name"]]) - Decimal(FEES[one["name"]])


def test_each_payment_is_explained(run: Run) -> None:
    payments = run.report["payments"]
    assert (payments["count"], payments["amount"], payments["unexplained"]) == (CALLS, "3.15", [])
    assert 0 < payments["p50_ms"] <= payments["p95_ms"]
    assert run.report["three_payments_ms"] > 0
    assert [(refund["from"], refund["amount"]) for refund in run.report["refunds"]] == [
        ("agent://lint.acme.dev", "0.012")
    ]
    assert [(invoice["amount"], invoice["status"]) for invoice in run.report["invoices"]] == [
        ("2.40", "approved"),
        ("2.40", "ruled"),
    ]


def test_the_dispute_is_split_as_ruled(run: Run) -> None:
    [dispute] = run.report["disputes"]
    assert (dispute["amount"], dispute["to_provider"], dispute["to_payer"]) == ("2.40", "1.68", "0.72")
    assert (dispute["status"], dispute["ruled_by"]) == ("ruled", "admin")
    assert dispute["answer"]
    assert dispute["ruling"]


def test_few_chain_transactions_carry_it_all(run: Run) -> None:
    actions, settlements = run.report["chain_actions"], run.report["settlements"]
    assert 1 <= len(settlements) <= 2
    assert sum(one["payments"] for one in settlements) == CALLS + 2
    assert sum(Decimal(one["amount"]) for one in settlements) == Decimal("7.23")
    assert len({one["tx_hash"] for one in actions}) == len(actions)
    assert {one["status"] for one in actions} == {"final"}
    counts = {kind: [one["kind"] for one in actions].count(kind) for kind in ("open_pool", "withdraw", "reclaim")}
    assert counts == {"open_pool": 1, "withdraw": len(GROSS), "reclaim": 1}
    assert run.report["gas_per_payment"] == pytest.approx(
        sum(one["gas_used"] for one in settlements) / (CALLS + 2), abs=0.1
    )
    costs = run.report["cost_per_payment"]
    assert costs["settlement_only"]["gas"] < costs["everything_on_chain"]["gas"] < costs["one_transfer_each"]["gas"]
    assert run.report["chain_id"] == 31337
    assert run.report["contract"].startswith("0x")


def test_the_brief_is_written_and_nothing_is_left(run: Run) -> None:
    assert run.report["brief"] == str(run.brief)
    assert run.brief.read_text(encoding="utf-8").startswith("# Review brief: django")
    run.home.rmdir()  # refused while anything is in it
    assert leftovers([], run.home) == []
