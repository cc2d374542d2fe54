"""`deploy_escrow` on real chains: what it puts there, what it refuses, and that a refusal sends nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from escrow.chain import create2, rollout
from escrow.chain.artifacts import load_artifact
from escrow.chain.client import ChainClient, Receipt
from escrow.chain.contract import BudgetPool
from escrow.chain.deploy import NO_TVL_CAP, deploy_test_usdc
from escrow.chain.errors import ChainUnavailable
from escrow.chain.keyring import Keyring
from escrow.chain.networks import LOCAL, MAINNET, PRESETS, Network
from escrow.chain.outcomes import SendOutcome, SendResult
from escrow.chain.signer import LocalSigner, Role
from escrow.chain.words import ZERO_ADDRESS
from escrow.errors import InvalidInput
from escrow.management.commands import deploy_escrow

from . import nodes
from .world import ROOT

FEES = "0x00000000000000000000000000000000000FEE00"
GUARDIAN = "0x000000000000000000000000000000000006A4d1"
STRANGE = "0x0000000000000000000000000000000000005742"
ASKED = ("--fee-recipient", FEES, "--guardian", GUARDIAN, "--tvl-cap", "50000")
NAME_SLOT = "0x3"  # of OpenZeppelin's ERC20
EIGHTEEN = "0x60125f5260205ff3"  # returns 18, whatever it is asked


@dataclass
class Chain:
    """A chain with a test token and a funded relayer."""

    url: str
    client: ChainClient
    relayer: LocalSigner
    keys: Path
    usdc: str

    @property
    def sent(self) -> int:
        return self.client.nonce(self.relayer.address)

    def plant(self, address: str, code: bytes | str) -> None:
        text = code if isinstance(code, str) else "0x" + code.hex()
        self.client.request("anvil_setCode", [address, text])

    def name(self, address: str, name: str) -> None:
        """Make a planted token's name() say so: a short string in its storage."""
        word = name.encode().ljust(31, b"\0") + bytes([2 * len(name)])
        self.client.request("anvil_setStorageAt", [address, NAME_SLOT, "0x" + word.hex()])


def started(folder: Path, chain_id: int, token: str) -> Iterator[Chain]:
    with nodes.anvil(folder, chain_id) as url:
        client = ChainClient(url)
        relayer = Keyring.create(folder / "keys").signer(Role.RELAYER)
        client.request("anvil_setBalance", [relayer.address, hex(10**20)])
        yield Chain(url, client, relayer, folder / "keys", deploy_test_usdc(client, relayer, token).address)


@pytest.fixture(scope="module")
def one_local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    yield from started(tmp_path_factory.mktemp("local"), 31337, "USDC")


@pytest.fixture(scope="module")
def one_base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """A chain that says it is Base, with a token where Base has USDC."""
    for chain in started(tmp_path_factory.mktemp("base"), MAINNET, "USD Coin"):
        chain.plant(PRESETS["base"].usdc, create2.code_at(chain.client, chain.usdc))
        chain.name(PRESETS["base"].usdc, "USD Coin")
        yield chain


def as_it_was(chain: Chain, settings: Any, chain_id: int) -> Iterator[Chain]:
    """The chain, named in the settings, and afterwards as it was before."""
    settings.RPC_URL, settings.CHAIN_ID, settings.SIGNER_KEYS_DIR = chain.url, chain_id, str(chain.keys)
    settings.USDC_ADDRESS = chain.usdc
    snapshot = chain.client.request("evm_snapshot")
    yield chain
    chain.client.request("evm_revert", [snapshot])


@pytest.fixture
def local(one_local: Chain, settings: Any) -> Iterator[Chain]:
    yield from as_it_was(one_local, settings, 31337)


@pytest.fixture
def base(one_base: Chain, settings: Any) -> Iterator[Chain]:
    yield from as_it_was(one_base, settings, MAINNET)


def run(*arguments: str, network: str = LOCAL, stderr: StringIO | None = None) -> tuple[int, dict[str, Any]]:
    """Exit code and document of the command."""
    out, code = StringIO(), 0
    stderr = StringIO() if stderr is None else stderr
    try:
        call_command("deploy_escrow", "--network", network, *arguments, "--json", stdout=out, stderr=stderr)
    except SystemExit as ended:
        code = int(ended.code or 0)
    return code, json.loads(out.getvalue())


