"""Several nodes: who is asked, who is left alone, and what two must say alike. Real nodes, some behind a liar."""

from __future__ import annotations

import logging
import secrets
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest

from escrow.chain import nodes as nodes_room
from escrow.chain.client import ChainClient
from escrow.chain.contract import BudgetPool
from escrow.chain.errors import (
    ChainDisagreement,
    ChainError,
    ChainRefused,
    ChainReverted,
    ChainUnavailable,
    ChainUnconfirmed,
)
from escrow.chain.events import PoolOpened
from escrow.chain.nodes import Node
from escrow.chain.outcomes import SendOutcome
from escrow.chain.signer import LocalSigner, TransactionFields
from marketplace.management.faults.rpc_proxy import RpcProxy

from . import nodes
from .world import PROVIDERS, World

SECRET_PATH = "/v2/an-api-key-in-the-path"


def test_tiers_by_depth(anvil_url: str, world: World) -> None:
    world.client.request("anvil_mine", ["0x5"])
    latest = world.client.block("latest")
    assert latest is not None
    for depth in (1, 3, latest.number + 1, latest.number + 9):
        tiers = ChainClient(anvil_url, finality=depth).tiers()
        assert tiers.latest == latest
        assert tiers.final == tiers.safe == world.client.block(max(latest.number - depth + 1, 0))


def test_tiers_by_the_nodes_word(anvil_url: str, world: World) -> None:
    world.client.request("anvil_mine", ["0x64"])
    blocks = [world.client.block(tag) for tag in ("latest", "safe", "finalized")]
    finalized = ChainClient(anvil_url, finality="finalized").tiers()
    assert [finalized.latest, finalized.safe, finalized.final] == blocks
    assert finalized.final.number < finalized.safe.number < finalized.latest.number
    safe = ChainClient(anvil_url, finality="safe").tiers()
    assert [safe.latest, safe.safe, safe.final] == [blocks[0], blocks[1], blocks[1]]


@pytest.mark.parametrize("finality", [0, -1, "latest", ""])
def test_no_other_finality(finality: int | str) -> None:
    with pytest.raises(ValueError, match="finality is"):
        ChainClient("http://127.0.0.1:9", finality=finality)


def test_one_node_agrees_with_itself(anvil_url: str, world: World) -> None:
    pool_id = world.open(world.terms(), 1_000_000)
    latest = world.client.block("latest")
    assert latest is not None
    client = ChainClient(anvil_url)
    assert client.agreed_block(latest.number) == latest
    assert client.agreed_block(latest.number + 1_000) is None
    opened, *_ = client.agreed_logs(world.contract.address, latest.number, latest.number)
    assert opened.pool_id == pool_id  # type: ignore[attr-defined]
    assert client.agreed_receipt(opened.place.transaction_hash) == client.receipt(opened.place.transaction_hash)
    assert client.agreed_nonce(world.relayer.address, latest.number) == world.client.nonce(world.relayer.address)


# ---------------------------------------------------------------------- several nodes


class Clock:
    """Monotonic seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Several:
    """Proxies before one chain, a client that takes them for as many nodes, and its clock."""

    proxies: list[RpcProxy]
    clock: Clock
    client: ChainClient
    truth: ChainClient

    def calls(self, method: str) -> list[int]:
        """How often each node was asked this."""
        return [proxy.calls[method] for proxy in self.proxies]


def secret_url(proxy: RpcProxy) -> str:
    return proxy.url.replace("http://", "http://me:hunter2-and-3@") + SECRET_PATH


@contextmanager
def several(upstreams: list[str], truth: ChainClient, **options: Any) -> Iterator[Several]:
    with ExitStack() as stack:
        proxies = [stack.enter_context(RpcProxy(upstream)) for upstream in upstreams]
        clock = Clock()
        urls = " , ".join(secret_url(proxy) for proxy in proxies)
        client = ChainClient(urls, options.pop("timeout", 5), clock=clock, **options)
        yield Several(proxies, clock, client, truth)


@pytest.fixture
def two(anvil_url: str, world: World) -> Iterator[Several]:
    with several([anvil_url] * 2, world.client) as made:
        yield made


@pytest.fixture
def three(anvil_url: str, world: World) -> Iterator[Several]:
    with several([anvil_url] * 3, world.client) as made:
        yield made


@pytest.fixture
def other_chain(tmp_path: Path) -> Iterator[str]:
    """A node of another chain."""
    with nodes.anvil(tmp_path, chain_id=1337) as url:
        yield url


@pytest.fixture
def other_branch(tmp_path: Path) -> Iterator[str]:
    """A node with our chain's id and blocks of its own."""
    with nodes.anvil(tmp_path) as url:
        ChainClient(url).request("anvil_mine", ["0x200"])
        yield url


