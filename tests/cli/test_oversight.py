"""What stands between an agent and money, as commands: policies, holds, approvals, children, refunds, a freeze.

The market here is the small one in memory: the real one's rules have their own tests, and here it matters what is said of them.
"""

from collections.abc import Iterator

import pytest

from tests.cli.live import Shell
from tests.sdk import stub

LINT = "agent://lint.acme.dev"


@pytest.fixture
def market() -> Iterator[stub.Market]:
    market = stub.Market()
    server = stub.serve(market)
    yield market
    server.shutdown()
    server.server_close()


@pytest.fixture
def shell(market: stub.Market) -> Shell:
    return Shell(url=market.url, session_key=stub.PAYER_KEY)


def opened(shell: Shell, *rules: str) -> tuple[str, str]:
    """A session with a policy: its id and its key."""
    told = shell.run("session", "create", "--budget", "5.00", *rules, "--json", shows_key=True).told
    return told["id"], told["api_key"]


def test_a_payment_that_needs_a_person_names_the_approval_and_the_way_on(market: stub.Market, shell: Shell) -> None:
    _, key = opened(shell, "--approval-above", "1.00")
    asked = ("pay", LINT, "2.00", "--metadata", "file=a.py", "--json")
    problem = shell.run(*asked, key=key, expect=2).problem
    approval = problem["approval_id"]
    assert (problem["error"], problem["code"], market.charges) == ("ApprovalRequired", "approval_required", [])
    assert problem["advice"] == (
        f"A person has to approve it: agentmarket approval approve {approval}. "
        f"Then: agentmarket pay {LINT} 2.00 --metadata file=a.py --json"
    )
    assert [one["id"] for one in shell.run("approval", "list", "--status", "waiting", "--json").told["items"]] == [
        approval
    ]
    assert shell.run("approval", "approve", approval, "--json").told["status"] == "approved"
    assert shell.run(*asked, key=key).told["amount"] == "2.00"
    assert market.charges == ["2.00"]


def test_a_payment_that_a_person_refused_is_denied(market: stub.Market, shell: Shell) -> None:
    _, key = opened(shell, "--approval-above", "1.00")
    approval = shell.run("pay", LINT, "2.00", "--json", key=key, expect=2).problem["approval_id"]
    shell.run("approval", "refuse", approval, "--reason", "Too much.")
    problem = shell.run("pay", LINT, "2.00", "--json", key=key, expect=2).problem
    assert (problem["code"], market.charges) == ("policy_denied", [])


def test_a_hold_is_placed_shown_captured_and_released(market: stub.Market, shell: Shell) -> None:
    placed = shell.run("hold", "place", LINT, "0.40", "--metadata", "file=a.py", "--json").told
    assert (placed["status"], placed["amount"], market.charges) == ("held", "0.40", [])
    assert shell.run("hold", "show", placed["id"], "--json").told["id"] == placed["id"]
    captured = ("hold", "capture", placed["id"], "--amount", "0.25", "--json")
    assert shell.run(*captured).told["amount"] == "0.25"
    shell.run(*captured)
    assert market.charges == ["0.25"]
    other = shell.run("hold", "place", LINT, "0.40", "--json").told["id"]
    assert shell.run("hold", "release", other, "--json").told["status"] == "released"
    assert {one["status"] for one in shell.run("hold", "list", "--json").told["items"]} == {"captured", "released"}
    assert shell.run("hold", "capture", other, "--json", expect=2).problem["code"] == "conflict"
    assert market.charges == ["0.25"]


def test_a_policy_is_tried_before_it_counts(market: stub.Market, shell: Shell) -> None:
    session, _ = opened(shell, "--max-per-tx", "0.50")
    assert shell.run("policy", "check", LINT, "0.25", "--session", session, "--json").told["allowed"] is True
    denied = shell.run("policy", "check", LINT, "0.75", "--session", session, "--json", expect=2).told
    assert (denied["allowed"], denied["rule"]) == (False, "max_per_tx")
    told = shell.run("policy", "backtest", "--max-per-tx", "0.10", "--days", "7", "--json").told
    assert told["days"] == 7
    assert shell.run("policy", "backtest", "--json", expect=2).problem["code"] == "usage"
    assert "max per tx  0.50" in shell.run("policy", "show", session).out
    assert market.charges == []


def test_a_policy_is_changed_and_keeps_its_history(shell: Shell) -> None:
    session, _ = opened(shell, "--max-per-tx", "0.50")
    changed = shell.run("policy", "set", session, "--policy", '{"max_per_tx": "0.20"}', "--json").told
    assert changed["policy"] == {"max_per_tx": "0.20"}
    assert shell.run("policy", "show", session, "--history", "--json").told["items"]
    both = shell.run("policy", "set", session, "--policy", "{}", "--max-per-tx", "1.00", "--json", expect=2).problem
    assert both["code"] == "usage"
    inexact = shell.run("policy", "set", session, "--policy", '{"max_per_tx": 0.2}', "--json", expect=2).problem
    assert 'write "0.2"' in inexact["detail"]


def test_a_session_has_children_and_can_be_paused(market: stub.Market, shell: Shell) -> None:
    session, key = opened(shell)
    child = shell.run("session", "child", session, "--budget", "1.00", "--json", shows_key=True).told
    assert (child["parent_id"], child["budget"]) == (session, "1.00")
    assert shell.run("session", "pause", session, "--reason", "Lunch.", "--json").told["status"] == "paused"
    assert shell.run("pay", LINT, "0.10", "--json", key=key, expect=2).problem["state"] == "paused"
    assert shell.run("session", "resume", session, "--json").told["status"] == "open"
    assert market.charges == []


def test_money_is_asked_back(market: stub.Market, shell: Shell) -> None:
    paid = shell.run("pay", LINT, "0.30", "--json").told
    asked = shell.run("refund", "ask", paid["id"], "--reason", "Twice.", "--amount", "0.10", "--json").told
    assert (asked["status"], asked["payment_id"]) == ("requested", paid["id"])
    assert [one["id"] for one in shell.run("refund", "list", "--json").told["items"]] == [asked["id"]]


def test_everything_is_stopped_and_let_go_on(shell: Shell) -> None:
    assert shell.run("freeze", "--reason", "A key leaked.", "--json").told["frozen"] is True
    assert shell.run("unfreeze", "--json").told["frozen"] is False
    assert shell.run("freeze", "--json", expect=2).problem["code"] == "usage"


def test_events_are_posted_to_an_address(shell: Shell) -> None:
    made = shell.run("webhook", "create", "https://acme.dev/hook", "--type", "payment.created")
    assert "whsec_" in made.out
    assert made.err == "Keep the secret now: it is shown only this once, and whoever has it can use it.\n"
    (listed,) = shell.run("webhook", "list", "--json").told["items"]
    assert "whsec_" not in shell.run("webhook", "show", listed["id"], "--json").out
    assert shell.run("webhook", "test", listed["id"], "--json").told["type"] == "webhook.test"
    assert shell.run("webhook", "deliveries", listed["id"], "--json").told["more"] is False
    assert shell.run("webhook", "replay", listed["id"], "--after", "3", "--json").told["id"] == listed["id"]
    assert "whsec_" in shell.run("webhook", "rotate-secret", listed["id"], "--overlap", "60").out
    assert shell.run("webhook", "delete", listed["id"], "--json").told["id"] == listed["id"]
