"""What goes wrong between the ledger and the chain, and that nothing is lost, doubled or guessed."""

import itertools
from datetime import timedelta
from typing import Any

import pytest

from escrow import ledger, receipts
from escrow.chain import contract, deploy, events, merkle
from escrow.chain.client import ChainClient
from escrow.chain.outcomes import SendOutcome, SendResult
from escrow.ledger import Move
from escrow.models import (
    Attempt,
    Batch,
    ChainAction,
    ChainCursor,
    Party,
    Payment,
    Pool,
    Reason,
    Session,
    SignerNonce,
)
from escrow.signing import Signatory, calldata
from tests.onchain.conftest import Chain, books
from tests.onchain.towns import mine, standing_still


class Deaf(ChainClient):
    """A client whose sends are never answered: with `swallow` the node does not even get them."""

    swallow = True

    def send_raw(self, raw: bytes) -> SendResult:
        told = None if self.swallow else super().send_raw(raw)
        return SendResult(SendOutcome.UNKNOWN, told.transaction_hash if told else "", "no answer")


@pytest.fixture
def owing(chain: Chain, lint: Party) -> Session:
    """A session that owes a provider 0.30, in a batch that is signed and not yet sent."""
    pool = chain.open_pool(1_000_000, providers=(lint,))
    session = chain.session(pool, 1_000_000)
    chain.pay(session, lint, 300_000)
    assert chain.settle() == 1
    return session


@pytest.mark.parametrize("swallow", [True, False])
def test_a_send_without_an_answer_is_sent_again_as_the_same_bytes(
    chain: Chain, lint: Party, owing: Session, settings: Any, *, swallow: bool
) -> None:
    deaf = Deaf(settings.RPC_URL)
    deaf.swallow = swallow
    chain.relay(deaf)
    action = ChainAction.objects.get(kind="settle")
    assert Attempt.objects.get(action=action).outcome == SendOutcome.UNKNOWN
    assert action.status == (ChainAction.Status.SIGNED if swallow else ChainAction.Status.FINAL)
    chain.quiet()
    action.refresh_from_db()
    assert action.status == ChainAction.Status.FINAL
    assert Attempt.objects.filter(action=action).count() == 1
    assert ledger.balance(ledger.credited(owing.pool, lint)) == 300_000
    assert chain.contract.line_of(owing.pool.key, lint.address).matured == 300_000
    assert chain.reconcile().exit_code == 0


def test_a_batch_that_its_provider_lands_counts_once(chain: Chain, lint: Party, owing: Session) -> None:
    action, batch = ChainAction.objects.get(kind="settle"), Batch.objects.select_related("pool").get()
    data = receipts.calldata(batch)
    assert data == calldata(action, Signatory(chain.client, chain.keyring), chain.now())
    landed = deploy.send(chain.client, chain.somebody(), chain.contract.address, data)
    chain.until(lambda: Batch.objects.get().status == Batch.Status.SETTLED, "the indexer has seen it")
    batch.refresh_from_db()
    landing = receipts.landings([batch])[batch.pk]
    assert (landing.transaction_hash, landing.block_number) == (landed.transaction_hash, landed.block_number)
    receipt = receipts.prove(payment=Payment.objects.get(), now=chain.now())
    assert receipt.landing == landing
    (told,) = [event for event in landed.events if isinstance(event, events.BatchSettled)]
    assert merkle.verify_proof(told.root, receipt.leaf, receipt.proof)
    chain.relay()
    assert ledger.balance(ledger.credited(owing.pool, lint)) == 300_000
    assert chain.contract.line_of(owing.pool.key, lint.address).matured == 300_000
    assert chain.reconcile().exit_code < 2


def test_an_expired_batch_is_voided_and_settled_anew(chain: Chain, lint: Party, owing: Session) -> None:
    first = Batch.objects.get()
    chain.client.request("evm_increaseTime", [int(timedelta(hours=2).total_seconds())])
    chain.client.request("evm_mine", [])
    assert chain.settle() == 0  # the indexer has not passed the deadline yet: the money is not free
    assert ledger.balance(first.account) == 300_000
    chain.index()
    chain.settle()
    first.refresh_from_db()
    assert first.status == Batch.Status.VOID
    assert ledger.balance(first.account) == 0
    second = Batch.objects.exclude(pk=first.pk).get()
    assert second.first_seq == 1
    assert ledger.balance(second.account) == 300_000
    assert Payment.objects.get().record.batch == second  # type: ignore[union-attr]