@pytest.fixture
def still(world: World) -> Iterator[None]:
    """Nothing is mined."""
    world.client.request("evm_setAutomine", [False])
    yield
    world.client.request("evm_setAutomine", [True])


@pytest.fixture
def sender(world: World) -> LocalSigner:
    signer = LocalSigner(secrets.token_bytes(32))
    world.client.request("anvil_setBalance", [signer.address, hex(10**20)])
    return signer


def signed(sender: LocalSigner, *, max_fee: int = 100 * 10**9, tip: int = 10**9) -> bytes:
    return sender.sign_transaction(TransactionFields(31337, 0, PROVIDERS[0], b"", 30_000, max_fee, tip)).raw


FAULTS: dict[str, dict[str, Any]] = {
    "refuse": {},
    "reset": {},
    "garbage": {},
    "status": {"status": 503},
    "status 429": {"status": 429},
    "error": {"code": -32005, "message": "limit exceeded"},
    "drop_response": {},
}


def spoil(proxy: RpcProxy, fault: str, **more: Any) -> None:
    proxy.fault(fault.split(maxsplit=1)[0], **FAULTS[fault], **more)


# ---------------------------------------------------------------------- who is asked


@pytest.mark.parametrize("fault", FAULTS)
def test_the_next_node_answers_when_the_first_does_not(two: Several, fault: str) -> None:
    first, _ = two.proxies
    assert two.client.block(0) == two.truth.block(0)
    assert two.calls("eth_getBlockByNumber") == [1, 0]
    spoil(first, fault)
    assert two.client.block(0) == two.truth.block(0)
    asked = two.calls("eth_getBlockByNumber")
    assert asked[1] == 1
    for _ in range(3):
        assert two.client.block(0) == two.truth.block(0)
    assert two.calls("eth_getBlockByNumber") == [asked[0], 4], "the first is left alone"
    first.clear()
    two.clock.now += nodes_room.FIRST_REST_SECONDS
    assert two.client.block(0) == two.truth.block(0)
    assert two.calls("eth_getBlockByNumber") == [asked[0] + 1, 4], "and asked again when it has rested"


def test_a_node_that_hangs_is_given_up_after_the_timeout(anvil_url: str, world: World) -> None:
    with several([anvil_url] * 2, world.client, timeout=0.3) as two:
        two.proxies[0].fault("hang", method="eth_getBlockByNumber")
        assert two.client.block(0) == world.client.block(0)
        assert two.client.block(0) == world.client.block(0)
        assert two.calls("eth_getBlockByNumber") == [1, 2]


def test_a_node_that_stays_away_is_tried_ever_more_rarely(two: Several) -> None:
    two.proxies[0].fault("status")
    tried, start = [], two.clock.now
    for _ in range(400):
        before = sum(two.proxies[0].calls.values())
        assert int(two.client.request("eth_gasPrice"), 16) > 0
        if sum(two.proxies[0].calls.values()) > before:
            tried.append(two.clock.now - start)
        two.clock.now += 0.5
    pauses = [after - before for before, after in pairwise(tried)]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0, 30.0]
    assert two.calls("eth_gasPrice")[1] == 400


def test_one_at_a_time_tries_whether_a_node_is_back(two: Several) -> None:
    first = two.proxies[0]
    first.fault("status", method="eth_gasPrice", times=1)
    first.fault("hang", method="eth_gasPrice")
    assert int(two.client.request("eth_gasPrice"), 16) > 0
    two.clock.now += nodes_room.FIRST_REST_SECONDS
    with ThreadPoolExecutor(1) as pool:
        tries = pool.submit(two.client.request, "eth_gasPrice")
        first.wait("hang")
        assert int(two.client.request("eth_gasPrice"), 16) > 0
        assert two.calls("eth_gasPrice") == [2, 2]
        first.clear()
        assert int(tries.result(), 16) > 0


