"""The ways out with the service off. It prepares a pool and signs a batch; from there on only the command line runs.

Each command is a process of its own that knows a node's URL, the contract and what its user holds: no Django, no database.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from escrow import disputes, receipts
from escrow.chain.signer import LocalSigner
from escrow.models import Batch, ChainAction, Party, Payment, Pool
from marketplace.api import show_chain
from tests.onchain.conftest import Chain, party

SDK = Path(__file__).resolve().parents[2] / "sdk" / "src"
DAY = 24 * 3_600
WINDOW = 3_600


@dataclass
class Terminal:
    """Somebody at a shell, with a key that has gas money and nothing else."""

    chain: Chain
    folder: Path

    def __post_init__(self) -> None:
        # A key that only this test knows: the command reads it from a private file.
        self.key_file = self.folder / "gas.key"
        secret = os.urandom(31).rjust(32, b"\1")
        self.key_file.write_text(secret.hex())
        self.key_file.chmod(0o600)
        self.secret, self.address = secret.hex(), LocalSigner(secret).address
        chain = self.chain
        chain.client.request("anvil_setBalance", [self.address, hex(10**20)])

    def run(self, *arguments: str, key: bool = True, expect: int = 0, **env: str) -> dict[str, Any]:
        """One command with --json; its one object. The key must never show."""
        rpc_url = settings.RPC_URL
        command = [sys.executable, "-m", "agentmarket", *arguments, "--json"]
        if key:
            command += ["--key-file", str(self.key_file)]
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SDK), "RPC_URL": str(rpc_url), **env}
        done = subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, text=True, check=False, timeout=60
        )
        assert self.secret not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == expect, (done.returncode, done.stdout, done.stderr)
        answer: dict[str, Any] = json.loads(done.stdout)
        assert answer["exit_code"] == expect
        return answer

    def rescue(self, pool: Pool, *more: str, **options: Any) -> dict[str, Any]:
        return self.run(
            "rescue", "--contract", self.chain.contract.address, "--pool", str(pool.pool_key), *more, **options
        )

    def later(self, seconds: int) -> None:
        """Only the chain's clock: nobody of the service is awake."""
        self.chain.client.request("evm_increaseTime", [seconds])
        self.chain.client.request("evm_mine", [])


@pytest.fixture
def terminal(chain: Chain, tmp_path: Path) -> Terminal:
    folder = tmp_path / "home"
    folder.mkdir()
    return Terminal(chain, folder)


def held(chain: Chain, *addresses: str) -> list[int]:
    """What the contract and others have, micro-USDC."""
    return [chain.token.balance_of(address) for address in (chain.contract.address, *addresses)]


def signed_batch(chain: Chain, terminal: Terminal, pool: Pool) -> Path:
    """The file that a provider keeps: the answer of `GET /v1/batches/{id}`. It is signed and never sent by us."""
    assert chain.settle() == 1
    file = terminal.folder / "batch.json"
    file.write_text(show_chain.batch(Batch.objects.get(pool=pool)).model_dump_json())
    return file


def test_the_payer_reclaims_after_expiry(chain: Chain, terminal: Terminal) -> None:
    pool = chain.open_pool(10_000_001, providers=(party("lint"),))
    payer = str(pool.payer_address)
    early = terminal.rescue(pool, "--send", expect=3)
    assert early["pool"]["free_micros"] == "10000001"
    assert not early["pool"]["ended"]
    assert held(chain, payer) == [10_000_001, 0]

    terminal.later(91 * DAY)
    dry = terminal.rescue(pool, key=False)
    assert [step["kind"] for step in dry["steps"]] == ["reclaim"]
    assert dry["steps"][0]["gas"] > 21_000
    assert held(chain, payer) == [10_000_001, 0]

    done = terminal.rescue(pool, "--send")
    assert [step["kind"] for step in done["steps"]] == ["reclaim"]
    assert done["pool"]["free_micros"] == "0"
    assert held(chain, payer) == [0, 10_000_001]
    assert terminal.rescue(pool, "--send", expect=3)["steps"] == []


@pytest.mark.promise("S17", "S18")
def test_a_provider_lands_its_batch_and_withdraws(chain: Chain, terminal: Terminal) -> None:
    lint, security = party("lint"), party("security")
    pool = chain.open_pool(10_000_000, providers=(lint, security), window=WINDOW)
    session = chain.session(pool, 5_000_000)
    paid = chain.pay(session, lint, 100_001)
    chain.pay(session, security, 25_001)
    file = signed_batch(chain, terminal, pool)

    landing = terminal.run("land", str(file), key=False)
    assert landing["credits_micros"] == {lint.address: "100001", security.address: "25001"}
    assert not chain.contract.is_settled(bytes.fromhex(landing["pool_key"][2:]), 0)
    landed = terminal.run("land", str(file), "--contract", chain.contract.address, "--send")
    assert landed["sent"]
    assert held(chain, lint.address) == [10_000_000, 0]

    # It landed once; the same file again, and a withdrawal before the hold is over, move nothing.
    assert terminal.run("land", str(file), "--contract", chain.contract.address, "--send", expect=3)["landed"]
    withdrawal = ("withdraw", "--contract", chain.contract.address, "--pool", landing["pool_key"], "--send")
    early = terminal.run(*withdrawal, "--provider", lint.address, expect=3)
    assert early["pool"]["lines"][0]["pending_micros"] == "100001"
    assert held(chain, lint.address) == [10_000_000, 0]
    _prove(terminal, chain, paid)

    terminal.later(2 * WINDOW)
    done = terminal.run(*withdrawal, "--provider", lint.address)
    assert done["pool"]["lines"][0]["matured_micros"] == "0"
    assert held(chain, lint.address, security.address) == [10_000_000 - 99_001, 99_001, 0]  # 1 % of it, floored, stays

    # After the end the rest leaves as well, whoever asks.
    terminal.later(91 * DAY)
    left = terminal.rescue(pool, "--send")
    assert [step["kind"] for step in left["steps"]] == ["withdraw", "reclaim"]
    fees = 1_000 + 250
    assert held(chain, lint.address, security.address, str(pool.payer_address)) == [
        fees, 99_001, 24_751, 10_000_000 - 100_001 - 25_001,
    ]  # fmt: skip
    assert chain.contract.fees() == fees
    assert sum(held(chain, lint.address, security.address, str(pool.payer_address))) == 10_000_000