def test_a_nonce_of_ours_used_by_somebody_else_stops_the_signer(chain: Chain, owing: Session) -> None:
    relayer = chain.keyring.signer("relayer")
    deploy.send(chain.client, relayer, chain.token.address, contract.mint_test_usdc(relayer.address, 1))
    before = books()
    chain.until(lambda: SignerNonce.objects.exclude(stopped_reason="").exists(), "the signer is stopped")
    stopped = SignerNonce.objects.get(address=relayer.address)
    assert "none of ours" in stopped.stopped_reason
    assert books() == before
    # No attempt at it can be mined any more. What it carried waits: nothing is signed until a person has looked.
    assert ChainAction.objects.get(kind="settle").status == ChainAction.Status.REVERTED
    chain.settle()
    chain.relay()
    assert Batch.objects.get().action == ChainAction.objects.get(kind="settle", status=ChainAction.Status.PLANNED)
    assert books() == before


def test_a_stuck_one_is_replaced_at_its_own_nonce(chain: Chain, lint: Party, owing: Session, settings: Any) -> None:
    settings.RELAY_REPLACE_SECONDS = 0
    with standing_still(chain):
        for _ in range(3):
            chain.relay()
        action = ChainAction.objects.get(kind="settle")
        attempts = list(Attempt.objects.filter(action=action).order_by("pk"))
        assert len(attempts) >= 2
        for earlier, later in itertools.pairwise(attempts):
            assert later.max_fee_wei * 8 >= earlier.max_fee_wei * 9
            assert later.tip_wei * 8 >= earlier.tip_wei * 9
    chain.quiet()
    assert ChainAction.objects.get(kind="settle").status == ChainAction.Status.FINAL
    assert ledger.balance(ledger.credited(owing.pool, lint)) == 300_000
    assert chain.reconcile().exit_code == 0


def test_a_chain_that_forgets_stops_the_indexer(chain: Chain, owing: Session) -> None:
    mine(chain, 5)  # so that only empty blocks are forgotten
    chain.index()
    before = books()
    chain.client.request("anvil_reorg", [2, []])
    chain.client.request("evm_mine", [])
    chain.index()
    assert "reorganised" in ChainCursor.objects.get().stopped_reason
    assert books() == before
    assert chain.reconcile().exit_code == 2


def test_a_reclaim_past_us_takes_what_the_contract_had_free(chain: Chain, lint: Party) -> None:
    pool = chain.open_pool(1_000_000, providers=(lint,), expires_in=timedelta(hours=1))
    session = chain.session(pool, 500_000)
    chain.pay(session, lint, 300_000)
    chain.client.request("evm_increaseTime", [3_700])
    chain.client.request("evm_mine", [])
    deploy.send(chain.client, chain.somebody(), chain.contract.address, contract.reclaim(pool.key))
    chain.until(lambda: chain.fresh(pool).status == Pool.Status.CLOSED, "the reclaim was seen")
    assert chain.token.balance_of(str(pool.payer_address)) == 1_000_000
    assert {code for code in books()[0] if not code.startswith("world")} == set()


def test_reconcile_finds_what_the_chain_does_not_have(chain: Chain, lint: Party, owing: Session) -> None:
    pool = owing.pool
    assert chain.reconcile().exit_code < 2
    ledger.post([Move(ledger.world(pool), ledger.free(pool), 1, Reason.DEPOSIT, "nowhere:0")])
    report = chain.reconcile()
    assert report.exit_code == 2
    assert [(one.what, one.ledger_micros - one.other_micros) for one in report.unexplained] == [
        ("deposit nowhere:0", 1),
        ("free", 1),  # against the contract, and against the logs
        ("free", 1),
        ("total held", 1),
    ]
