"""Ledger and chain with two nodes, one of which is away or lies: what is final waits, all else goes on, and nobody loses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings

from escrow import ledger, pausing, pools
from escrow.chain import contract, deploy
from escrow.chain.client import ChainClient
from escrow.chain.nodes import Node
from escrow.models import Attempt, ChainAction, ChainCursor, ChainLog, Party, Session, SignerNonce
from marketplace.management.faults.rpc_proxy import RpcProxy
from tests.onchain.conftest import PATIENCE_SECONDS, Chain, books
from tests.onchain.test_reorgs import reorg
from tests.onchain.towns import mine, mine_what_is_sent, settlements, settling, sweep

Status = ChainAction.Status


@pytest.fixture
def nodes(chain: Chain) -> Iterator[list[RpcProxy]]:
    with RpcProxy(settings.RPC_URL) as first, RpcProxy(settings.RPC_URL) as second:
        yield [first, second]


@pytest.fixture
def doubled(chain: Chain, nodes: list[RpcProxy]) -> Chain:
    """The same chain, asked by way of two nodes."""
    client = ChainClient(",".join(node.url for node in nodes), timeout=2, chain_id=31337, clock=Leap())
    return replace(chain, client=client)


class Leap:
    """A clock on which every rest is over at the next look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 60.0
        return self.now


@pytest.fixture
def owing(chain: Chain, lint: Party) -> Session:
    """A session that owes a provider 0.30, in a batch whose chain action is planned."""
    pool = chain.open_pool(1_000_000, providers=(lint,))
    session = chain.session(pool, 1_000_000)
    chain.quiet()
    chain.pay(session, lint, 300_000)
    assert chain.settle() == 1
    return session


def wait_mined(chain: Chain) -> None:
    """Until the batch is in a block, whoever may be told of it."""
    attempt = Attempt.objects.get(action=settling())
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while chain.client.receipt(attempt.tx_hash) is None:
        assert time.monotonic() < give_up_at, "not mined"


def paid_once(chain: Chain, lint: Party, owing: Session) -> None:
    """Everything comes to its end, and the batch landed once, by the first bytes that were signed for it."""
    chain.quiet()
    assert settlements() == ["final"]
    assert Attempt.objects.filter(action=settling()).count() == 1
    assert ledger.balance(ledger.credited(owing.pool, lint)) == 300_000
    assert chain.contract.line_of(owing.pool.key, lint.address).matured == 300_000
    assert not SignerNonce.objects.exclude(stopped_reason="").exists()
    assert chain.reconcile().exit_code < 2


@pytest.mark.parametrize("fault", ["refuse", "garbage", "status", "reset"])
@pytest.mark.parametrize("which", [0, 1])
def test_one_of_two_is_away(
    chain: Chain, doubled: Chain, nodes: list[RpcProxy], lint: Party, owing: Session, which: int, fault: str
) -> None:
    nodes[which].fault(fault)
    before = books()
    sweep(doubled, 4)
    wait_mined(chain)
    sweep(doubled, 4)
    assert settling().status == Status.MINED, "it was signed, sent and seen"
    assert books() == before, "and moved no money"
    payer_id = uuid4()
    mint = contract.mint_test_usdc(chain.payer_address(payer_id), 1_000_000)
    deploy.send(chain.client, chain.somebody(), chain.token.address, mint)
    pools.open(payer_id=payer_id, deposit_micros=1_000_000, now=chain.now())
    doubled.relay()
    opening = ChainAction.objects.filter(kind="open_pool").latest("pk")
    assert opening.status in (Status.BROADCAST, Status.MINED), "others are signed and sent meanwhile"
    nodes[which].clear()
    paid_once(doubled, lint, owing)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("kind", "how", "reached"),
    [
        ("receipt", {"says": "null"}, {Status.SIGNED, Status.BROADCAST, Status.MINED}),
        ("receipt", {"says": "success"}, {Status.SIGNED, Status.BROADCAST, Status.MINED}),
        ("receipt", {"says": "flip"}, {Status.MINED}),
        ("logs", {}, {Status.FINAL}),
    ],
)
def test_one_of_two_lies(
    chain: Chain,
    doubled: Chain,
    nodes: list[RpcProxy],
    lint: Party,
    owing: Session,
    which: int,
    kind: str,
    how: dict[str, Any],
    reached: set[str],
) -> None:
    nodes[which].fault(kind, **how)
    before = books()
    doubled.relay()
    wait_mined(chain)
    mine(chain, 10)  # deep enough for a nonce to count as used
    for _ in range(4):
        doubled.relay()
        if kind == "logs":  # the ledger goes by logs alone: receipts are the relay's
            doubled.index()
    assert settling().status in reached
    assert books() == before
    assert not SignerNonce.objects.exclude(stopped_reason="").exists()
    assert nodes[which].met(kind) > 0
    nodes[which].clear()
    paid_once(doubled, lint, owing)


