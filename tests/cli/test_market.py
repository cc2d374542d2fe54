"""The market's commands against the real market: what they say, how they end, and that a refusal moves no money."""

import csv
import json
import signal
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from django.conf import settings
from django.utils import timezone

from escrow import events
from escrow.models import ChainCursor, Hold, Payment, Pulse, Session
from marketplace import keys
from marketplace.models import Scope
from tests.cli.live import SECRET, Live, read_only_key
from tests.marketplace.conftest import money
from tests.sdk.proxy import proxying

LINT = "agent://lint.acme.dev"


def remaining(live: Live, session_id: str | None = None) -> str:
    found = live.run("session", "show", session_id or str(live.world.a.session.pk), "--json").told
    return str(found["remaining"])


# --- Paying --------------------------------------------------------------------------------------------------------
def test_a_payment_is_one_line_for_a_person_and_one_object_for_a_program(live: Live) -> None:
    said = live.run("pay", LINT, "0.012", "--metadata", "file=a.py")
    payment = Payment.objects.get(metadata={"file": "a.py"})
    assert said.out.startswith(f"Paid 0.012 USDC to {LINT}: payment {payment.pk}, payable. ")
    assert said.err == ""
    told = live.run("pay", LINT, "0.012", "--metadata", "file=b.py", "--metadata-json", '{"n": 1}', "--json").told
    assert (told["amount"], told["to"], told["status"], told["metadata"]) == (
        "0.012", LINT, "payable", {"file": "b.py", "n": 1},
    )  # fmt: skip
    assert told["created_at"].endswith("Z")


def test_an_own_key_is_one_payment(live: Live) -> None:
    first = live.run("pay", LINT, "0.013", "--key", "mine", "--json").told
    again = live.run("pay", LINT, "0.013", "--key", "mine", "--json").told
    assert (again["id"], again["key"], first["replayed"], again["replayed"]) == (first["id"], "mine", False, True)
    assert Payment.objects.filter(amount_micros=13_000).count() == 1
    assert live.refused("pay", LINT, "0.014", "--key", "mine")["code"] == "idempotency_conflict"


def test_the_same_arguments_are_the_same_payment(live: Live) -> None:
    asked = ("pay", LINT, "0.015", "--metadata", "file=a.py")
    live.run(*asked)
    before = money()
    assert live.run(*asked).out.startswith("Was paid before: 0.015 USDC")
    assert live.run("pay", LINT, "0.0150", "--metadata-json", '{"file": "a.py"}', "--json").told["replayed"] is True
    assert money() == before
    assert live.run(*asked[:-1], "file=b.py", "--json").told["replayed"] is False
    assert Payment.objects.filter(amount_micros=15_000).count() == 2


def test_two_lost_answers_and_the_same_command_are_one_payment(live: Live) -> None:
    with proxying(live.url) as proxy:
        proxy.drop_next(2)
        unknown = live.run("pay", LINT, "0.021", "--json", expect=4, url=proxy.url, AGENTMARKET_RETRIES="0").problem
        assert (unknown["error"], unknown["exit_code"], unknown["outcome"]) == ("OutcomeUnknown", 4, "unknown")
        told = live.run("pay", LINT, "0.021", expect=4, url=proxy.url, AGENTMARKET_RETRIES="0")
        assert told.out == ""
        assert "agentmarket pay agent://lint.acme.dev 0.021" in told.err.splitlines()[-1]
        paid = live.run("pay", LINT, "0.021", "--json", url=proxy.url, AGENTMARKET_RETRIES="0").told
    assert paid["id"] == str(Payment.objects.get(amount_micros=21_000).pk)


def test_killed_before_its_answer_and_started_again_it_is_one_payment(live: Live) -> None:
    with proxying(live.url, faults={1: "hold"}) as proxy:
        with live.starts("pay", LINT, "0.022", url=proxy.url) as started:
            assert proxy.wait_answered(1) == 201  # the market has paid
            started.kill()
            assert started.wait(60) == -signal.SIGKILL
        proxy.let_go.set()
        paid = live.run("pay", LINT, "0.022", "--json", url=proxy.url, AGENTMARKET_RETRIES="0").told
    assert paid["id"] == str(Payment.objects.get(amount_micros=22_000).pk)


