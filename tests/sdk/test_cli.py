"""The command line's promises: nothing is sent unasked, the key is never told, and each exit code means one thing."""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from click.testing import CliRunner, Result
from eth_account import Account
from eth_utils.address import to_checksum_address as checksummed
from eth_utils.crypto import keccak

from agentmarket.chain import rpc, sending
from agentmarket.cli.app import app
from escrow.chain import wire
from escrow.chain.wire import Record

from .node import CONTRACT, JSON, LANDED, ONE, PAYER, POOL, Node, Refusal, document, log, pool, refused, serve

KEY = "5e" * 32
SENDER = Account.from_key(KEY).address
Run = Callable[..., Result]


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(rpc, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(sending, "_POLL", 0.01)
    monkeypatch.setattr(sending, "_REPEAT", 0.1)
    node = Node()
    node.views |= {"pool": [pool(node)], "isSettled": [False], "settle": [], "withdraw": [], "reclaim": []}
    node.views["lineOf"] = [(True, 0, 0, 0, 0)]
    stop = serve(node)
    yield node
    stop()


@pytest.fixture
def run(node: Node) -> Run:
    """Run one command against the node."""

    def run(*arguments: str, key: str | None = KEY, expect: int = 0, **env: str) -> Result:
        known = {"RPC_URL": node.url, **({"RESCUE_KEY": key} if key else {}), **env}
        result = CliRunner().invoke(app, arguments, env=known)
        assert KEY not in result.output
        assert "secret-of-the-url" not in result.output
        assert result.exit_code == expect, (result.output, result.exception)
        return result

    return run


def rescue(*more: str) -> tuple[str, ...]:
    return ("rescue", "--contract", CONTRACT, "--pool", "0x" + POOL.hex(), *more)


def told(result: Result) -> dict[str, Any]:
    """The one object on stdout."""
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def sent(node: Node, **receipt: Any) -> None:
    """Let the node mine whatever it is sent."""

    def take(raw: str) -> str:
        transaction = "0x" + rpc_hash(raw)
        known = {"status": "0x1", "blockNumber": "0xfa0", "gasUsed": "0x5208", "effectiveGasPrice": "0x2", "logs": []}
        node.receipts[transaction] = known | receipt
        return transaction

    node._sendRawTransaction = take  # type: ignore[attr-defined]


def rpc_hash(raw: str) -> str:
    return keccak(bytes.fromhex(raw[2:])).hex()


@pytest.fixture
def batch(node: Node, tmp_path: Path) -> Path:
    packed = wire.encode_batch(7, [Record(ONE, 8_000)])
    file = tmp_path / "batch.json"
    file.write_text(
        json.dumps(
            {
                "contract": CONTRACT, "chain_id": node.chain_id, "pool_key": "0x" + POOL.hex(),
                "packed": "0x" + packed.hex(), "root": "0x" + "22" * 32, "deadline_unix": node.now + 60,
                "signature": "0x" + "33" * 65,
            }
        )
    )  # fmt: skip
    return file


def test_a_dry_run_sends_nothing_and_says_what_it_would(node: Node, run: Run) -> None:
    result = run(*rescue())
    assert "Would reclaim 5000000 micro-USDC for the payer" in result.stdout
    assert "5.000000 USDC free" in result.stdout
    assert "125000 gas" in result.stdout
    assert "add --send" in result.stdout
    assert node.count("eth_sendRawTransaction") == 0
    assert told(run(*rescue("--json"), key=None))["steps"][0]["cost_wei"] == str(125_000 * 11)


def test_a_pool_that_has_not_ended_has_nothing_to_do(node: Node, run: Run) -> None:
    node.views["pool"] = [pool(node, ends_in=9)]
    answer = told(run(*rescue("--json", "--send"), expect=3))
    assert (answer["steps"], answer["pool"]["reclaimable_at"]) == ([], node.now + 9)


def test_what_is_sent_is_waited_for(node: Node, run: Run) -> None:
    def reclaim_empties(**receipt: Any) -> None:
        sent(node, **receipt)
        node.views["pool"] = [pool(node)]

    reclaim_empties()
    answer = told(run(*rescue("--json", "--send")))
    assert (answer["sent"], answer["steps"][0]["kind"], answer["steps"][0]["gas_used"]) == (True, "reclaim", 21_000)
    assert node.count("eth_sendRawTransaction") == 1  # not again, though the node says that the money is still there

    reclaim_empties(status="0x0")
    failed = told(run(*rescue("--json", "--send"), expect=1))
    assert failed["error"]["kind"] == "SendFailed"
    assert failed["error"]["transaction"] in failed["error"]["detail"]


@pytest.mark.parametrize("dead", ["eth_sendRawTransaction", "eth_getTransactionReceipt"])
def test_an_answer_that_is_lost_is_an_unknown_outcome(node: Node, run: Run, dead: str) -> None:
    node._sendRawTransaction = lambda raw: "0x" + rpc_hash(raw)  # type: ignore[attr-defined]
    node.dead.add(dead)
    answer = told(run(*rescue("--json", "--send", "--wait", "1"), expect=4))
    assert answer["error"]["kind"] == "SendUnknown"
    transactions = {"0x" + rpc_hash(params[0]) for name, params in node.seen if name == "eth_sendRawTransaction"}
    assert transactions == {answer["error"]["transaction"]}  # the same bytes, however often


def test_a_node_that_says_no_sent_nothing(node: Node, run: Run) -> None:
    def no(raw: str) -> str:
        raise Refusal(-32000, "insufficient funds for gas")

    node._sendRawTransaction = no  # type: ignore[attr-defined]
    assert told(run(*rescue("--json", "--send"), expect=1))["error"]["kind"] == "RpcRefused"
    node._getBalance = lambda address, tag: "0x1"  # type: ignore[method-assign]
    assert "has 1 wei" in run(*rescue("--send"), expect=2).stderr


def test_withdrawals_that_the_token_refuses_are_told(node: Node, run: Run) -> None:
    two = "0x" + "b2" * 20
    node.mine("0x" + "01" * 32, log("ProvidersAllowed", poolId=POOL, providers=[ONE, two]), block=20)
    node.views |= {"lineOf": [(True, 7, 0, 0, 0)], "withdrawMany": [], "pool": [pool(node, free=0)]}
    rejected = log("WithdrawalRejected", poolId=POOL, provider=two, reason=b"")
    sent(node, logs=[rejected | {"blockNumber": "0x1", "transactionHash": LANDED}])
    answer = told(run(*rescue("--json", "--send"), expect=1))
    assert [step["what"] for step in answer["steps"]] == ["pay 2 providers 14 micro-USDC, the fee included"]
    assert [left["provider"].lower() for left in answer["rejected"]] == [two]


def test_a_withdrawal_that_is_refused_stops_nobody_elses_money(node: Node, run: Run) -> None:
    node.mine("0x" + "01" * 32, log("ProvidersAllowed", poolId=POOL, providers=[ONE]), block=20)
    node.views |= {"lineOf": [(True, 7, 0, 0, 0)], "withdraw": Refusal(3, "execution reverted: blacklisted", "0x")}
    sent(node)
    answer = told(run(*rescue("--json", "--send"), expect=1))
    assert [step["kind"] for step in answer["steps"]] == ["reclaim"]
    assert [left["what"] for left in answer["rejected"]] == [f"pay {checksummed(ONE)} 7 micro-USDC, the fee included"]
    assert f"Left out: pay {checksummed(ONE)}" in run(*rescue("--send"), expect=1).stdout

    # What somebody else did in the meantime is not left out.
    node.views["withdraw"] = refused("NothingToWithdraw", POOL, ONE)
    assert told(run(*rescue("--json", "--send")))["rejected"] == []


def test_an_error_after_a_transaction_says_what_was_sent(node: Node, run: Run) -> None:
    node.mine("0x" + "01" * 32, log("ProvidersAllowed", poolId=POOL, providers=[ONE]), block=20)
    node.views["lineOf"] = [(True, 7, 0, 0, 0)]
    sent(node)
    node._getBalance = lambda *asked: hex(10**18 if node.count("eth_getBalance") % 2 else 1)  # type: ignore[method-assign]
    answer = told(run(*rescue("--json", "--send"), expect=1))  # 2 would say that nothing was sent
    assert (answer["error"]["kind"], [step["kind"] for step in answer["steps"]]) == ("Denied", ["withdraw"])
    result = run(*rescue("--send"), expect=1)
    assert "has 1 wei" in result.stderr
    assert f"by {answer['steps'][0]['transaction']} in block 4000" in result.stdout


def test_a_node_does_not_name_the_price(node: Node, run: Run) -> None:
    sent(node)
    node._maxPriorityFeePerGas = lambda: hex(101 * 10**9)  # type: ignore[method-assign]
    node._getBalance = lambda address, tag: hex(10**40)  # type: ignore[method-assign]
    assert "100 are allowed" in run(*rescue("--send"), expect=2).stderr
    assert "100 are allowed" in run(*rescue(), expect=2).stdout
    assert node.count("eth_sendRawTransaction") == 0
    run(*rescue("--send", "--max-fee-gwei", "102"))
    run(*rescue("--send", "--wait", "nan"), expect=2)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError])