@pytest.mark.parametrize("by", [-1, 1, 7])
def test_a_lie_about_the_nonce_changes_no_nonce_and_is_told(
    doubled: Chain, nodes: list[RpcProxy], lint: Party, owing: Session, by: int
) -> None:
    table = SignerNonce.objects.get(address=doubled.keyring.relayer(0).address)
    nodes[0].fault("nonce", by=by)
    doubled.quiet()
    assert settling().nonce == table.next_nonce
    assert SignerNonce.objects.get(pk=table.pk).next_nonce == table.next_nonce + 1
    assert (doubled.reconcile().exit_code < 2) is (by < 0), "more nonces used than are ours is an alarm"
    nodes[0].clear()
    paid_once(doubled, lint, owing)


def test_what_one_of_two_swallows_lands_by_way_of_the_other(
    doubled: Chain, nodes: list[RpcProxy], lint: Party, owing: Session
) -> None:
    nodes[0].fault("swallow")
    paid_once(doubled, lint, owing)
    assert (nodes[0].met("swallow") > 0, nodes[1].calls["eth_sendRawTransaction"] > 0) == (True, True)


@pytest.mark.parametrize("kind", ["drop_response", "dup"])
def test_an_answer_lost_or_a_send_doubled_pays_once(
    doubled: Chain, nodes: list[RpcProxy], lint: Party, owing: Session, kind: str
) -> None:
    for node in nodes:
        node.fault(kind, method="eth_sendRawTransaction", times=1)
    paid_once(doubled, lint, owing)
    assert nodes[0].met(kind) == 1


def test_while_one_of_two_is_away_the_chain_is_not_taken_for_one_that_stands_still(
    doubled: Chain, nodes: list[RpcProxy], owing: Session, lint: Party, settings: Any
) -> None:
    settings.UNSETTLED_MICROS = 300_000
    doubled.index()
    nodes[1].fault("refuse")
    before, begun = ChainCursor.objects.get(), doubled.now()
    doubled.client.request("evm_increaseTime", [360])
    mine(doubled, 1)
    doubled.index()
    after = ChainCursor.objects.get()
    assert (after.block_number, after.read_at) == (before.block_number, before.read_at)  # nothing is final by one alone
    assert not pausing.look(now=begun + timedelta(seconds=360))
    doubled.pay(owing, lint, 1)
    # An indexer that has stopped reads nothing, however far the chain is: that is silence.
    ChainCursor.objects.update(stopped_reason="a person has to look")
    doubled.client.request("evm_increaseTime", [360])
    mine(doubled, 1)
    doubled.index()
    assert ChainCursor.objects.get().head_time == after.head_time
    assert pausing.look(now=begun + timedelta(seconds=720))


def test_what_one_node_alone_calls_final_is_not_final(
    chain: Chain, lint: Party, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two nodes calls its newest block finalized; to the second that one is 64 blocks away."""
    settings.FINALITY, settings.UNSAFE_DEPOSITS_MICROS = "finalized", 0
    mine_what_is_sent(chain)
    mine(chain, 200)
    asked = Node.request

    def request(node: Node, method: str, params: Any = ()) -> Any:
        if node.number == 1 and method == "eth_getBlockByNumber" and params[0] in ("finalized", "safe"):
            params = ("latest", *params[1:])
        return asked(node, method, params)

    monkeypatch.setattr(Node, "request", request)
    chain.client = ChainClient(
        f"{settings.RPC_URL},{settings.RPC_URL}/", finality="finalized", chain_id=settings.CHAIN_ID
    )
    payer = uuid4()
    mint = contract.mint_test_usdc(chain.payer_address(payer), 1_000_000)
    deploy.send(chain.client, chain.somebody(), chain.token.address, mint)
    pool = pools.open(payer_id=payer, deposit_micros=1_000_000, now=chain.now(), providers=(lint,))
    for _ in range(5):
        chain.relay()
        chain.index()
    assert ChainLog.objects.filter(event="PoolOpened").exists()
    taken = pools.balances(chain.fresh(pool)).deposited
    reorg(chain, 1)
    mine(chain, 1)
    chain.index()
    told_final = ChainAction.objects.get(kind="open_pool").status == "final"
    assert (told_final, taken, ChainCursor.objects.get().stopped_reason) == (False, 0, "")