def asked_of(chain: Chain) -> rollout.Order:
    """The order that ASKED makes on a local chain."""
    return rollout.Order(Network(LOCAL, 31337, chain.usdc), FEES, GUARDIAN, 50_000_000_000)


def refused(chain: Chain, *arguments: str, network: str = LOCAL) -> dict[str, Any]:
    """What a refusal says; nothing was sent, and it names a field, a rule and what would pass."""
    before = chain.sent
    code, document = run(*arguments, network=network)
    assert (code, document["status"]) == (2, "refused")
    assert document["rule"]
    assert document["would_pass"]
    assert chain.sent == before
    return document


# ---------------------------------------------------------------------- what it puts there


def test_it_deploys_to_the_address_it_foretold(local: Chain) -> None:
    _, foretold = run(*ASKED, "--dry-run")
    code, document = run(*ASKED)
    assert (code, document["status"], document["address"]) == (0, "deployed", foretold["address"])
    pool = BudgetPool(local.client, document["address"])
    assert (pool.token(), pool.fee_recipient()) == (local.usdc, FEES)
    assert rollout.read(local.client, pool.address, "guardian") == GUARDIAN
    assert rollout.read(local.client, pool.address, "tvlCap") == 50_000_000_000
    template = load_artifact("BudgetPool").deployed_bytecode
    assert create2.is_instance(template, create2.code_at(local.client, pool.address))
    assert pool.domain().separator == create2_domain(local.client, pool.address)
    assert document["settings"] == {
        "CHAIN_ID": "31337",
        "USDC_ADDRESS": local.usdc,
        "ESCROW_ADDRESS": pool.address,
        "ESCROW_START_BLOCK": str(document["block_number"]),
    }
    assert document["gas_used"] <= document["gas"] < 16_777_216


def create2_domain(client: ChainClient, address: str) -> bytes:
    """The separator the deployed contract itself would make, from its eip712Domain()."""
    returned = client.call(address, rollout.codec("BudgetPool").call("eip712Domain"))
    _, name, version, chain_id, contract, *_ = rollout.codec("BudgetPool").answer("eip712Domain", 0, returned)
    return rollout.Domain(name, version, chain_id, contract).separator


def test_a_second_time_sends_nothing(local: Chain) -> None:
    _, first = run(*ASKED)
    before = local.sent
    code, second = run(*ASKED)
    assert (code, second["status"], second["address"]) == (0, "already deployed", first["address"])
    assert (second["tvl_cap_now"], second["deposits_paused"]) == ("50000.00", False)
    assert local.sent == before


def test_another_salt_or_argument_is_another_address(local: Chain) -> None:
    asked = [ASKED, (*ASKED, "--salt", "0x" + "11" * 32), ("--fee-recipient", FEES, "--tvl-cap", "50000")]
    addresses = {run(*arguments, "--dry-run")[1]["address"] for arguments in asked}
    assert len(addresses) == 3


def test_the_address_does_not_depend_on_who_sends(local: Chain, settings: Any, tmp_path: Path) -> None:
    _, first = run(*ASKED, "--dry-run")
    Keyring.create(tmp_path / "others")
    settings.SIGNER_KEYS_DIR = str(tmp_path / "others")
    _, second = run(*ASKED, "--dry-run")
    assert first["relayer"] != second["relayer"]
    assert first["address"] == second["address"]


def test_a_local_chain_needs_no_guardian_and_no_cap(local: Chain) -> None:
    code, document = run("--fee-recipient", FEES)
    assert (code, document["guardian"], document["tvl_cap"]) == (0, ZERO_ADDRESS, "unlimited")
    assert rollout.read(local.client, document["address"], "tvlCap") == NO_TVL_CAP


def test_a_dry_run_prices_and_sends_nothing(local: Chain) -> None:
    before = local.sent
    code, document = run(*ASKED, "--dry-run")
    assert (code, document["status"]) == (0, "dry run")
    assert 1_000_000 < document["gas"] < 16_777_216
    assert document["cost_wei"] > 0
    assert len(document["init_code_hash"]) == 66
    assert (local.sent, create2.code_at(local.client, document["address"])) == (before, b"")