def _prove(terminal: Terminal, chain: Chain, paid: Payment) -> None:
    """The receipt as it was before the batch had landed is enough: the chain says the rest."""
    paid.refresh_from_db()
    file = terminal.folder / "receipt.json"
    found = receipts.prove(payment=paid, now=chain.now())
    file.write_text(show_chain.receipt(paid, found).model_dump_json())
    proven = terminal.run("verify", str(file), "--contract", chain.contract.address, key=False)["verified"]
    assert proven["amount_micros"] == 100_001
    told = json.loads(file.read_text())
    told["leaf"]["amount_micros"] = "100002"
    file.write_text(json.dumps(told))
    refused = terminal.run("verify", str(file), "--contract", chain.contract.address, key=False, expect=1)
    assert (refused["error"]["kind"], refused["error"]["step"]) == ("ReceiptMismatch", "root")


def test_refusals_move_no_money(chain: Chain, terminal: Terminal) -> None:
    lint = party("lint")
    pool = chain.open_pool(1_000_000, providers=(lint,), window=WINDOW)
    chain.pay(chain.session(pool, 1_000_000), lint, 100_000)
    file = signed_batch(chain, terminal, pool)
    honest = json.loads(file.read_text())
    before, nonce = held(chain, lint.address, str(pool.payer_address)), chain.client.nonce(terminal.address)

    def refused(name: str, **changes: object) -> str:
        file.write_text(json.dumps({**honest, **changes}))
        named = str(changes.get("contract", chain.contract.address))
        error = terminal.run("land", str(file), "--contract", named, "--send", expect=2)["error"]
        assert error["kind"] == name
        return str(error["detail"])

    assert "chain 8453" in refused("Denied", chain_id=8453)
    assert "Nothing is deployed" in refused("NotAContract", contract=lint.address)
    assert "could land until" in refused("Denied", deadline_unix=1)
    assert "BadSignature" in refused("Reverted", root="0x" + "07" * 32)
    assert "packed" in refused("InvalidReply", packed="0x00")
    file.write_text(json.dumps(honest))
    other = terminal.run("land", str(file), "--send", "--contract", lint.address, expect=2)
    assert "you named" in other["error"]["detail"]
    assert "the payer's to ask" in terminal.rescue(pool, "--close", "--send", expect=2)["error"]["detail"]
    assert "RESCUE_KEY" in terminal.rescue(pool, "--send", key=False, expect=2)["error"]["detail"]
    unknown = terminal.run(
        "rescue", "--contract", chain.contract.address, "--pool", "0x" + "07" * 32, "--send", expect=2
    )
    assert "NoSuchPool" in unknown["error"]["detail"]
    terminal.later(2 * DAY)  # past the batch's deadline
    assert "could land until" in refused("Denied")
    assert held(chain, lint.address, str(pool.payer_address)) == before
    assert chain.client.nonce(terminal.address) == nonce


def test_a_payer_closes_with_its_own_key(chain: Chain, terminal: Terminal) -> None:
    pool = chain.open_pool(1_000_000)
    payer = chain.keyring.payer(str(pool.payer_id))
    chain.client.request("anvil_setBalance", [payer.address, hex(10**20)])
    key = bytes(payer._account.key).hex()
    done = terminal.rescue(pool, "--close", "--send", key=False, RESCUE_KEY=key)
    assert [step["kind"] for step in done["steps"]] == ["request_close", "reclaim"]  # a close delay of nothing
    assert held(chain, payer.address) == [0, 1_000_000]


def test_a_dispute_that_nobody_rules_ends_by_itself(chain: Chain, terminal: Terminal) -> None:
    lint: Party = party("lint")
    pool = chain.open_pool(1_000_000, providers=(lint,), window=WINDOW)
    payment = chain.pay(chain.session(pool, 1_000_000), lint, 100_000)
    assert chain.settle() == 1
    chain.quiet()
    payment.refresh_from_db()
    disputes.open_for_payment(payment=payment, amount_micros=60_000, reason="It never ran.", now=chain.now())
    chain.quiet()
    assert ChainAction.objects.filter(kind="dispute", status="final").exists()

    terminal.later(13 * DAY)
    early = terminal.rescue(pool, key=False)
    assert [dispute["amount_micros"] for dispute in early["pool"]["disputes"]] == ["60000"]
    assert [step["kind"] for step in early["steps"]] == ["withdraw"]  # of what was not disputed
    terminal.later(DAY + 1)
    done = terminal.rescue(pool, "--send")
    assert [step["kind"] for step in done["steps"]] == ["resolve_by_timeout", "withdraw"]
    assert done["pool"]["disputes"] == []
    assert held(chain, lint.address) == [1_000_000 - 99_000, 99_000]
