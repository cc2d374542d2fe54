"""Rows 12 to 17: the node answers late, wrongly or not at all, or takes what it did not say it took. One payment comes of it.

The relay asks through a proxy that fails as it is told (`marketplace.management.faults`); what the chain has is asked past it.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from escrow.chain.client import ChainClient
from escrow.models import Attempt, Batch, ChainAction, Party, Payment, SignerNonce
from marketplace.management.faults.rpc_proxy import RpcProxy
from tests.faults.conftest import check_books, check_paid_once
from tests.onchain.conftest import Chain, books, party

DEPOSIT, PRICE = 1_000_000, 300_000
TIMEOUT = 0.3
SEND = "eth_sendRawTransaction"
FULL = bool(os.environ.get("FULL"))
Status = ChainAction.Status


@dataclass
class Line:
    """A chain whose relay reaches its node through a proxy, with a debt that is signed and planned to be sent."""

    chain: Chain
    proxy: RpcProxy
    lint: Party
    through: ChainClient
    beside: ChainClient
    """The same with a second node that is honest."""

    def settling(self) -> ChainAction:
        return ChainAction.objects.get(kind="settle")

    def attempts(self) -> list[Attempt]:
        return list(Attempt.objects.filter(action__kind="settle").order_by("pk"))

    def ends(self, client: ChainClient) -> None:
        """Relay by way of a client until everything has ended, and see that it was paid once."""
        honest, self.chain.client = self.chain.client, client
        self.chain.quiet()
        self.chain.client = honest
        check_paid_once(self.chain, {self.lint: PRICE})
        check_books(self.chain)


@pytest.fixture
def line(chain: Chain, settings: Any) -> Iterator[Line]:
    lint = party("lint")
    session = chain.session(chain.open_pool(DEPOSIT, providers=(lint,)), DEPOSIT)
    chain.pay(session, lint, PRICE)
    assert chain.settle() == 1
    with RpcProxy(settings.RPC_URL) as proxy:
        through = ChainClient(proxy.url, TIMEOUT, finality=1)
        yield Line(chain, proxy, lint, through, ChainClient(f"{proxy.url},{settings.RPC_URL}", TIMEOUT, finality=1))


# --- 12: no answer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hang", "status", "error", "garbage", "reset"] if FULL else ["hang", "garbage"])
def test_a_node_that_does_not_answer_leaves_the_same_bytes_to_be_sent_again(line: Line, kind: str) -> None:
    line.proxy.fault(kind, method=SEND)
    before = books()
    for _ in range(2):
        line.chain.relay(line.through)
    (attempt,) = line.attempts()
    assert (line.settling().status, attempt.outcome) == (Status.SIGNED, "unknown")
    assert line.proxy.met(kind) >= 2  # the same bytes each time: there is one attempt
    assert books() == before
    line.proxy.clear()
    line.ends(line.through)
    assert [one.tx_hash for one in line.attempts()] == [attempt.tx_hash]


@pytest.mark.parametrize("kind", ["hang", "status", "refuse"] if FULL else ["refuse"])
def test_a_second_node_is_asked_when_the_first_does_not_answer_and_nothing_is_final_on_its_word_alone(
    line: Line, kind: str
) -> None:
    line.proxy.fault(kind)
    for _ in range(3):
        line.chain.relay(line.beside)
    (attempt,) = line.attempts()
    assert attempt.outcome in ("ok", "already_known")
    assert line.chain.client.receipt(attempt.tx_hash) is not None
    assert line.settling().status in (Status.BROADCAST, Status.MINED)
    line.proxy.clear()
    line.ends(line.beside)
    assert len(line.attempts()) == 1


def test_a_node_that_is_away_changes_nothing_until_it_is_back(line: Line) -> None:
    line.proxy.fault("refuse")
    before = books()
    assert line.chain.relay(line.through) == 0
    assert (line.settling().status, line.settling().nonce, books()) == (Status.PLANNED, None, before)
    line.proxy.clear()
    line.ends(line.through)


# --- 13, 14, 17: what became of a send -----------------------------------------------------------------------------


def test_a_send_that_was_taken_and_whose_answer_is_lost_is_one_payment(line: Line) -> None:
    line.proxy.fault("drop_response", method=SEND, times=1)
    line.chain.relay(line.through)
    assert (line.proxy.met("drop_response"), line.attempts()[0].outcome) == (1, "unknown")
    line.ends(line.through)
    assert len(line.attempts()) == 1


def test_a_send_that_a_node_swallows_is_sent_until_it_is_seen(line: Line) -> None:
    line.proxy.fault("swallow")
    for _ in range(3):
        line.chain.relay(line.through)
    assert (line.settling().status, line.attempts()[0].outcome) == (Status.BROADCAST, "ok")  # so the node says
    assert line.chain.client.transaction(line.attempts()[0].tx_hash) is None
    line.proxy.clear()
    line.ends(line.through)
    assert line.proxy.met("swallow") >= 3
    assert len(line.attempts()) == 1


def test_a_send_that_a_node_makes_twice_is_one_payment(line: Line) -> None:
    line.proxy.fault("dup")
    line.ends(line.through)
    assert line.proxy.met("dup") >= 1
    assert len(line.attempts()) == 1


# --- 15: lies about the nonce --------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [-3, 5])
def test_a_node_that_lies_about_the_nonce_is_not_asked(line: Line, by: int) -> None:
    relayer = line.chain.keyring.relayer(0).address
    ours = SignerNonce.objects.get(address=relayer).next_nonce
    line.proxy.fault("nonce", by=by)
    line.ends(line.through)
    assert line.proxy.calls[SEND] == 1  # it was asked to take what has that nonce, and by nobody what the nonce is
    assert (line.proxy.calls["eth_getTransactionCount"], line.proxy.met("nonce")) == (0, 0)
    assert line.settling().nonce == ours
    assert SignerNonce.objects.get(address=relayer).stopped_reason == ""


def test_one_node_s_word_that_a_nonce_was_used_stops_no_signer(line: Line, settings: Any) -> None:
    line.chain.client.request("anvil_mine", ["0xa"])  # deep enough for a nonce to count as used
    line.proxy.fault("nonce", by=5)
    line.proxy.fault("error", method=SEND, message="nonce too low")
    with RpcProxy(settings.RPC_URL) as honest:
        # It takes nothing now, or nobody would be asked about the nonce; but it answers, and is asked again.
        honest.fault("error", method=SEND, message="txpool is full")
        both = ChainClient(f"{line.proxy.url},{honest.url}", TIMEOUT, finality=1)
        before = books()
        for _ in range(3):
            line.chain.relay(both)
        assert [one.outcome for one in line.attempts()] == ["nonce_too_low"]
        assert line.proxy.met("nonce") >= 1
        assert honest.calls["eth_getTransactionCount"] >= 1
        assert not SignerNonce.objects.exclude(stopped_reason="").exists()
        assert (line.settling().status, books()) == (Status.SIGNED, before)
        honest.clear()
        line.proxy.clear()
        line.ends(both)
    assert not SignerNonce.objects.exclude(stopped_reason="").exists()
    assert line.settling().status == Status.FINAL
    assert len(line.attempts()) == 1


# --- 16: lies about the receipt ------------------------------------------------------------------------------------


def test_a_receipt_that_a_node_withholds_is_waited_for(line: Line) -> None:
    line.proxy.fault("receipt", says="null")
    for _ in range(4):
        line.chain.relay(line.through)
    assert line.settling().status == Status.BROADCAST
    assert line.chain.client.receipt(line.attempts()[0].tx_hash) is not None  # mined long ago
    assert line.proxy.met("receipt") >= 1
    line.proxy.clear()
    line.ends(line.through)
    assert len(line.attempts()) == 1


def test_a_receipt_in_a_block_that_there_is_not_is_not_believed(line: Line) -> None:
    line.proxy.fault("swallow")
    line.proxy.fault("receipt", says="success")
    for _ in range(4):
        line.chain.relay(line.through)
        line.chain.index()
    assert line.proxy.met("receipt") >= 1
    assert line.settling().status == Status.BROADCAST
    check_paid_once(line.chain, {})  # nothing has happened, and nothing is said to have
    line.proxy.clear()
    line.ends(line.through)


def test_a_success_that_one_node_calls_a_failure_is_not_final_until_two_agree(line: Line, settings: Any) -> None:
    line.proxy.fault("receipt", says="flip")
    for _ in range(4):
        line.chain.relay(line.beside)
    assert line.proxy.met("receipt") >= 1
    assert line.settling().status in (Status.BROADCAST, Status.MINED, Status.SAFE)
    line.proxy.clear()
    line.ends(line.beside)
    assert line.settling().status == Status.FINAL


def test_a_log_that_one_node_leaves_out_is_taken_when_two_agree(line: Line) -> None:
    line.proxy.fault("logs", without=-1)
    for _ in range(4):
        line.chain.relay(line.beside)
        line.chain.client, honest = line.beside, line.chain.client
        line.chain.index()
        line.chain.client = honest
    landed = line.chain.client.receipt(line.attempts()[0].tx_hash)
    assert landed is not None
    assert line.proxy.met("logs") >= 1
    assert line.chain.cursor() < landed.block_number  # where the two differ, it waits
    assert (Batch.objects.get().status, Payment.objects.get().status) == ("signed", "settling")
    line.proxy.clear()
    line.ends(line.beside)