def test_base_is_deployed_to_when_it_is_meant(base: Chain) -> None:
    code, document = run(*ASKED, "--yes-mainnet", network="base")
    assert (code, document["status"], document["token_name"]) == (0, "deployed", "USD Coin")
    assert document["explorer"] == f"https://basescan.org/address/{document['address']}"


def test_a_process_of_its_own_prints_the_settings_and_no_key(local: Chain) -> None:
    command = [sys.executable, "manage.py", "deploy_escrow", "--network", "local", "--token", local.usdc, *ASKED]
    named = {"RPC_URL": local.url, "CHAIN_ID": "31337", "SIGNER_KEYS_DIR": str(local.keys), "USDC_ADDRESS": ""}
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | named, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0
    assert re.fullmatch(r"Sending 0x[0-9a-f]{64}\n", done.stderr)
    _, known = run(*ASKED)
    assert known["status"] == "already deployed"
    assert f"ESCROW_ADDRESS={known['address']}" in done.stdout
    assert "ESCROW_START_BLOCK=" in done.stdout
    for file in local.keys.iterdir():
        assert file.read_text().strip() not in done.stdout


# ---------------------------------------------------------------------- what it refuses


def test_another_chain_is_refused(local: Chain) -> None:
    document = refused(local, *ASKED, network="base-sepolia")
    assert document["field"] == "RPC_URL"
    assert "31337" in document["rule"]
    assert "84532" in document["rule"]


def test_mainnet_is_refused_unless_it_is_meant(base: Chain) -> None:
    assert refused(base, *ASKED, network="base")["field"] == "yes-mainnet"
    assert run(*ASKED, "--dry-run", network="base")[0] == 0


def test_mainnet_is_not_local(base: Chain) -> None:
    assert refused(base, *ASKED)["would_pass"] == "--network base"


@pytest.mark.parametrize("chain_id", [1, 10, 84533])
def test_no_chain_but_those_of_test_nodes_is_local(local: Chain, settings: Any, chain_id: int) -> None:
    settings.CHAIN_ID = chain_id
    document = refused(local, *ASKED)
    assert (document["field"], str(chain_id) in document["rule"]) == ("network", True)
    assert document["would_pass"] == "CHAIN_ID 1337 or 31337"


def test_a_token_without_code_is_refused(local: Chain) -> None:
    document = refused(local, *ASKED, "--token", STRANGE)
    assert (document["field"], "no code" in document["rule"]) == ("token", True)


def test_a_token_of_other_decimals_is_refused(local: Chain) -> None:
    local.plant(STRANGE, EIGHTEEN)
    assert "18 decimals" in refused(local, *ASKED, "--token", STRANGE)["rule"]


def test_what_is_no_token_is_refused(local: Chain) -> None:
    local.plant(STRANGE, "0x5f5ffd")  # reverts
    assert "decimals()" in refused(local, *ASKED, "--token", STRANGE)["rule"]
    local.plant(STRANGE, "0x00")  # answers nothing
    assert "decimals()" in refused(local, *ASKED, "--token", STRANGE)["rule"]


def test_a_token_of_another_name_is_refused(base: Chain) -> None:
    base.name(PRESETS["base"].usdc, "USDC")
    document = refused(base, *ASKED, "--yes-mainnet", network="base")
    assert "'USDC'" in document["rule"]
    assert "'USD Coin'" in document["would_pass"]


def test_a_token_of_another_version_is_refused(local: Chain) -> None:
    network = Network("older", 31337, local.usdc, usdc_name="USDC", usdc_version="1")
    with pytest.raises(InvalidInput, match="says its version is '2'"):
        rollout.check_token(local.client, network)
    rollout.check_token(local.client, replace(network, usdc_version="2"))


def test_a_token_that_signs_under_another_domain_is_refused(local: Chain) -> None:
    local.name(local.usdc, "USD Coin")  # says so, and signs as "USDC"
    assert "DOMAIN_SEPARATOR" in refused(local, *ASKED)["rule"]


def test_without_the_proxy_it_says_how_to_get_it(local: Chain) -> None:
    local.plant(create2.PROXY, "0x")
    document = refused(local, *ASKED)
    assert document["field"] == "proxy"
    assert "deterministic-deployment-proxy" in document["would_pass"]


