"""`manage.py crashtest`: what it finds in the market, and that it finds a bug where one was sown."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from escrow.crashpoints import POINTS
from marketplace.management.commands import crashtest
from marketplace.management.crashtest.steps import WEIGHTS, draw
from marketplace.management.crashtest.table import Result, Table

ROOT = Path(__file__).resolve().parents[2]


def run(*argv: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the project without the servers of this test run: it has its own."""
    hidden = {"DATABASE_URL", "REDIS_URL", "RPC_URL"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"DJANGO_SETTINGS_MODULE": "marketplace.settings", **more}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "sdk" / "src")])
    return subprocess.run(
        [sys.executable, *argv], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.timeout(900)  # tens of servers and a hundred workers, also where a machine has other work
def test_workers_and_web_servers_die_at_eight_points_and_nothing_is_lost_doubled_or_unexplained() -> None:
    told = run("manage.py", "crashtest", "--quick", "--json")
    said = json.loads(told.stdout or "{}")
    assert (told.returncode, said.get("failed")) == (0, []), told.stderr
    kills = {fault: row["runs"] for fault, row in said["by_fault"].items() if fault.startswith("kill ")}
    assert kills == {f"kill {point}": 5 for point in crashtest.QUICK_POINTS}
    assert said["by_fault"]["history"]["runs"] == crashtest.QUICK["histories"]
    assert said["runs"] == 8 * 5 + crashtest.QUICK["histories"]
    assert (said["lost"], said["doubled"], said["unexplained"]) == (0, 0, 0)
    assert all(row["landed_micros"] > 0 for row in said["by_fault"].values()), "a judgement over nothing"
    assert said["orders"] >= 8 * 5  # each of these runs asked for one at least


@pytest.mark.timeout(300)
def test_a_celery_worker_dies_and_valkey_gives_its_message_out_again() -> None:
    told = run(
        "manage.py", "crashtest", "--points", "relay.sent", "--kills", "1", "--celery-kills", "1", "--histories", "0", "--json"
    )  # fmt: skip
    said = json.loads(told.stdout or "{}")
    assert (told.returncode, said.get("failed")) == (0, []), told.stderr
    assert list(said["by_fault"]) == ["celery kill relay.sent"]
    assert (said["runs"], said["lost"], said["doubled"], said["unexplained"]) == (1, 0, 0, 0)
    assert said["orders"] >= 3
    assert said["landed_micros"] > 0


RELAYERS = "2"
CREDITED = re.compile(r"(0x\w{40}) was credited (\d+) in \S+, and (\d+) was asked for")
MISSING = re.compile(r"(0x\w{40}) was credited 0 of (\d+) in \S+; 0 waits")
NONCES = re.compile(r"the nonces of 0x\w{40} do not meet: chain (\d+), next (\d+), actions from (\d+): (\d+)")


def judged(bug: str, *points: str) -> list[dict[str, Any]]:
    """Return what was found at each point with a bug sown: the seed, and so what is paid, is always the same."""
    told = run("-m", "tests.faults.seeded", bug, *points, RELAYERS=RELAYERS)
    found: list[dict[str, Any]] = json.loads(told.stdout.rpartition("FOUND ")[2] or "[]")
    assert len(found) == len(points), told.stderr[-2000:]
    return found


def matches(pattern: re.Pattern[str], lines: list[str]) -> list[tuple[str, ...]]:
    """Return what each line says; every one must say this."""
    said = [pattern.fullmatch(line) for line in lines]
    assert said, "nothing was found"
    assert all(said), lines
    return [match.groups() for match in said if match]


@pytest.mark.timeout(300)
def test_nothing_is_found_in_the_same_plays_without_a_bug_and_something_where_there_is_nothing_to_judge() -> None:
    sent, committed, empty, strange, parked = judged(
        "none", "relay.sent", "settle.committed", "nothing new", "a stranger's pool", "a parked action"
    )
    nothing: dict[str, Any] = {"lost": [], "doubled": [], "unexplained": [], "orders": 3, "refused": 0}
    assert sent == {**nothing, "landed": 81_964}
    assert committed == {**nothing, "landed": 62_600}
    assert empty["unexplained"] == ["nothing has landed: there was nothing to judge"]
    [stranger] = strange["unexplained"]
    assert re.fullmatch(r"nobody asked for pool 0x[0-9a-f]{64}", stranger)
    assert stranger in parked["unexplained"]
    assert [line for line in parked["unexplained"] if line.startswith("chain action ") and " is parked: " in line]


@pytest.mark.timeout(300)
def test_debts_that_were_given_back_too_soon_are_found_landing_twice() -> None:
    [found] = judged("void too soon", "relay.sent")
    credits = [(int(landed), int(asked)) for _, landed, asked in matches(CREDITED, found["doubled"])]
    assert sum(asked for _, asked in credits) == 81_964
    assert all(landed > asked and landed % asked == 0 for landed, asked in credits)
    assert found["lost"] == []


@pytest.mark.timeout(300)
def test_credits_that_the_chain_never_made_are_found_lost() -> None:
    [found] = judged("settle by our word", "settle.committed")
    assert sum(int(micros) for _, micros in matches(MISSING, found["lost"])) == 62_600
    assert found["doubled"] == []
    invented = [line for line in found["unexplained"] if line.endswith(": a transfer that no log explains")]
    assert len(invented) == len(found["lost"])


@pytest.mark.timeout(300)
def test_a_nonce_of_an_action_that_was_signed_anew_is_found_missing() -> None:
    [found] = judged("sign anew", "relay.sent")
    [[used, following, first, ours]] = matches(NONCES, found["unexplained"])
    assert int(used) == int(following) == int(first) + int(ours) + 1
    assert (found["lost"], found["doubled"]) == ([], [])


@pytest.mark.timeout(300)
def test_a_nonce_of_the_second_relayer_that_nobody_wrote_down_is_found() -> None:
    [found] = judged("send past the books", "relay.sent")
    [[used, following, first, ours]] = matches(NONCES, found["unexplained"])
    assert (int(following), int(used)) == (int(first) + int(ours), int(first) + int(ours) + 1)
    assert (found["lost"], found["doubled"]) == ([], [])


LEAVES = """
import os, sys, pathlib, django
django.setup()
from marketplace.celery import app
from marketplace.management.crashtest.crew import Crew
app.loader.import_default_modules()
app.tasks["escrow.relay_sweep"].run = lambda: os._exit(0)
crew = Crew(pathlib.Path(sys.argv[1]))
print(crew.deliver("escrow.relay_sweep"))
crew.close()
"""


def test_a_worker_that_ends_by_itself_without_an_answer_has_not_ended_well(tmp_path: Path) -> None:
    told = run("-c", LEAVES, str(tmp_path / "crew.log"))
    assert told.stdout == "Outcome(signal=0, error='its worker ended without an answer', died=True)\n", told.stderr


def test_every_crash_point_has_a_play_or_is_the_web_s() -> None:
    assert set(crashtest.POINTS) == set(POINTS)
    assert len(set(crashtest.POINTS)) >= 12


def test_a_seed_is_always_the_same_history() -> None:
    first, again, other = draw(7, 50), draw(7, 50), draw(8, 50)
    assert first == again
    assert first != other
    names = {name for seed in range(40) for name, _ in draw(seed, 50)}
    assert names == set(WEIGHTS)


def test_a_history_counts_once_and_each_fault_in_it_as_often_as_it_happened() -> None:
    table = Table()
    table.add(Result("kill relay.sent", 1, 0, 0, 0, 0.5))
    table.add(Result("history", 7, 1, 0, 2, 4.0, ("LOST  one",), (("reorg", 3), ("rpc lies", 1))))
    said: dict[str, Any] = table.document(10.0)
    assert {name: said[name] for name in ("runs", "lost", "doubled", "unexplained", "recovery_s")} == {
        "runs": 2, "lost": 1, "doubled": 0, "unexplained": 2, "recovery_s": 4.0,
    }  # fmt: skip
    assert said["by_fault"]["reorg"]["runs"] == 3
    assert said["by_fault"]["reorg"]["lost"] == 1
    assert said["failed"] == [{"fault": "history", "seed": 7, "lines": ["LOST  one"]}]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--points relay.nowhere", "--points: 'relay.nowhere' is no crash point; would pass: some of settle.signed,"),
        ("--points ,", "--points: '' is no crash point; would pass: some of settle.signed,"),
        ("--points relay.sent,relay.sent", "--points: relay.sent is named twice; would pass: each point once;"),
        ("--steps 0", "--steps: '0' is no whole number from 1 on; would pass: 1"),
        ("--seed 17 --steps 0", "--steps: '0' is no whole number from 1 on; would pass: 1"),
        ("--kills -1 --histories 0", "--kills: '-1' is no whole number from 0 on; would pass: 1"),
        ("--kills many", "--kills: 'many' is no whole number from 0 on; would pass: 1"),
        ("--workers 0", "--workers: '0' is no whole number from 1 on; would pass: 1"),
        ("--recovery --out soon", "--out: 'soon' is no time in seconds; would pass: 60"),
        (
            "--seed 17 --kills 3",
            "--kills: says what is played, and --seed plays one history; would pass: one of the two",
        ),
        ("--seed 17 --points relay.sent", "--points: says what is played, and --seed plays one history"),
        ("--seed 17 --histories 0", "--histories: says what is played, and --seed plays one history"),
        ("--seed 17 --first-seed 3", "--first-seed: says what is played, and --seed plays one history"),
        ("--seed 17 --full", "--full: says what is played, and --seed plays one history"),
        (
            "--celery-kills 9 --kills 1",
            "--celery-kills: is 9, and is a part of the 1 --kills; would pass: --celery-kills 1",
        ),
        ("--celery-kills 6", "--celery-kills: is 6, and is a part of the 5 --kills; would pass: --celery-kills 5"),
        ("--points send.committed --celery-kills 1", "--celery-kills: no worker dies at send.committed; would pass: "),
        (
            "--kills 0 --histories 0",
            "--kills, --histories: both are 0, and nothing would be played; would pass: --kills 1",
        ),
        ("--backlog 7", "--backlog: is of the outages alone; would pass: --recovery --backlog 7"),
        (
            "--quick --full",
            "--full: not allowed with argument --quick; would pass: what `manage.py crashtest --help` lists",
        ),
        ("again", "unrecognized arguments: again; would pass: what `manage.py crashtest --help` lists"),
    ],
)
def test_what_cannot_be_played_as_it_was_asked_is_refused_and_nothing_is_started(
    words: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[object] = []
    monkeypatch.setattr(crashtest, "Lanes", lambda *of: started.append(of))
    with pytest.raises(SystemExit) as ended:
        crashtest.Command().run_from_argv(["manage.py", "crashtest", *words.split()])
    told = capsys.readouterr()
    assert (ended.value.code, told.out, told.err.count("\n"), started) == (64, "", 1, []), told.err
    assert told.err.startswith(said)


def test_wrong_usage_is_no_verdict() -> None:
    told = run("manage.py", "crashtest", "--points", "relay.nowhere")
    assert (told.returncode, told.stdout) == (64, "")
    assert told.stderr.startswith("--points: 'relay.nowhere' is no crash point")


@pytest.mark.parametrize(
    ("words", "planned"),
    [
        ("--seed 17", [("history", 17, 50)]),
        ("--seed 17 --steps 3", [("history", 17, 3)]),
        ("--kills 0 --histories 2 --first-seed 4", [("history", 4, 50), ("history", 5, 50)]),
        ("--points relay.sent --kills 2 --celery-kills 1 --histories 0", [("kill", 0, 0), ("celery kill", 0, 0)]),
        ("--full --points relay.sent --kills 1 --histories 0", [("celery kill", 0, 0)]),
        ("--recovery --backlog 7 --out 0.5", [("recovery", 0, 7)] * 3),
    ],
)
def test_what_is_asked_for_is_played(
    words: str, planned: list[tuple[str, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[tuple[str, int, int]] = []
    monkeypatch.setattr(
        crashtest.Lanes, "play", lambda _, plan: played.extend((run.kind, run.seed, run.size) for run in plan)
    )
    crashtest.Command().run_from_argv(["manage.py", "crashtest", *words.split()])
    assert played == planned