def test_stopped_while_it_waits_it_says_what_to_run_again(live: Live) -> None:
    with (
        proxying(live.url, faults={1: "hold"}) as proxy,
        live.starts("pay", LINT, "0.023", "--key", "stopped", url=proxy.url) as started,
    ):
        assert proxy.wait_answered(1) == 201
        started.send_signal(signal.SIGTERM)
        out, err = started.communicate(timeout=60)
    assert (started.returncode, out) == (4, "")
    assert err.splitlines()[-1].endswith("agentmarket pay agent://lint.acme.dev 0.023 --key stopped")


# --- Refusals: every exit code -----------------------------------------------------------------------------------------
def test_what_is_no_request_is_denied_before_anything_is_sent(live: Live) -> None:
    nowhere = "http://127.0.0.1:1"
    assert live.refused("pay", LINT, "0.0000001", url=nowhere)["code"] == "invalid_request"
    assert live.refused("pay", LINT, "1e3", url=nowhere)["would_pass"] == "0.008"
    assert live.refused("pay", LINT, "0.01", "--metadata", "file", url=nowhere)["code"] == "usage"
    assert live.refused("pay", LINT, "0.01", "--metadata-json", "{", url=nowhere)["code"] == "usage"
    inexact = live.refused("pay", LINT, "0.01", "--metadata-json", '{"cost": 0.1}', url=nowhere)
    assert 'write "0.1"' in inexact["detail"]
    assert live.refused("pay", LINT, url=nowhere)["code"] == "usage"
    assert live.refused("pay", LINT, "0.01", "--key", "a b", url=nowhere)["outcome"] == "not_charged"
    assert "is missing" in live.refused("pay", LINT, "0.01", key="", url=nowhere)["detail"]


def test_the_market_s_refusals_are_denied(live: Live) -> None:
    assert live.refused("pay", "agent://nobody.acme.dev", "0.01")["code"] == "not_found"
    assert live.refused("pay", LINT, "0.01", key=read_only_key(live.world))["code"] == "forbidden"
    assert live.refused("pay", LINT, "0.01", key=live.provider_key)["code"] == "forbidden"
    assert live.refused("session", "show", str(uuid4()))["code"] == "not_found"
    mistyped = live.session_key[:-1] + ("a" if live.session_key[-1] != "a" else "b")
    assert live.refused("pay", LINT, "0.01", key=mistyped)["code"] == "unauthenticated"


def test_a_policy_s_refusal_names_the_rule_and_what_would_pass(live: Live) -> None:
    opened = live.run(
        "session", "create", "--budget", "1.00", "--max-per-tx", "0.50", "--json", key=live.payer_key, shows_key=True
    ).told
    denied = live.refused("pay", LINT, "0.51", key=opened["api_key"])
    assert (denied["code"], denied["rule"], denied["limit"], denied["would_allow"]) == (
        "policy_denied", "max_per_tx", "0.50", "0.50",
    )  # fmt: skip


def test_a_spent_budget_is_dry(live: Live) -> None:
    opened = live.run("session", "create", "--budget", "0.05", "--json", key=live.payer_key, shows_key=True).told
    dry = live.refused("pay", LINT, "0.06", key=opened["api_key"], expect=3)
    assert (dry["code"], dry["remaining"]) == ("insufficient_funds", "0.05")


def test_what_has_expired_ends_with_five(live: Live) -> None:
    _, expired = keys.issue(scope=Scope.SESSION, session=live.world.a.session, now=timezone.now())
    keys.ApiKey.objects.filter(key_id=expired.split("_")[2]).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert "has expired" in live.refused("pay", LINT, "0.01", key=expired, expect=5)["detail"]
    opened = live.run("session", "create", "--budget", "0.05", "--json", key=live.payer_key, shows_key=True).told
    Session.objects.filter(pk=opened["id"]).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert live.refused("pay", LINT, "0.01", key=opened["api_key"], expect=5)["state"] == "expired"


def test_a_market_that_is_not_there_is_a_failure_and_nothing_was_charged(live: Live) -> None:
    failed = live.refused("pay", LINT, "0.01", url="http://127.0.0.1:1", expect=1, AGENTMARKET_RETRIES="0")
    assert (failed["error"], failed["outcome"]) == ("Unreachable", "not_charged")
    assert failed["advice"].startswith("Nothing was charged. Later: agentmarket pay agent://lint.acme.dev 0.01 --json")


def test_a_key_among_the_arguments_is_not_repeated(live: Live) -> None:
    for arguments in (("pay", live.session_key, "0.01"), ("pay", LINT, "0.01", live.session_key), (live.session_key,)):
        before = money()
        said = live.run(*arguments, expect=2)
        assert (said.out, money()) == ("", before)