def test_when_nobody_answers_all_are_asked_and_named_by_number(two: Several) -> None:
    spoil(two.proxies[0], "status")
    spoil(two.proxies[1], "garbage")
    for _ in range(3):
        with pytest.raises(ChainUnavailable) as caught:
            two.client.block(0)
        told = str(caught.value)
        assert "node 1: eth_getBlockByNumber: HTTPError" in told
        assert "node 2: eth_getBlockByNumber: JSONDecodeError" in told
    two.proxies[1].clear()
    assert two.client.block(0) == two.truth.block(0), "without waiting for a rest to end"


def test_a_refusal_and_a_revert_are_answers(two: Several, world: World) -> None:
    with pytest.raises(ChainRefused, match="Method not found"):
        two.client.request("eth_nothing")
    with pytest.raises(ChainReverted, match="NoSuchPool"):
        BudgetPool(two.client, world.contract.address).pool(b"\x00" * 32)
    assert (two.calls("eth_nothing"), two.calls("eth_call")) == ([1, 0], [1, 0])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (-32005, "limit exceeded"),
        (-32005, "slow down"),
        (-32005, "daily request count exceeded, request rate limited"),
        (429, "Your app has exceeded its compute units per second capacity"),
        (-32000, "Too Many Requests"),
        (-32016, "over rate limit"),
    ],
)
def test_too_many_requests_is_no_answer(two: Several, code: int, message: str) -> None:
    two.proxies[0].fault("error", method="eth_gasPrice", code=code, message=message)
    assert int(two.client.request("eth_gasPrice"), 16) > 0
    assert two.calls("eth_gasPrice") == [1, 1]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (-32005, "query returned more than 10000 results"),
        (-32600, "block range is too large"),
        (-32000, "exceeds block gas limit"),
    ],
)
def test_too_much_asked_for_is_an_answer(two: Several, code: int, message: str) -> None:
    two.proxies[0].fault("error", method="eth_getLogs", code=code, message=message)
    with pytest.raises(ChainRefused, match=message):
        two.client.logs(PROVIDERS[0], 0, 1)
    assert two.calls("eth_getLogs") == [1, 0]


def test_a_node_that_fell_behind_is_not_asked_first(two: Several) -> None:
    first, _ = two.proxies
    first.fault("stale")
    two.truth.request("anvil_mine", [hex(nodes_room.MAX_LAG_BLOCKS)])
    behind = two.truth.block()
    assert behind is not None
    seen = two.client.block()
    assert seen is not None
    assert seen.number == behind.number - nodes_room.MAX_LAG_BLOCKS, "that much may be"
    two.truth.request("anvil_mine", ["0x1"])
    two.clock.now += nodes_room.SURVEY_SECONDS
    assert two.client.block() == two.truth.block()
    spoil(two.proxies[1], "status")
    assert two.client.block() == seen, "better than nothing"
    two.proxies[1].clear()
    first.clear()
    two.clock.now += nodes_room.SURVEY_SECONDS
    asked = two.calls("eth_getBlockByNumber")[0]
    assert two.client.block() == two.truth.block()
    assert two.calls("eth_getBlockByNumber")[0] == asked + 1


def test_a_node_of_another_chain_is_never_used(
    other_chain: str, anvil_url: str, world: World, sender: LocalSigner
) -> None:
    with several([other_chain, anvil_url], world.client, chain_id=31337) as two:
        assert two.client.chain_id() == 31337
        assert two.client.send_raw(signed(sender)).outcome is SendOutcome.OK
        assert two.client.block() == world.client.block()
        assert set(two.proxies[0].calls) == {"eth_chainId"}
        with pytest.raises(ChainUnavailable, match="node 1: it serves chain 1337, not 31337"):
            two.client.agreed_block(0)
        two.proxies[0].upstream = anvil_url
        two.proxies[0].cut_all()
        two.clock.now += nodes_room.LONGEST_REST_SECONDS
        assert two.client.block() == world.client.block()
        assert two.calls("eth_getBlockByNumber")[0] == 1, "moved to our chain, it is used"


def test_the_chain_is_checked_once(two: Several) -> None:
    two.client.expect_chain(31337)
    for _ in range(5):
        two.client.block(0)
        two.client.agreed_block(0)
    assert two.calls("eth_chainId") == [1, 1]


