"""`manage.py reconcile` as somebody at a terminal sees it: what it prints, and the exit code, which is the answer."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connections

from escrow import workers
from escrow.management.commands import reconcile
from escrow.models import ChainCursor, Pool, SignerNonce
from tests.onchain.conftest import Chain, books
from tests.onchain.histories import History
from tests.onchain.test_reconcile import tampering

ROOT = Path(__file__).resolve().parents[2]
NOWHERE = "http://127.0.0.1:1"
Asked = Callable[..., tuple[int, str, str]]


@pytest.fixture
def asked(capsys: pytest.CaptureFixture[str]) -> Iterator[Asked]:
    """Run the command with some words: its exit code, what it printed, and what it said of an error."""

    def run(*words: str) -> tuple[int, str, str]:
        workers.chain_client.cache_clear()
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            reconcile.Command().run_from_argv(["manage.py", "reconcile", *words])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    yield run
    workers.chain_client.cache_clear()


@pytest.fixture
def quiet(chain: Chain) -> Pool:
    """A pool of which everything has come to its end."""
    pool = History(chain, seed=1).pool
    chain.quiet()
    return pool


def test_equal_books_exit_with_0(chain: Chain, quiet: Pool, asked: Asked) -> None:
    code, out, err = asked()
    assert (code, err) == (0, "")
    assert out.startswith("books equal chain: yes (final block ")
    code, out, _ = asked("--json", "--at", "latest", "--pool", str(quiet.pk))
    told = json.loads(out)
    assert (code, told["verdict"], told["equal"], told["at"], told["pools"]) == (0, "equal", True, "latest", 1)


def test_a_difference_exits_with_2(chain: Chain, quiet: Pool, asked: Asked) -> None:
    with tampering() as execute:
        execute("UPDATE escrow_account SET received_micros = received_micros + 1 WHERE kind = 'pool'")
    code, out, _ = asked()
    assert (code, out.splitlines()[0].split(" (")[0]) == (2, "books equal chain: NO")
    assert "  DIFFERENT  R2 " in out


def test_a_stopped_signer_is_an_alarm_and_no_difference(chain: Chain, quiet: Pool, asked: Asked) -> None:
    SignerNonce.objects.update(stopped_reason="Nonce 2 is none of ours.")
    code, out, _ = asked()
    assert (code, out.splitlines()[0].split(" (")[0]) == (2, "books equal chain: yes, but there is an alarm")
    assert "  ALARM      Nonce 2 is none of ours." in out.splitlines()
    assert "DIFFERENT" not in out
    told = json.loads(asked("--json")[1])
    assert (told["verdict"], told["equal"]) == ("unexplained", True)
    assert (told["differences"], told["alarms"]) == ([], ["Nonce 2 is none of ours."])


def test_a_node_that_is_away_means_that_nobody_knows(chain: Chain, quiet: Pool, settings: Any, asked: Asked) -> None:
    settings.RPC_URL, before = NOWHERE, books()
    code, out, err = asked()
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert err.startswith("books equal chain: nobody knows. Asked: the node at RPC_URL for what the contract 0x")
    assert "Wrong: node 1: eth_chainId: ConnectionError" in err
    assert err.endswith("then ask again\n")
    code, out, err = asked("--json")
    told = json.loads(out)
    assert (code, err, told["verdict"], told["equal"]) == (3, "", "unknown", None)
    assert told["reason"] == "node 1: eth_chainId: ConnectionError"
    assert books() == before


def test_what_the_books_say_alone_is_said_while_the_node_is_away(
    chain: Chain, quiet: Pool, settings: Any, asked: Asked
) -> None:
    settings.RPC_URL = NOWHERE
    SignerNonce.objects.update(stopped_reason="Nonce 2 is none of ours.")
    ChainCursor.objects.update(stopped_reason="Block 9 is gone.")
    with tampering() as execute:
        execute("UPDATE escrow_account SET received_micros = received_micros + 1 WHERE kind = 'pool'")
    code, out, err = asked()
    assert (code, err.count("\n")) == (3, 1)
    different, *alarms = out.splitlines()
    assert different.startswith("  DIFFERENT  R2 ")
    assert alarms == ["  ALARM      Block 9 is gone.", "  ALARM      Nonce 2 is none of ours."]
    told = json.loads(asked("--json")[1])
    assert told["alarms"] == ["Block 9 is gone.", "Nonce 2 is none of ours."]
    assert [one["rule"] for one in told["differences"]] == ["R2"]


def test_a_contract_that_is_not_there_means_that_nobody_knows(chain: Chain, quiet: Pool, asked: Asked) -> None:
    chain.client.request("anvil_setCode", [chain.contract.address, "0x"])
    code, _, err = asked()
    assert (code, err.count("\n")) == (3, 1)
    assert f"no contract at {chain.contract.address}" in err


def test_a_chain_that_was_never_read_means_that_nobody_knows(chain: Chain, quiet: Pool, asked: Asked) -> None:
    ChainCursor.objects.all().delete()
    code, out, err = asked()
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert "the indexer has not read the chain yet" in err


def test_a_database_that_is_away_means_that_nobody_knows(
    chain: Chain, quiet: Pool, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connections["default"]
    connection.close()
    with monkeypatch.context() as away:
        away.setitem(connection.settings_dict, "PORT", "1")
        code, out, err = asked()
        as_json = asked("--json")
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert err.startswith("books equal chain: nobody knows. Asked: the database at DATABASE_URL for the books. Wrong: ")
    told = json.loads(as_json[1])
    assert (as_json[0], as_json[2], told["verdict"], told["alarms"]) == (3, "", "unknown", [])


def test_a_fault_of_our_own_is_no_verdict(
    chain: Chain, quiet: Pool, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("escrow.inquiry.books.read", lambda pool_id: 1 // 0)
    code, out, err = asked()
    assert (code, out, "ZeroDivisionError" in err) == (3, "", True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--at", "bogus"], "--at: 'bogus' is none of its words; would pass: latest or safe or final"),
        (["--pool", "x"], "--pool: 'x' is no UUID; would pass: 32 hexadecimal digits, as 0198c6d2-"),
        (["now"], "unrecognized arguments: now; would pass: what `manage.py reconcile --help` lists"),
        (["--pol", str(UUID(int=1))], "unrecognized arguments: --pol"),
        (["--pool", str(uuid4())], "--pool: no pool has this id; would pass: an id from the admin's page Pools"),
    ],
)
def test_wrong_usage_exits_with_64_and_says_what_would_pass(
    transactional_db: None, asked: Asked, words: list[str], said: str
) -> None:
    before = books()
    code, out, err = asked(*words)
    assert (code, out, err.count("\n")) == (64, "", 1), err
    assert err.startswith(said)
    assert books() == before


def test_a_pool_at_another_contract_is_refused(chain: Chain, quiet: Pool, settings: Any, asked: Asked) -> None:
    settings.ESCROW_ADDRESS = "0x" + "1" * 40
    code, out, err = asked("--pool", str(quiet.pk))
    assert (code, out) == (64, "")
    assert err.startswith(
        f"--pool: this pool is at the contract {chain.contract.address}, and ESCROW_ADDRESS is 0x1111"
    )


def test_settings_that_are_wrong_are_no_verdict_either() -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "ENVIRONMENT": "production",
    }
    command = [sys.executable, str(ROOT / "manage.py"), "reconcile", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (78, "", 1), done.stderr
    assert done.stderr.startswith("SECRET_KEY is missing")