# --- Sessions --------------------------------------------------------------------------------------------------------
def test_a_session_from_its_opening_to_its_end(live: Live) -> None:
    opened = live.run(
        "session", "create", "--budget", "2.00", "--name", "lints", "--max-per-tx", "0.50", "--allow", "*.acme.dev",
        key=live.payer_key, shows_key=True,
    )  # fmt: skip
    (text,) = SECRET.findall(opened.out)
    assert opened.err == "Keep the API key now: it is shown only this once, and whoever has it can use it.\n"
    assert live.run("pay", LINT, "0.25", "--metadata", "of=lints", "--json", key=text).told["remaining"] == "1.75"
    listed = live.run("session", "list", "--status", "open", "--json", key=live.payer_key).told
    (found,) = [item for item in listed["items"] if item["name"] == "lints"]
    assert (found["spent"], found["policy"]["max_per_tx"], "api_key" in found) == ("0.25", "0.50", False)
    topped = live.run("session", "top-up", found["id"], "1.00", "--json", key=live.payer_key).told
    assert (topped["budget"], topped["remaining"]) == ("3.00", "2.75")
    transfers = live.run("session", "ledger", found["id"], "--json", key=text).told["items"]
    assert sorted(item["amount"] for item in transfers) == ["-0.25", "1.00", "2.00"]
    closed = live.run("session", "close", found["id"], "--json", key=live.payer_key).told
    assert (closed["status"], closed["remaining"]) == ("closed", "0.00")
    assert live.refused("session", "top-up", found["id"], "1.00", key=live.payer_key)["state"] == "closed"
    assert live.refused("session", "create", "--budget", "1.00")["code"] == "forbidden"
    assert live.refused("session", "create", "--budget", "1000.00", key=live.payer_key, expect=3)["exit_code"] == 3


def test_a_ledger_is_the_spreadsheet_that_the_api_gives(live: Live) -> None:
    session = str(live.world.a.session.pk)
    said = live.run("session", "ledger", session, "--csv").out
    given = live.world.a.by_session.get(f"/v1/sessions/{session}/ledger", accept="text/csv").raw.decode()
    assert [*csv.reader(said.splitlines())] == [*csv.reader(given.splitlines())]
    assert said.splitlines()[0] == "id,at,reason,amount,counterparty,ref"
    assert ",25.00," in said.splitlines()[-1]
    assert live.refused("session", "ledger", session, "--csv")["code"] == "usage"


def test_a_key_can_go_to_a_private_file(live: Live, tmp_path: Path) -> None:
    file = tmp_path / "agent.key"
    told = live.run("session", "create", "--budget", "0.10", "--key-to", str(file), "--json", key=live.payer_key).told
    assert (told["key_file"], file.stat().st_mode & 0o777) == (str(file), 0o600)
    assert live.run("session", "show", told["id"], "--json", key=file.read_text().strip()).told["id"] == told["id"]
    again = live.refused("session", "create", "--budget", "0.10", "--key-to", str(file), key=live.payer_key)
    assert "Nothing was asked" in again["detail"]


def test_whether_a_session_has_enough_left(live: Live) -> None:
    session = str(live.world.a.session.pk)
    assert live.run("session", "ensure", session, "0.10", "--json").told["id"] == session
    dry = live.refused("session", "ensure", session, "26.00", expect=3)
    assert (dry["code"], dry["required"], dry["checkpoint"]["budget"]) == ("insufficient_funds", "26.00", "25.00")


def test_a_list_is_cut_at_its_limit_and_says_so(live: Live) -> None:
    told = live.run("session", "list", "--limit", "1", "--json", key=live.payer_key).told
    assert (len(told["items"]), told["more"]) == (1, True)
    assert live.run("session", "list", "--limit", "1", key=live.payer_key).out.endswith("… and more: --limit.\n")


# --- Holds -------------------------------------------------------------------------------------------------------------
def test_a_hold_is_paid_in_part_and_once(live: Live) -> None:
    held = live.run("hold", "place", LINT, "0.40", "--expires-in", "600", "--json").told
    assert (held["status"], held["amount"]) == ("held", "0.40")
    paid = live.run("hold", "capture", held["id"], "--amount", "0.25", "--json").told
    assert (paid["amount"], paid["to"]) == ("0.25", LINT)
    before = money()
    assert live.run("hold", "capture", held["id"], "--amount", "0.25", "--json").told["id"] == paid["id"]
    assert money() == before
    assert live.run("hold", "show", held["id"], "--json").told["payment_id"] == paid["id"]
    other = live.run("hold", "place", LINT, "0.40", "--json").told["id"]
    assert live.run("hold", "release", other, "--json").told["status"] == "released"
    assert live.refused("hold", "capture", other)["state"] == "released"
    assert live.refused("hold", "place", LINT, "900.00", expect=3)["code"] == "insufficient_funds"


