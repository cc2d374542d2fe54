"""docs/cli.md is true: its blocks run, one after the other, in one shell on a real market; and it names every command."""

import re
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import click
import pytest

from agentmarket.cli.app import app
from escrow import events
from tests.cli.live import SDK, Live
from tests.marketplace.client import Caller

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINT = "agent://lint.acme.dev"


def made(caller: Caller, path: str, **body: object) -> str:
    answer = caller.post(path, body)
    assert answer.status in (200, 201), answer.json
    return str(answer.json["id"])


def delivered(live: Live) -> str:
    """A task that was delivered, with its invoice."""
    terms = {"title": "A brief", "capability": "review", "budget": "1.00", "agent": LINT}
    task = made(live.world.a.by_session, "/v1/tasks", **terms)
    invoice = {"amount": "1.00", "number": uuid4().hex[:12]}
    made(live.world.one.by_provider, f"/v1/tasks/{task}/submit", deliverable={"markdown": "# Brief"}, invoice=invoice)
    return task


def names(live: Live) -> dict[str, str]:
    """What the page's variables stand for."""
    agent, payer = live.world.a.by_session, live.world.a.by_payer
    terms = {"title": "A brief", "capability": "review", "budget": "1.00"}
    rejected = delivered(live)
    made(agent, f"/v1/tasks/{rejected}/reject", reason="Empty.")
    careful = payer.post("/v1/sessions", {"budget": "2.00", "policy": {"approval_above": "0.20"}}).json
    waiting = [
        Caller(careful["api_key"]).post("/v1/payments", {"to": LINT, "amount": amount}) for amount in ("0.30", "0.40")
    ]
    session = made(payer, "/v1/sessions", budget="2.00", policy={"max_per_tx": "0.50"})
    return {
        "URL": live.url,
        "KEY": live.session_key,
        "PAYER_KEY": live.payer_key,
        "SESSION": session,
        "PARENT": careful["id"],
        "APPROVAL": waiting[0].json["approval_id"],
        "OTHER_APPROVAL": waiting[1].json["approval_id"],
        "KEY_ID": made(payer, "/v1/keys", session_id=session),
        "TASK": made(agent, "/v1/tasks", **terms),
        "UNWANTED": made(agent, "/v1/tasks", **terms),
        "DELIVERED": delivered(live),
        "SPOILT": delivered(live),
        "INVOICE": agent.get(f"/v1/tasks/{rejected}").json["invoice_id"],
        "PAYMENT": made(agent, "/v1/payments", to=LINT, amount="0.10"),
        "HOLD": made(agent, "/v1/holds", to=LINT, amount="0.40"),
        "OTHER_HOLD": made(agent, "/v1/holds", to=LINT, amount="0.40"),
        "OTHER_PAYMENT": made(agent, "/v1/payments", to=LINT, amount="0.10"),
    }


@pytest.mark.timeout(300)  # some fifty programs are started, one after the other
def test_every_block_of_the_page_runs(live: Live, tmp_path: Path) -> None:
    named = names(live)
    shell = f'set -eu\nagentmarket() {{ {sys.executable} -m agentmarket "$@"; }}\n'
    script = shell + "".join(BLOCK.findall(PAGE.read_text(encoding="utf-8")))
    events.publish_due()
    given = {**named, "HOME": str(tmp_path), "PYTHONPATH": str(SDK), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["bash", "-c", script], env=given, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-2000:])
    assert "All is well." in done.stdout
    assert "Was paid before: 0.012 USDC" in done.stdout
    assert (tmp_path / "ledger.csv").read_text().startswith("id,at,reason,amount,")
    assert '"type": "payment.created"' in (tmp_path / "events.jsonl").read_text()


def every_command(group: click.Group, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    context = click.Context(group)
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        nested = isinstance(command, click.Group)
        found += every_command(command, (*before, name)) if nested else [(*before, name)]
    return found


def test_the_page_names_every_command() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("## Every command")[2]
    named = set(re.findall(r"`([a-z -]+?)(?: [A-Z]+)*`", table))
    words = {word for name in named for word in name.split()}
    assert [command for command in every_command(app) if not set(command) <= words] == []
