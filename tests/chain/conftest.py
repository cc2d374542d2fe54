"""A real anvil per test session, our contracts on it, and the people who use them. No Django."""

from __future__ import annotations

import ctypes
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from escrow.chain.client import ChainClient
from escrow.chain.contract import BudgetPool, Token
from escrow.chain.deploy import deploy_budget_pool, deploy_test_usdc
from escrow.chain.signer import LocalSigner

from .world import World, foundry_binary


def _die_with_parent() -> None:
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


@pytest.fixture(scope="session")
def anvil_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    binary = foundry_binary("anvil")
    if not binary.exists():
        pytest.fail(f"{binary} is missing: run `npm ci --ignore-scripts`")
    # To a file, not a pipe: anvil logs every request, and stands still when a pipe nobody reads is full.
    log = tmp_path_factory.mktemp("anvil") / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [binary, "--port", "0", "--hardfork", "prague", "--chain-id", "31337", "--code-size-limit", "24576"],
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent,  # noqa: PLW1509  (no threads yet; one prctl call)
        )
    try:
        yield f"http://127.0.0.1:{port_of(process, log)}"
    finally:
        process.kill()
        process.wait()


def port_of(process: subprocess.Popen[bytes], log: Path) -> int:
    """The port anvil says it listens on, within 20 seconds."""
    give_up_at = time.monotonic() + 20
    while time.monotonic() < give_up_at and process.poll() is None:
        found = re.search(r"Listening on [\d.]+:(\d+)", log.read_text())
        if found:
            return int(found.group(1))
        time.sleep(0.02)
    raise RuntimeError("anvil did not say on which port it listens")


def _key(number: int) -> LocalSigner:
    return LocalSigner(number.to_bytes(32, "big"))


@pytest.fixture(scope="session")
def world(anvil_url: str) -> World:
    client = ChainClient(anvil_url, timeout=10)
    relayer, payer, arbiter = _key(0xA1), _key(0xA2), _key(0xA3)
    for signer in (relayer, payer, arbiter):
        client.request("anvil_setBalance", [signer.address, hex(10**20)])
    token = deploy_test_usdc(client, relayer)
    fee_recipient = "0x00000000000000000000000000000000000FEE00"
    pool = deploy_budget_pool(client, relayer, token.address, fee_recipient)
    usdc, reader = Token(client, token.address), BudgetPool(client, pool.address)
    return World(
        client=client,
        usdc=usdc,
        contract=reader,
        payer=payer,
        authorizer=_key(0xA4),
        arbiter=arbiter,
        relayer=relayer,
        fee_recipient=fee_recipient,
        token_domain=usdc.domain(),
        domain=reader.domain(),
    )