def test_nobody_of_our_chain_is_nobody(other_chain: str, world: World, sender: LocalSigner) -> None:
    with several([other_chain], world.client, chain_id=31337) as one:
        with pytest.raises(ChainUnavailable, match="it serves chain 1337, not 31337"):
            one.client.block()
        sent = one.client.send_raw(signed(sender))
        assert (sent.outcome, set(one.proxies[0].calls)) == (SendOutcome.UNKNOWN, {"eth_chainId"})


def test_without_an_order_the_first_answer_names_the_chain(other_chain: str, anvil_url: str, world: World) -> None:
    with several([anvil_url, other_chain], world.client) as two:
        assert two.client.chain_id() == 31337
        spoil(two.proxies[0], "status")
        with pytest.raises(ChainUnavailable, match="node 2: it serves chain 1337, not 31337"):
            two.client.block()


def test_one_address_twice_is_one_node(anvil_url: str) -> None:
    with RpcProxy(anvil_url) as proxy:
        client = ChainClient(f"{proxy.url},{proxy.url}, ,")
        assert client.agreed_block(0) is not None
        assert proxy.calls["eth_getBlockByNumber"] == 1
    with pytest.raises(ValueError, match="names no node"):
        ChainClient(" , ")


def mined(world: World, blocks: int) -> None:
    """Let the chain have so many blocks, or more."""
    missing = blocks - int(world.client.request("eth_blockNumber"), 16)
    if missing > 0:
        world.client.request("anvil_mine", [hex(missing)])


def test_the_newest_block_is_one_nodes_word_and_what_is_behind_is_not_asked_first(anvil_url: str, world: World) -> None:
    mined(world, 100)
    with several([anvil_url] * 2, world.client, finality="finalized") as two:
        two.proxies[0].fault("stale", at=0)
        assert two.client.tiers().latest == world.client.block()


@pytest.mark.parametrize("liar", [1, 2])
def test_final_is_what_two_call_so(anvil_url: str, world: World, monkeypatch: pytest.MonkeyPatch, liar: int) -> None:
    """One of two nodes calls its newest block final."""
    mined(world, 100)
    honest = ChainClient(anvil_url, finality="finalized").tiers()
    asked = Node.request

    def request(node: Node, method: str, params: Any = ()) -> Any:
        if node.number == liar and method == "eth_getBlockByNumber" and params[0] in ("finalized", "safe"):
            params = ("latest", *params[1:])
        return asked(node, method, params)

    monkeypatch.setattr(Node, "request", request)
    with several([anvil_url] * 2, world.client, finality="finalized") as two:
        assert two.client.tiers() == two.client.agreed_tiers() == honest
        assert honest.final.number < honest.latest.number


@pytest.mark.parametrize(("away", "fault"), [(0, "status"), (1, "status"), (1, "error")])
def test_while_one_of_two_is_away_nothing_is_final(anvil_url: str, world: World, away: int, fault: str) -> None:
    mined(world, 100)
    with several([anvil_url] * 2, world.client, finality="finalized") as two:
        two.proxies[away].fault(fault, method="eth_getBlockByNumber")
        seen = two.client.tiers()
        assert (seen.latest, seen.safe, seen.final) == (world.client.block(), *[world.client.block(0)] * 2)
        with pytest.raises(ChainUnconfirmed, match="two nodes must say so, and one answered"):
            two.client.agreed_tiers()
        two.proxies[away].clear()
        two.clock.now += nodes_room.CONFIRM_REST_SECONDS
        assert two.client.tiers() == two.client.agreed_tiers() == ChainClient(anvil_url, finality="finalized").tiers()


def test_of_three_any_two_say_what_is_final(anvil_url: str, world: World) -> None:
    mined(world, 100)
    with several([anvil_url] * 3, world.client, finality="finalized") as three:
        three.proxies[1].fault("status", method="eth_getBlockByNumber")
        assert three.client.agreed_tiers() == ChainClient(anvil_url, finality="finalized").tiers()