def test_other_code_at_the_address_is_refused(local: Chain) -> None:
    _, foretold = run(*ASKED, "--dry-run")
    template = load_artifact("BudgetPool").deployed_bytecode
    planned = rollout.plan(local.client, asked_of(local), mainnet_allowed=False).runtime
    zero = next(at for at, byte in enumerate(planned) if byte == template[at] == 0)
    changed = planned[:zero] + b"\1" + planned[zero + 1 :]
    assert create2.is_instance(template, changed)  # which is why that is not what decides
    for squatter in ("0x00", template, changed):  # the artifact without its immutables is another contract, too
        local.plant(foretold["address"], squatter)
        document = refused(local, *ASKED)
        assert (document["field"], foretold["address"] in document["rule"]) == ("salt", True)


def test_a_relayer_without_gas_money_is_refused(local: Chain) -> None:
    cost = run(*ASKED, "--dry-run")[1]["cost_wei"]
    local.client.request("anvil_setBalance", [local.relayer.address, hex(cost * 9 // 10)])
    document = refused(local, *ASKED)
    assert document["field"] == "relayer"
    local.client.request("anvil_setBalance", [local.relayer.address, hex(int(document["would_pass"].split()[0]) * 2)])
    assert run(*ASKED)[0] == 0


def test_more_gas_than_a_chain_transaction_may_use_is_refused(local: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "TRANSACTION_GAS_CAP", 1_000_000)
    document = refused(local, *ASKED)
    assert (document["field"], "less than 1000000" in document["would_pass"]) == ("gas", True)


def test_arguments_that_the_constructor_refuses_are_refused(local: Chain) -> None:
    order = rollout.Order(Network(LOCAL, 31337, local.usdc), ZERO_ADDRESS)
    with pytest.raises(InvalidInput, match="refused by the constructor"):
        rollout.plan(local.client, order, mainnet_allowed=False)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("--guardian", "0x12"), "guardian"),
        (("--fee-recipient", ZERO_ADDRESS), "fee-recipient"),
        (("--fee-recipient", PRESETS["base"].usdc[:-2] + "aa"), "fee-recipient"),  # a wrong checksum
        (("--tvl-cap", "1e6"), "tvl-cap"),
        (("--salt", "0x11"), "salt"),
        (("--token", "usdc"), "token"),
    ],
)
def test_an_argument_of_the_wrong_form_is_refused(local: Chain, arguments: tuple[str, ...], field: str) -> None:
    assert refused(local, *ASKED, *arguments)["field"] == field


@pytest.mark.parametrize("field", ["fee-recipient", "guardian"])
def test_a_contract_that_cannot_act_gets_no_role(local: Chain, settings: Any, field: str) -> None:
    settings.ESCROW_ADDRESS = STRANGE
    for what, at in (("token", local.usdc), ("deployment proxy", create2.PROXY), ("escrow", STRANGE)):
        document = refused(local, *ASKED, f"--{field}", at.lower())
        assert (document["field"], f"is the {what}" in document["rule"]) == (field, True)


@pytest.mark.parametrize("missing", ["guardian", "tvl-cap"])
def test_a_public_network_has_its_guardian_and_cap_chosen(base: Chain, missing: str) -> None:
    at = ASKED.index(f"--{missing}")
    assert refused(base, *ASKED[:at], *ASKED[at + 2 :], "--yes-mainnet", network="base")["field"] == missing
    assert refused(base, *ASKED, "--token", base.usdc, network="base")["field"] == "token"


def test_no_key_but_the_relayers_is_needed(local: Chain, settings: Any, tmp_path: Path) -> None:
    (tmp_path / "relayer.key").write_bytes((local.keys / "relayer.key").read_bytes())
    (tmp_path / "relayer.key").chmod(0o600)
    settings.SIGNER_KEYS_DIR = str(tmp_path)
    code, document = run(*ASKED)
    assert (code, document["relayer"]) == (0, local.relayer.address)


def test_keys_that_are_not_there_are_named(local: Chain, settings: Any, tmp_path: Path) -> None:
    settings.SIGNER_KEYS_DIR = str(tmp_path)
    document = refused(local, *ASKED)
    assert (document["field"], f"{tmp_path}/" in document["rule"]) == ("SIGNER_KEYS_DIR", True)


# ---------------------------------------------------------------------- failing