def test_a_hold_that_has_expired_ends_with_five(live: Live) -> None:
    held = live.run("hold", "place", LINT, "0.40", "--json").told["id"]
    Hold.objects.filter(pk=held).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert live.refused("hold", "capture", held, expect=5)["state"] == "expired"
    live.run("hold", "release", held)


# --- Keys, agents ------------------------------------------------------------------------------------------------------
def test_keys_are_made_listed_rotated_and_revoked(live: Live) -> None:
    session = str(live.world.a.session.pk)
    made = live.run(
        "key", "create", "--session", session, "--name", "ci", "--json", key=live.payer_key, shows_key=True
    ).told
    assert live.run("session", "show", session, "--json", key=made["api_key"]).told["id"] == session
    new = live.run("key", "rotate", made["id"], "--overlap", "0", "--json", key=live.payer_key, shows_key=True).told
    assert live.refused("session", "show", session, key=made["api_key"])["code"] == "unauthenticated"
    assert live.run("key", "revoke", new["id"], "--json", key=live.payer_key).told["revoked_at"].endswith("Z")
    assert live.refused("session", "show", session, key=new["api_key"])["code"] == "unauthenticated"
    items = live.run("key", "list", "--json", key=live.payer_key).told["items"]
    assert {made["id"], new["id"]} <= {item["id"] for item in items}
    assert live.refused("key", "create")["code"] == "forbidden"


def test_agents_are_found_and_shown(live: Live) -> None:
    found = live.run("search", "lint", "--capability", "code.lint", "--json").told["items"]
    assert [agent["uri"] for agent in found] == [LINT]
    assert live.run("search", "nothing-of-that-name").out == "None.\n"
    shown = live.run("agent", "show", LINT)
    assert "code.lint   per_call     0.012  file" in shown.out
    assert live.run("agent", "show", "lint.acme.dev", "--json").told["uri"] == LINT


# --- Tasks, invoices, disputes -----------------------------------------------------------------------------------------
def submit(live: Live, task_id: str, amount: str) -> None:
    deliverable = {"deliverable": {"markdown": "# Brief"}, "invoice": {"amount": amount, "number": uuid4().hex[:12]}}
    answer = live.world.one.by_provider.post(f"/v1/tasks/{task_id}/submit", deliverable)
    assert answer.status == 200, answer.json


def test_a_task_is_posted_assigned_delivered_and_accepted(live: Live) -> None:
    posted = live.run(
        "task", "post", "A brief", "--capability", "review", "--budget", "2.40", "--brief", '{"file": "a.py"}', "--json"
    ).told
    assert (posted["status"], posted["brief"]) == ("posted", {"file": "a.py"})
    assert live.run("task", "assign", posted["id"], LINT, "--json").told["status"] == "assigned"
    submit(live, posted["id"], "2.00")
    listed = live.run("task", "list", "--status", "submitted", "--json").told["items"]
    assert [task["id"] for task in listed] == [posted["id"]]
    assert live.run("task", "accept", posted["id"], "--json").told["status"] == "accepted"
    assert live.run("task", "show", posted["id"], "--json").told["invoice"]["status"] == "approved"
    assert live.refused("task", "cancel", posted["id"])["code"] == "conflict"


def test_a_delivery_is_rejected_its_invoice_approved_after_all(live: Live) -> None:
    asked = ("task", "post", "B", "--capability", "review", "--budget", "1.00", "--agent", LINT, "--json")
    task = live.run(*asked).told
    submit(live, task["id"], "1.00")
    assert live.run("task", "reject", task["id"], "--reason", "Empty.", "--json").told["status"] == "rejected"
    (invoice,) = live.run("invoice", "list", "--status", "rejected", "--json").told["items"]
    assert live.run("invoice", "show", invoice["id"], "--json").told["reason"] == "Empty."
    assert live.run("invoice", "approve", invoice["id"], "--json").told["status"] == "approved"
    assert live.refused("invoice", "reject", invoice["id"], "--reason", "Late.")["code"] == "conflict"
    cancelled = live.run(*asked[:2], "C", *asked[3:7], "--json").told
    assert live.run("task", "cancel", cancelled["id"], "--json").told["status"] == "cancelled"