def test_many_threads_while_a_node_comes_and_goes(two: Several) -> None:
    truth, failures = two.truth.block(0), []
    two.proxies[0].fault("reset", method="eth_getBlockByNumber", times=50)

    def read() -> None:
        for _ in range(50):
            two.clock.now += 0.1
            if two.client.block(0) != truth:
                failures.append("another block")

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(read) for _ in range(8)]:
            done.result()
    assert failures == []
    assert sum(two.calls("eth_getBlockByNumber")) == 400 + two.proxies[0].met("reset")


# ---------------------------------------------------------------------- what two must say alike


@pytest.fixture
def opened(world: World) -> PoolOpened:
    """A log that there is."""
    pool_id = world.open(world.terms(), 1_000_000)
    found = world.client.logs(world.contract.address, 0, "latest")
    return next(event for event in found if isinstance(event, PoolOpened) and event.pool_id == pool_id)


def ask_all(client: ChainClient, world: World, opened: PoolOpened) -> dict[str, Callable[[], object]]:
    """Every question that needs two answers, about the block of a log."""
    place = opened.place
    return {
        "block": lambda: client.agreed_block(place.block_number),
        "logs": lambda: client.agreed_logs(world.contract.address, place.block_number, place.block_number),
        "receipt": lambda: client.agreed_receipt(place.transaction_hash),
        "nonce": lambda: client.agreed_nonce(world.relayer.address, place.block_number),
    }


def test_two_that_say_the_same(two: Several, world: World, opened: PoolOpened) -> None:
    single = ask_all(world.client, world, opened)
    for name, ask in ask_all(two.client, world, opened).items():
        assert ask() == single[name](), name
    assert [sum(proxy.calls.values()) for proxy in two.proxies] == [6, 6]


@pytest.mark.parametrize(("nodes", "asked"), [(1, [0]), (2, [1, 1])])
def test_a_receipt_that_was_just_seen_is_asked_for_again_only_where_somebody_else_can_say_so(
    anvil_url: str, world: World, opened: PoolOpened, nodes: int, asked: list[int]
) -> None:
    with several([anvil_url] * nodes, world.client) as some:
        seen = world.client.receipt(opened.place.transaction_hash)
        assert some.client.agreed_receipt(opened.place.transaction_hash, seen=seen) == seen
        assert some.calls("eth_getTransactionReceipt") == asked


LIES: list[tuple[str, dict[str, Any], str]] = [
    ("receipt", {"says": "null"}, "receipt"),
    ("receipt", {"says": "success"}, "receipt"),
    ("receipt", {"says": "flip"}, "receipt"),
    ("logs", {}, "logs"),
    ("logs", {"without": 0}, "logs"),
    ("nonce", {"by": 1}, "nonce"),
    ("nonce", {"by": -1}, "nonce"),
    ("stale", {"at": 0}, "block"),
    ("stale", {"at": 0}, "logs"),
    ("stale", {"at": 0}, "receipt"),
]


@pytest.mark.parametrize("liar", [0, 1])
@pytest.mark.parametrize(("kind", "how", "question"), LIES)
def test_one_of_two_lies(
    two: Several, world: World, opened: PoolOpened, liar: int, kind: str, how: dict[str, Any], question: str
) -> None:
    two.proxies[liar].fault(kind, **how)
    with pytest.raises(ChainDisagreement, match=r"nodes [12] and [12] disagree"):
        ask_all(two.client, world, opened)[question]()
    assert two.proxies[liar].met(kind) >= 1
    two.proxies[liar].clear()
    assert ask_all(two.client, world, opened)[question]() == ask_all(world.client, world, opened)[question]()


@pytest.mark.parametrize(("kind", "how", "question"), LIES)
def test_one_of_three_lies_and_is_outvoted(
    three: Several, world: World, opened: PoolOpened, kind: str, how: dict[str, Any], question: str
) -> None:
    three.proxies[0].fault(kind, **how)
    assert ask_all(three.client, world, opened)[question]() == ask_all(world.client, world, opened)[question]()


def test_two_lagging_nodes_do_not_agree_that_there_are_no_logs(two: Several, world: World, opened: PoolOpened) -> None:
    for proxy in two.proxies:
        proxy.fault("stale", at=0)
    number = opened.place.block_number
    assert two.client.logs(world.contract.address, number, number) == []
    with pytest.raises(ChainUnavailable, match=f"there is no block {number} yet"):
        two.client.agreed_logs(world.contract.address, number, number)


