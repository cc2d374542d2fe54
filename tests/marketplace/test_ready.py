"""/readyz: one line for each part that the service stands on, read off what workers wrote down."""

import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from escrow.models import ChainAction, ChainCursor, Pulse, SignerNonce
from tests.marketplace.client import Caller

pytestmark = pytest.mark.django_db

ADDRESS = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
ENOUGH = 50 * 250_000 * 10**9
NAMES = [
    *("database", "worker", "chain_id", "contract", "signers", "signer_funds", "oldest_action", "indexer"),
    "broker",
]


@pytest.fixture
def healthy(settings: Any, redis_url: str) -> Pulse:
    """Everything as it should be."""
    settings.REDIS_URL, settings.CHAIN_ID, settings.ESCROW_ADDRESS = redis_url, 31337, "0xE5c"
    now = timezone.now()
    ChainCursor.objects.create(
        chain_id=31337, contract_address="0xE5c", block_number=9, block_hash="0x2", block_time=now, read_at=now
    )
    SignerNonce.objects.create(chain_id=31337, address=ADDRESS, next_nonce=3)
    return Pulse.objects.create(
        worker="worker@a",
        at=now,
        chain_id=31337,
        code_present=True,
        gas_price_wei=10**9,
        signers={ADDRESS: {"balance_wei": str(ENOUGH), "nonce": 3}},
    )


def ask() -> tuple[int, dict[str, str], str]:
    """The status, what is wrong by name, and the reason."""
    answer = Caller(None).get("/readyz")
    checks = answer.json["checks"]
    missing = {check["name"]: check["detail"] for check in checks if not check["ok"]}
    assert (answer.status, answer.json["status"]) == ((503, "not_ready") if missing else (200, "ready"))
    assert answer.json["reason"] == "; ".join(f"{name}: {detail}" for name, detail in missing.items())
    return answer.status, missing, ",".join(check["name"] for check in checks)


def test_ready_when_each_part_is_there(healthy: Pulse) -> None:
    assert ask() == (200, {}, ",".join(NAMES))


def test_before_anything_has_run_nothing_is_taken_for_granted(settings: Any, redis_url: str) -> None:
    settings.REDIS_URL = redis_url
    status, missing, _ = ask()
    assert (status, sorted(missing)) == (503, ["chain_id", "contract", "indexer", "signer_funds", "worker"])


def test_a_worker_that_is_silent_for_a_minute_is_missed(healthy: Pulse) -> None:
    Pulse.objects.update(at=timezone.now() - timedelta(seconds=59))
    assert ask()[0] == 200
    Pulse.objects.update(at=timezone.now() - timedelta(seconds=61))
    assert list(ask()[1]) == ["worker"]


def test_one_worker_of_two_is_enough(healthy: Pulse) -> None:
    Pulse.objects.create(worker="worker@old", at=timezone.now() - timedelta(hours=2))
    assert ask()[0] == 200


def test_another_chain_behind_the_nodes_address_is_noticed(healthy: Pulse) -> None:
    Pulse.objects.update(chain_id=1)
    assert ask()[1] == {"chain_id": "the node is on chain 1, and the service on chain 31337"}


def test_a_contract_that_is_not_there_is_noticed(healthy: Pulse) -> None:
    Pulse.objects.update(code_present=False)
    assert ask()[1] == {"contract": "there is no code at 0xE5c"}


def test_a_node_that_does_not_answer_is_said_by_its_kind(healthy: Pulse) -> None:
    Pulse.objects.update(
        chain_id=None, code_present=None, gas_price_wei=None, signers={}, error="eth_chainId: ConnectionError"
    )
    assert ask()[1] == dict.fromkeys(("chain_id", "contract", "signer_funds"), "eth_chainId: ConnectionError")


def test_a_node_that_stops_half_way_is_said_of_what_it_did_not_answer(healthy: Pulse) -> None:
    Pulse.objects.update(gas_price_wei=None, signers={}, error="eth_feeHistory: Timeout")
    assert ask()[1] == {"signer_funds": "eth_feeHistory: Timeout"}


def test_a_node_that_nobody_has_asked_is_said_as_that(healthy: Pulse) -> None:
    Pulse.objects.all().delete()
    found = ask()[1]
    assert {found[name] for name in ("chain_id", "contract", "signer_funds")} == {"no worker has asked the node yet"}


def test_a_signer_needs_gas_for_fifty_settlements(healthy: Pulse) -> None:
    Pulse.objects.update(signers={ADDRESS: {"balance_wei": str(ENOUGH - 1), "nonce": 3}})
    assert ask()[1] == {"signer_funds": f"{ADDRESS} has {ENOUGH - 1} wei, and {ENOUGH} are wanted"}


def test_a_stopped_signer_and_a_stopped_indexer_are_said_with_their_reason(healthy: Pulse) -> None:
    SignerNonce.objects.update(stopped_reason="Nonce 2 is none of ours.")
    ChainCursor.objects.update(stopped_reason="Block 9 is gone.")
    assert ask()[1] == {
        "signers": f"{ADDRESS} is stopped: Nonce 2 is none of ours.",
        "indexer": "reading the chain has stopped: Block 9 is gone.",
    }


def test_a_chain_that_is_not_read_is_noticed(healthy: Pulse) -> None:
    ChainCursor.objects.update(read_at=timezone.now() - timedelta(seconds=61))
    assert list(ask()[1]) == ["indexer"]


@pytest.mark.parametrize(
    ("status", "counts"),
    [("planned", True), ("signed", True), ("broadcast", True), ("mined", False), ("parked", False)],
)
def test_the_oldest_action_that_the_chain_has_not_taken_counts(healthy: Pulse, status: str, counts: bool) -> None:
    old = timezone.now() - timedelta(seconds=901)
    action = ChainAction.objects.create(kind="withdraw", status=status, dedupe_key="a", created_at=old)
    assert list(ask()[1]) == (["oldest_action"] if counts else [])
    ChainAction.objects.filter(pk=action.pk).update(created_at=timezone.now() - timedelta(seconds=890))
    assert ask()[0] == 200


def test_a_broker_that_is_away_is_missed(healthy: Pulse, settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    assert ask()[1] == {"broker": "it does not answer"}


def test_the_web_loads_no_web3() -> None:
    """It takes 0.76 s and 60 MB, and the web asks no node."""
    loads = "import marketplace.asgi, sys, django.urls; django.urls.get_resolver().url_patterns; print('web3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