def test_a_silent_node_is_a_failure_and_no_refusal(local: Chain, settings: Any) -> None:
    settings.RPC_URL = "http://127.0.0.1:9"
    code, document = run(*ASKED)
    assert (code, document["status"]) == (1, "failed")
    with pytest.raises(CommandError) as failed:
        call_command("deploy_escrow", "--network", LOCAL, *ASKED)
    assert failed.value.returncode == 1
    assert "run it again" in str(failed.value)


def test_a_lost_answer_to_the_broadcast_is_no_failure(local: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    send_raw, receipt, asked = ChainClient.send_raw, ChainClient.receipt, []

    def lost(client: ChainClient, raw: bytes) -> SendResult:
        return replace(send_raw(client, raw), outcome=SendOutcome.UNKNOWN, detail="ReadTimeout")

    def flaky(client: ChainClient, transaction_hash: str) -> Receipt | None:
        asked.append(transaction_hash)
        if len(asked) == 1:
            raise ChainUnavailable("eth_getTransactionReceipt: ConnectionError")
        return receipt(client, transaction_hash)

    monkeypatch.setattr(ChainClient, "send_raw", lost)
    monkeypatch.setattr(ChainClient, "receipt", flaky)
    code, document = run(*ASKED)
    assert (code, document["status"], document["transaction_hash"]) == (0, "deployed", asked[0])


def test_a_broadcast_that_nobody_heard_of_again_is_named(local: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    told = StringIO()

    def never(_: ChainClient, __: bytes) -> SendResult:
        assert told.getvalue().startswith("Sending 0x")  # before it is sent
        return SendResult(SendOutcome.UNKNOWN, "", "ReadTimeout")

    monkeypatch.setattr(ChainClient, "send_raw", never)
    monkeypatch.setattr(rollout, "_RECEIPT_SECONDS", 0.1)
    code, document = run(*ASKED, stderr=told)
    assert (code, document["status"]) == (1, "failed")
    assert told.getvalue().split()[1] in document["error"]


def test_while_something_is_pending_nothing_more_is_sent(local: Chain) -> None:
    local.client.request("evm_setAutomine", [False])
    try:
        local.client.request("anvil_impersonateAccount", [local.relayer.address])
        fields = {"from": local.relayer.address, "to": STRANGE, "value": "0x1"}
        local.client.request("eth_sendTransaction", [fields])
        document = refused(local, *ASKED)
        assert (document["field"], "1 pending" in document["rule"]) == ("relayer", True)
        local.client.request("evm_mine")
    finally:
        local.client.request("evm_setAutomine", [True])
    assert run(*ASKED)[0] == 0


def test_whoever_is_faster_leaves_no_block_to_start_from(local: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    send_raw, order = ChainClient.send_raw, asked_of(local)

    def outrun(client: ChainClient, raw: bytes) -> SendResult:
        client.request("anvil_setBalance", [STRANGE, hex(10**18)])
        client.request("anvil_impersonateAccount", [STRANGE])
        data = "0x" + create2.calldata(order.salt, order.creation_code).hex()
        client.request("eth_sendTransaction", [{"from": STRANGE, "to": create2.PROXY, "data": data}])
        return send_raw(client, raw)

    monkeypatch.setattr(ChainClient, "send_raw", outrun)
    code, document = run(*ASKED)
    assert (code, document["status"], document["address"]) == (0, "deployed by another", order.address)
    assert "ESCROW_START_BLOCK" not in document["settings"]
    assert "block_number" not in document
    assert not local.client.receipt(document["transaction_hash"]).ok
    assert "ESCROW_START_BLOCK=the block of its creation" in deploy_escrow._page(document)


def test_a_node_that_knows_no_state_overrides_is_a_failure(local: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(create2, "simulate", lambda *_: b"")
    code, document = run(*ASKED)
    assert (code, "another node" in document["error"]) == (1, True)


def test_what_was_deployed_otherwise_does_not_pass_verification(local: Chain) -> None:
    order = asked_of(local)
    plan = rollout.plan(local.client, order, mainnet_allowed=False)
    with pytest.raises(rollout.ChainError, match="the code at"):
        rollout.verify(local.client, plan)
    local.plant(order.address, plan.runtime)  # its code, without what its constructor stored
    with pytest.raises(rollout.ChainError, match=r"tvlCap\(\) .* is 0"):
        rollout.verify(local.client, plan)