def test_whatever_ends_a_command_after_a_transaction_leaves_its_hash(
    node: Node, run: Run, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    sent(node)
    with monkeypatch.context() as patch:
        patch.setattr(sending, "_awaited", Mock(side_effect=stop))
        answer = told(run(*rescue("--send", "--json"), expect=4))
    assert {answer["error"]["transaction"]} == node.receipts.keys()
    monkeypatch.setattr(rpc.Rpc, "head", Mock(side_effect=ValueError("something")))
    assert told(run(*rescue("--json"), expect=1))["error"]["kind"] == "AgentMarketError"


def test_a_terminate_signal_leaves_the_hash_too(node: Node, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sent(node)
    monkeypatch.setattr(sending, "_awaited", lambda *asked: signal.raise_signal(signal.SIGTERM))
    assert told(run(*rescue("--send", "--json"), expect=4))["error"]["kind"] == "SendUnknown"


def test_a_nodes_words_do_not_command_the_terminal(node: Node, run: Run) -> None:
    node.views["pool"] = Refusal(-32000, "\x1b[2Jcleared")
    result = run(*rescue(), expect=1)
    assert "cleared" in result.stderr
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize(
    "spoilt",
    [
        {"status": "0x2"}, {"logs": "none"}, {"logs": [5]}, {"logs": [{"address": ONE}]}, {"gasUsed": None},
        {"blockNumber": None},
    ],
)  # fmt: skip
def test_a_receipt_that_is_none_says_nothing(node: Node, run: Run, spoilt: dict[str, Any]) -> None:
    sent(node, **spoilt)
    assert told(run(*rescue("--send", "--json", "--wait", "1"), expect=4))["error"]["kind"] == "SendUnknown"


def test_a_batch_whose_deadline_no_calendar_has(node: Node, run: Run, batch: Path) -> None:
    whole = json.loads(batch.read_text())
    batch.write_text(json.dumps(whole | {"deadline_unix": 2**64 - 1}))
    assert f"second {2**64 - 1}" in run("land", str(batch)).stdout
    for field, value in (
        ("deadline_unix", 2**64), ("deadline_unix", True), ("deadline", None), ("chain_id", "8453"), ("chain_id", 8453.9),
        ("packed", 5), ("root", None), ("signature", "0x 33"), ("pool_key", "0x11"),
    ):  # fmt: skip
        changed = {name: kept for name, kept in whole.items() if name != "deadline_unix" or field != "deadline"}
        batch.write_text(json.dumps(changed | {field: value}))
        assert field in run("land", str(batch), expect=2).stderr


def test_landing_a_batch(node: Node, run: Run, batch: Path) -> None:
    assert "0.008000 USDC" in run("land", str(batch)).stdout
    assert "needs --contract" in run("land", str(batch), "--send", expect=2).stderr
    node.views["settle"] = refused("ProviderNotAllowed", POOL, ONE)
    answer = told(run("land", str(batch), "--contract", CONTRACT, "--send", "--json", expect=2))
    assert (answer["error"]["name"], answer["error"]["arguments"]["provider"].lower()) == ("ProviderNotAllowed", ONE)
    assert "allowProviders" in answer["error"]["detail"]
    assert node.count("eth_sendRawTransaction") == 0
    node.views["settle"] = refused("AlreadySettled", POOL, 7)  # somebody was faster, between two questions
    run("land", str(batch), "--contract", CONTRACT, "--send", expect=3)
    node.views["settle"] = []
    sent(node)
    assert told(run("land", str(batch), "--contract", CONTRACT, "--send", "--json"))["block"] == 4_000


def test_a_withdrawal_with_nothing_matured(node: Node, run: Run) -> None:
    node.views["lineOf"] = [(True, 0, 9, 9, node.now + 60)]
    command = ("withdraw", "--contract", CONTRACT, "--pool", "0x" + POOL.hex(), "--provider", ONE, "--json")
    answer = told(run(*command, expect=3))
    assert answer["pool"]["lines"][0]["next_at"] == node.now + 60


def test_receipts_on_the_command_line(node: Node, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps(document(node)))
    known = ("--payer", PAYER, "--provider", ONE, "--pool", "0x" + POOL.hex())
    proven = run("verify", str(file), "--contract", CONTRACT, *known, key=None).stdout
    assert "is proven" in proven
    assert f"paid by {checksummed(PAYER)}, from pool 0x{POOL.hex()}" in proven
    other = run("verify", str(file), "--contract", CONTRACT, "--payer", ONE, "--json", key=None, expect=1)
    assert told(other)["error"]["step"] == "payer"
    assert told(run("verify", str(file), "--json", expect=1))["error"]["step"] == "contract"
    assert "cannot be read" in run("verify", str(tmp_path / "none"), expect=2).stderr
    file.write_text("{")
    assert "not JSON" in run("verify", str(file), expect=2).stderr


def test_keys_come_from_private_places_only(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "gas.key"
    file.write_text(KEY)
    file.chmod(0o640)
    options = rescue("--send", "--key-file", str(file))
    assert "mode 0640" in run(*options, key=None, expect=2).stderr
    file.chmod(0o600)
    file.write_text(KEY[:-2])
    assert "64 hex digits" in run(*options, key=None, expect=2).stderr
    file.write_text("zz" * 32)
    assert "does not hold a key" in run(*options, key=None, expect=2).stderr
    assert "RESCUE_KEY" in run(*rescue("--send"), key=None, expect=2).stderr


def test_a_keystore_opens_with_its_password(node: Node, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "keystore.json"
    file.write_text(json.dumps(Account.encrypt(KEY, "a password", kdf="scrypt", iterations=2)))
    file.chmod(0o600)
    options = rescue("--send", "--json", "--key-file", str(file))
    sent(node)
    assert SENDER in run(*options, key=None, RESCUE_PASSWORD="a password").stderr
    wrong = run(*options, key=None, expect=2, RESCUE_PASSWORD="another password")
    assert "password" in wrong.stdout
    assert "another password" not in wrong.output


def test_closing_is_the_payers(node: Node, run: Run) -> None:
    node.views |= {"pool": [pool(node, ends_in=9)], "requestClose": []}
    assert "the payer's to ask" in run(*rescue("--close"), expect=2).stderr
    answer = told(run(*rescue("--close", "--json"), key=None))
    assert [step["kind"] for step in answer["steps"]] == ["request_close"]


def test_what_is_no_pool_and_no_address(node: Node, run: Run) -> None:
    assert "not an address" in run("rescue", "--contract", "0x1", "--pool", "0x" + POOL.hex(), expect=2).stderr
    assert "64 hex digits" in run("rescue", "--contract", CONTRACT, "--pool", "0x1", expect=2).stderr
    node.views["pool"] = refused("NoSuchPool", POOL)
    assert "NoSuchPool" in run(*rescue(), expect=2).stderr
    run("rescue", expect=2)


def test_a_search_takes_smaller_steps_where_the_node_wants_them(
    node: Node, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, spans, held, given_up = node._getLogs, [], [], threading.Event()

    def limited(query: JSON) -> list[JSON]:
        first, last = int(query["fromBlock"], 16), int(query["toBlock"], 16)
        if last > 4_000 and last - first >= 125:
            raise Refusal(-32005, "query returned more than 10000 results")
        if last - first >= 500 and not given_up.is_set():
            held.append(last - first + 1)
            given_up.wait()
        else:
            spans.append(last - first + 1)
        return answer(query)

    monkeypatch.setattr(node, "_getLogs", limited)
    monkeypatch.setattr(rpc, "GROW", 2)
    try:
        with rpc.Rpc(node.url, timeout=2) as asked:  # long for what is answered at once; the rest never is
            topics = [[LANDED], "0x" + POOL.hex()]
            logs = list(asked.logs_backwards(CONTRACT, topics, newest=node.head, oldest=1_400))
    finally:
        given_up.set()
    assert len(logs) == len(spans)
    assert sum(spans) == node.head - 1_400 + 1
    assert spans[0] <= 125
    assert 125 < max(spans) <= 500
    assert held == [1_000]
    run(*rescue("--chunk", "1000"))
    assert max(spans) == 1_000


def test_searches_go_in_bounded_chunks_and_say_how_far(node: Node, run: Run) -> None:
    result = run(*rescue("--chunk", "2000", "--json"))
    spans = [params[0] for method, params in node.seen if method == "eth_getLogs"]
    assert [(int(span["fromBlock"], 16), int(span["toBlock"], 16)) for span in spans] == [
        (3_001, 5_000), (1_001, 3_000), (0, 1_000),
    ]  # fmt: skip
    assert result.stderr.count("blocks ") == 3
    assert "before the pool's opening" in run(*rescue("--from-block", "4990")).stderr
    assert node.count("eth_getLogs") == 4
    terms = (ONE, ONE, ONE, 1, 1, 1, 1, 1, 1, 1, b"\0" * 32, b"\0" * 32)
    node.mine("0x" + "01" * 32, log("PoolOpened", poolId=POOL, payer=PAYER, terms=terms, deposit=1), block=4_995)
    assert told(run(*rescue("--from-block", "4990", "--json")))["whole"]
    assert not told(run(*rescue("--from-block", "4996", "--json")))["whole"]