def test_another_branch_is_another_chain(other_branch: str, anvil_url: str, world: World, opened: PoolOpened) -> None:
    with several([anvil_url, other_branch], world.client, chain_id=31337) as two:
        questions = ask_all(two.client, world, opened)
        for question in ("block", "logs", "receipt", "nonce"):
            with pytest.raises(ChainDisagreement):
                questions[question]()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("away", [0, 1])
def test_money_waits_while_one_of_two_is_away(
    two: Several, world: World, opened: PoolOpened, fault: str, away: int
) -> None:
    spoil(two.proxies[away], fault)
    for question, ask in ask_all(two.client, world, opened).items():
        with pytest.raises(
            ChainUnavailable, match=f"two nodes must agree, and one answered .node {away + 1}: "
        ) as caught:
            ask()
        assert not isinstance(caught.value, ChainDisagreement), question
    two.proxies[away].clear()
    two.clock.now += nodes_room.CONFIRM_REST_SECONDS
    assert two.client.agreed_block(0) == world.client.block(0), "soon after it is back, however long it was away"


def test_a_node_that_just_failed_is_not_waited_for_again(anvil_url: str, world: World) -> None:
    with several([anvil_url] * 2, world.client, timeout=0.3) as two:
        two.proxies[1].fault("hang", method="eth_getBlockByNumber")
        for _ in range(20):
            with pytest.raises(ChainUnconfirmed, match="node 2: eth_getBlockByNumber: ReadTimeout"):
                two.client.agreed_block(0)
        assert two.proxies[1].met("hang") == 1
        for _ in range(12):
            two.clock.now += nodes_room.LONGEST_REST_SECONDS
            with pytest.raises(ChainUnconfirmed):
                two.client.agreed_block(0)
        two.proxies[1].clear()
        two.clock.now += nodes_room.CONFIRM_REST_SECONDS
        assert two.client.agreed_block(0) == world.client.block(0)


def test_nobody_confirms_what_nobody_says(two: Several) -> None:
    for proxy in two.proxies:
        spoil(proxy, "status")
    with pytest.raises(ChainUnavailable) as caught:
        two.client.agreed_block(0)
    assert not isinstance(caught.value, ChainUnconfirmed)


def test_two_of_three_are_enough(three: Several, world: World, opened: PoolOpened) -> None:
    spoil(three.proxies[1], "refuse")
    single = ask_all(world.client, world, opened)
    for name, ask in ask_all(three.client, world, opened).items():
        assert ask() == single[name](), name


def test_a_refusal_is_passed_on_unless_it_is_outvoted(two: Several, three: Several, world: World) -> None:
    for several_nodes in (two, three):
        several_nodes.proxies[0].fault("error", method="eth_getLogs", code=-32005, message="query returned more than 9")
    with pytest.raises(ChainRefused, match="query returned more than 9"):
        two.client.agreed_logs(world.contract.address, 0, 1)
    assert three.client.agreed_logs(world.contract.address, 0, 1) == world.client.logs(world.contract.address, 0, 1)


# ---------------------------------------------------------------------- broadcasts


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "drop_response"])
def test_a_broadcast_goes_to_the_next_node(
    two: Several, world: World, sender: LocalSigner, still: None, fault: str
) -> None:
    spoil(two.proxies[0], fault)
    sent = two.client.send_raw(signed(sender))
    assert (sent.outcome, two.calls("eth_sendRawTransaction")[1]) == (SendOutcome.OK, 1)
    world.client.request("anvil_mine", [1])
    assert (world.client.nonce(sender.address), world.client.receipt(sent.transaction_hash) is None) == (1, False)


def test_one_node_that_has_it_is_enough(two: Several, sender: LocalSigner, still: None) -> None:
    assert two.client.send_raw(signed(sender)).outcome is SendOutcome.OK
    assert two.calls("eth_sendRawTransaction") == [1, 0]


def test_an_answer_that_is_lost_is_found_out_from_the_next_node(
    two: Several, world: World, sender: LocalSigner, still: None
) -> None:
    two.proxies[0].fault("drop_response", method="eth_sendRawTransaction", times=1)
    assert two.client.send_raw(signed(sender)).outcome is SendOutcome.ALREADY_KNOWN
    assert two.client.send_raw(signed(sender)).outcome is SendOutcome.ALREADY_KNOWN
    world.client.request("anvil_mine", [1])
    assert world.client.nonce(sender.address) == 1
    two.clock.now += nodes_room.LONGEST_REST_SECONDS
    assert two.client.send_raw(signed(sender)).outcome in (SendOutcome.NONCE_TOO_LOW, SendOutcome.ALREADY_KNOWN)