def test_a_payment_is_disputed(live: Live) -> None:
    paid = live.run("pay", LINT, "0.031", "--json").told
    opened = live.run("dispute", "open", "--payment", paid["id"], "--reason", "Nothing came.", "--json").told
    assert (opened["amount"], opened["payment_id"], opened["reason"]) == ("0.031", paid["id"], "Nothing came.")
    assert live.run("dispute", "show", opened["id"], "--json").told["id"] == opened["id"]
    assert opened["id"] in live.run("dispute", "list").out
    assert live.refused("dispute", "open", "--reason", "Of nothing.")["code"] == "usage"
    assert live.refused("dispute", "open", "--payment", paid["id"], "--reason", "Twice.")["code"] == "conflict"


# --- Events ------------------------------------------------------------------------------------------------------------
def test_events_are_told_from_a_position_on(live: Live) -> None:
    live.run("pay", LINT, "0.041")
    live.run("pay", LINT, "0.041", "--key", "another")
    events.publish_due()
    lines = live.run("events", "tail", "--json", key=live.payer_key).out.splitlines()
    told = [json.loads(line) for line in lines]
    positions = [event["position"] for event in told]
    assert positions == sorted(positions)
    rest = live.run("events", "tail", "--after", str(positions[-2]), "--json", key=live.payer_key).told
    assert rest == told[-1]
    kinds = live.run("events", "tail", "--type", told[-1]["type"], key=live.payer_key).out.splitlines()
    assert kinds
    assert all(told[-1]["type"] in line for line in kinds)
    assert live.refused("events", "tail")["code"] == "forbidden"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_followed_events_end_cleanly_and_say_how_to_go_on(live: Live, number: signal.Signals) -> None:
    with live.starts("events", "tail", "--follow", key=live.payer_key) as started:
        first = started.stdout.readline()
        paid = live.run("pay", LINT, "0.042", "--metadata", f"signal={number}", "--json").told
        events.publish_due()
        line = next(line for line in started.stdout if paid["id"] in line)
        started.send_signal(number)
        out, err = started.communicate(timeout=60)
    last = [first, line, *out.splitlines()][-1].split()[0]
    assert (started.returncode, err) == (0, f"To go on: agentmarket events tail --after {last}\n")


# --- Doctor ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def fresh(live: Live) -> None:
    """The chain has just been read, and a worker has just looked at it, as they do all the time."""
    now = timezone.now()
    ChainCursor.objects.update(read_at=now)
    seen = {"at": now, "chain_id": settings.CHAIN_ID, "code_present": True, "gas_price_wei": 1}
    Pulse.objects.update_or_create(worker="worker@live", defaults=seen)


@pytest.mark.usefixtures("fresh")
def test_all_is_well(live: Live) -> None:
    told = live.run("doctor", "--json").told
    assert told["ok"] is True
    assert [check["name"] for check in told["checks"]] == [
        "key", "address", "reachable", "ready", "clock", "who", "session", "pool", "events", "requests", "version",
    ]  # fmt: skip
    assert {check["ok"] for check in told["checks"]} <= {True, None}
    said = live.run("doctor", key=live.payer_key).out.splitlines()
    assert said[-1] == "All is well."
    assert all(line[0] in "✓–" for line in said[:-1])


@pytest.mark.usefixtures("fresh")
def test_what_is_not_well_is_named_with_what_to_do(live: Live) -> None:
    def wrong(**options: str) -> dict[str, str]:
        checks = live.run("doctor", "--json", expect=1, **options).told["checks"]
        return {check["name"]: check["do"] for check in checks if check["ok"] is False}

    assert wrong(key="") == {"key": "Set it to the key that you were given."}
    assert wrong(key=live.session_key[:-1] + ("a" if live.session_key[-1] != "a" else "b")) == {
        "key": "Copy the key anew."
    }
    assert wrong(url="http://127.0.0.1:1") == {"reachable": "Is the address right, and the market up?"}
    assert list(wrong(url="nowhere")) == ["address"]
    opened = live.run("session", "create", "--budget", "0.01", "--json", key=live.payer_key, shows_key=True).told
    live.run("pay", LINT, "0.01", "--metadata", "all=of it", key=opened["api_key"])
    assert wrong(key=opened["api_key"]) == {"session": f"agentmarket session top-up {opened['id']} AMOUNT"}
    live.run("session", "close", opened["id"], key=live.payer_key)
    assert list(wrong(key=opened["api_key"])) == ["session"]
