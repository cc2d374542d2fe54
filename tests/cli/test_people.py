"""People between an agent and money, on the real market: approvals, pauses, children, another policy, a freeze."""

from tests.cli.live import Live

LINT = "agent://lint.acme.dev"


def opened(live: Live, *rules: str) -> tuple[str, str]:
    """A session with a policy: its id and its key."""
    told = live.run("session", "create", "--budget", "3.00", *rules, "--json", key=live.payer_key, shows_key=True).told
    return told["id"], told["api_key"]


def test_a_payment_waits_for_a_person_and_the_same_command_then_pays(live: Live) -> None:
    _, key = opened(live, "--approval-above", "1.00")
    asked = ("pay", LINT, "2.00", "--metadata", "file=a.py")
    problem = live.refused(*asked, key=key)
    approval = problem["approval_id"]
    assert problem["code"] == "approval_required"
    assert problem["advice"].endswith(f"Then: agentmarket pay {LINT} 2.00 --metadata file=a.py --json")
    assert live.refused("approval", "approve", approval, key=key)["code"] == "forbidden"
    waiting = live.run("approval", "list", "--status", "waiting", "--json", key=live.payer_key).told["items"]
    assert [one["id"] for one in waiting] == [approval]
    assert live.run("approval", "approve", approval, "--json", key=live.payer_key).told["status"] == "approved"
    assert live.run(*asked, "--json", key=key).told["remaining"] == "1.00"


def test_a_payment_that_a_person_refused_is_denied(live: Live) -> None:
    _, key = opened(live, "--approval-above", "1.00")
    approval = live.refused("pay", LINT, "1.50", key=key)["approval_id"]
    told = live.run("approval", "refuse", approval, "--reason", "Too much.", "--json", key=live.payer_key).told
    assert (told["status"], told["reason"]) == ("refused", "Too much.")
    denied = live.refused("pay", LINT, "1.50", key=key)
    assert (denied["code"], denied["rule"], denied["advice"]) == ("policy_denied", "approval_above", None)


def test_a_hold_that_a_person_approves_is_placed_with_the_key_that_it_had(live: Live) -> None:
    _, key = opened(live, "--approval-above", "1.00")
    asked = ("hold", "place", LINT, "2.00")
    problem = live.refused(*asked, key=key)
    assert problem["advice"].endswith(f"Then: agentmarket hold place {LINT} 2.00 --json --key {problem['key']}")
    live.run("approval", "approve", problem["approval_id"], key=live.payer_key)
    assert live.run(*asked, "--key", problem["key"], "--json", key=key).told["status"] == "held"


def test_a_paused_session_spends_nothing(live: Live) -> None:
    session, key = opened(live)
    told = live.run("session", "pause", session, "--reason", "Lunch.", "--json", key=live.payer_key).told
    assert told["status"] == "paused"
    assert live.refused("pay", LINT, "0.10", key=key)["state"] == "paused"
    assert live.refused("session", "ensure", session, "0.10", key=key)["state"] == "paused"
    assert live.refused("session", "resume", session, key=key)["code"] == "forbidden"
    assert live.run("session", "resume", session, "--json", key=live.payer_key).told["status"] == "open"
    assert live.run("pay", LINT, "0.10", "--json", key=key).told["remaining"] == "2.90"


def test_a_child_has_a_part_of_its_parent(live: Live) -> None:
    session, key = opened(live, "--max-per-tx", "0.50")
    child = live.run("session", "child", session, "--budget", "1.00", "--json", key=key, shows_key=True).told
    assert (child["parent_id"], child["budget"], child["policy"]["max_per_tx"]) == (session, "1.00", "0.50")
    assert live.refused("pay", LINT, "0.60", key=child["api_key"])["rule"] == "max_per_tx"
    assert live.run("session", "show", session, "--json", key=key).told["delegated"] == "1.00"


def test_a_policy_is_changed_as_a_new_version(live: Live) -> None:
    session, key = opened(live, "--max-per-tx", "0.50")
    assert live.refused("pay", LINT, "0.60", key=key)["rule"] == "max_per_tx"
    changed = live.run("policy", "set", session, "--max-per-tx", "0.75", "--json", key=live.payer_key).told
    assert changed["policy"]["max_per_tx"] == "0.75"
    assert live.run("pay", LINT, "0.60", "--json", key=key).told["amount"] == "0.60"
    history = live.run("policy", "show", session, "--history", "--json", key=live.payer_key).told["items"]
    assert {one["policy"]["max_per_tx"] for one in history} == {"0.50", "0.75"}
    assert live.refused("policy", "set", session, "--max-per-tx", "9.00", key=key)["code"] == "forbidden"


def test_a_freeze_stops_every_session_of_the_payer(live: Live) -> None:
    _, key = opened(live)
    assert live.refused("freeze", "--reason", "A key leaked.", key=key)["code"] == "forbidden"
    assert live.run("freeze", "--reason", "A key leaked.", "--json", key=live.payer_key).told["frozen"] is True
    assert live.refused("pay", LINT, "0.10", key=key)["state"] == "frozen"
    assert live.run("unfreeze", "--json", key=live.payer_key).told["frozen"] is False
    assert live.run("pay", LINT, "0.10", "--json", key=key).told["remaining"] == "2.90"


def test_a_policy_is_asked_and_tried_on_the_past(live: Live) -> None:
    session, key = opened(live, "--max-per-tx", "0.50")
    live.run("pay", LINT, "0.30", key=key)
    assert live.run("policy", "check", LINT, "0.50", "--json", key=key).told["allowed"] is True
    denied = live.run(
        "policy", "check", LINT, "0.51", "--session", session, "--json", key=live.payer_key, expect=2
    ).told
    assert (denied["rule"], denied["would_allow"], denied["policy_version"]) == ("max_per_tx", "0.50", 1)
    dry = live.run("policy", "check", LINT, "90.00", "--policy", "{}", "--json", key=key, expect=3).told
    assert (dry["code"], dry["rule"]) == ("insufficient_funds", None)
    told = live.run("policy", "backtest", "--max-per-tx", "0.10", "--days", "7", "--json", key=key).told
    assert (told["decisions"], told["refused"]["amount"], told["by_rule"][0]["rule"]) == (1, "0.30", "max_per_tx")
    assert "0.30" in live.run("policy", "backtest", "--max-per-tx", "0.10", key=key).out