def test_what_a_node_swallowed_goes_to_another_when_it_is_sent_again(
    two: Several, world: World, sender: LocalSigner, still: None
) -> None:
    two.proxies[0].fault("swallow")
    sent = two.client.send_raw(signed(sender))
    assert sent.outcome is SendOutcome.OK
    assert world.client.transaction(sent.transaction_hash) is None
    assert two.client.send_raw(signed(sender)).outcome is SendOutcome.OK
    assert two.calls("eth_sendRawTransaction") == [1, 1]
    world.client.request("anvil_mine", [1])
    assert world.client.nonce(sender.address) == 1
    assert two.client.send_raw(signed(sender)).outcome is SendOutcome.OK, (
        "and from the start again, the swallower first"
    )
    assert two.calls("eth_sendRawTransaction") == [2, 1]


def test_what_is_sent_twice_is_mined_once(two: Several, world: World, sender: LocalSigner, still: None) -> None:
    two.proxies[0].fault("dup", times=1)
    assert two.client.send_raw(signed(sender)).outcome is SendOutcome.OK
    world.client.request("anvil_mine", [1])
    assert (world.client.nonce(sender.address), two.proxies[0].met("dup")) == (1, 1)


def test_nobody_to_send_to_is_an_outcome(two: Several, sender: LocalSigner) -> None:
    spoil(two.proxies[0], "refuse")
    spoil(two.proxies[1], "garbage")
    sent = two.client.send_raw(signed(sender))
    assert (sent.outcome, len(sent.transaction_hash)) == (SendOutcome.UNKNOWN, 66)


KNOWLEDGE = [
    ("already known", SendOutcome.ALREADY_KNOWN),
    ("nonce too low", SendOutcome.NONCE_TOO_LOW),
    ("replacement transaction underpriced", SendOutcome.UNDERPRICED),
    ("insufficient funds for gas * price + value", SendOutcome.UNFUNDED),
    ("intrinsic gas too low", SendOutcome.REFUSED),
    ("txpool is full", SendOutcome.UNKNOWN),
]


@pytest.mark.parametrize(("more", "less"), list(combinations(range(len(KNOWLEDGE)), 2)))
@pytest.mark.parametrize("turned", [False, True])
def test_the_most_knowing_answer_counts(
    two: Several, sender: LocalSigner, more: int, less: int, *, turned: bool
) -> None:
    said = [KNOWLEDGE[more][0], KNOWLEDGE[less][0]]
    for proxy, message in zip(two.proxies, reversed(said) if turned else said, strict=True):
        proxy.fault("error", method="eth_sendRawTransaction", message=message)
    sent = two.client.send_raw(signed(sender))
    assert (sent.outcome, sent.detail) == (KNOWLEDGE[more][1], KNOWLEDGE[more][0])


# ---------------------------------------------------------------------- secrets


@pytest.mark.parametrize("fault", [*FAULTS, "hang", "echo"])
def test_no_url_is_in_an_error_or_a_log_line(
    anvil_url: str, world: World, sender: LocalSigner, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    caplog.set_level(logging.DEBUG)
    with several([anvil_url] * 2, world.client, timeout=0.3) as two:
        told = []
        for proxy in two.proxies:
            if fault == "echo":
                proxy.fault(
                    "error", code=-32001, message=f"no project at {secret_url(proxy)}: {SECRET_PATH[4:]} is unknown"
                )
            elif fault == "hang":
                proxy.fault("hang")
            else:
                spoil(proxy, fault)
        for ask in (two.client.block, two.client.tiers, lambda: two.client.agreed_block(0)):
            with pytest.raises(ChainError) as caught:
                ask()
            told += [str(caught.value), repr(caught.value), "".join(traceback.format_exception(caught.value))]
        told += [two.client.send_raw(signed(sender)).detail, repr(two.client), repr(vars(two.client)), caplog.text]
    for secret in ("hunter2", "an-api-key", "127.0.0.1"):
        assert not [text for text in told if secret in text]
