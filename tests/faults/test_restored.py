"""Row 51: the database is restored from an older copy. What the chain has since done is never done again, and is told."""

from pathlib import Path

import pytest

from escrow import ledger
from escrow.models import Batch, ChainCursor, Party, Payment, Pool, Session, SignerNonce
from tests.faults import dumps
from tests.faults.conftest import check_paid_once, told
from tests.onchain.conftest import Chain, party
from tests.onchain.towns import sweep

DEPOSIT, PRICE = 1_000_000, 100_000


@pytest.fixture
def paying(chain: Chain) -> tuple[Session, Party]:
    """A session that owes a provider 0.10."""
    lint = party("lint")
    pool = chain.open_pool(DEPOSIT, providers=(lint,))
    session = chain.session(pool, DEPOSIT)
    chain.pay(session, lint, PRICE)
    return session, lint


def test_a_copy_from_before_a_settlement_signs_the_same_again_and_takes_the_chain_s_word_that_it_landed(
    chain: Chain, paying: tuple[Session, Party], tmp_path: Path
) -> None:
    session, lint = paying
    dumps.dump(tmp_path / "copy")
    assert chain.settle() == 1
    chain.quiet()
    before = told(chain)
    dumps.restore(tmp_path / "copy")
    assert Payment.objects.get().status == Payment.Status.PAYABLE  # as far as this copy knows, it is owed still
    assert chain.settle() == 1
    chain.until(lambda: Batch.objects.get().status == Batch.Status.SETTLED, "the chain's word is taken")
    for _ in range(3):
        sweep(chain)
        assert chain.settle() == 0
    assert told(chain) == before
    assert ledger.balance(ledger.credited(session.pool, lint)) == PRICE
    check_paid_once(chain, {lint: PRICE})
    report = chain.reconcile()
    # The money is equal; what a person is told of is a nonce that this copy knows nothing of.
    assert [(found.rule, found.cause) for found in report.differences] == [("R7", "foreign")]
    assert report.exit_code == 2


def test_a_copy_from_before_payments_that_have_landed_pays_nothing_twice_and_says_so(
    chain: Chain, paying: tuple[Session, Party], tmp_path: Path
) -> None:
    session, lint = paying
    dumps.dump(tmp_path / "copy")
    chain.pay(session, lint, PRICE // 2)  # this one is nowhere but on the chain, soon
    assert chain.settle() == 1
    chain.quiet()
    before = told(chain)
    dumps.restore(tmp_path / "copy")
    assert Payment.objects.count() == 1
    chain.settle()  # it signs a batch at a sequence number that the contract has used
    chain.until(lambda: ChainCursor.objects.get().stopped_reason != "", "the indexer has stopped")
    for _ in range(3):
        sweep(chain)
        chain.settle()
        chain.pay_out()
    assert told(chain) == before
    check_paid_once(chain, {lint: PRICE + PRICE // 2})
    assert Batch.objects.get().status == Batch.Status.SIGNED  # what it holds is free for nobody
    assert ledger.balance(Batch.objects.get().account) == PRICE
    report = chain.reconcile()
    assert report.exit_code == 2
    assert any("not one that we wait for" in alarm for alarm in report.alarms)
    assert "foreign" in {found.cause for found in report.differences}


def test_a_copy_that_has_forgotten_a_nonce_stops_the_signer_and_sends_nothing_over_what_the_chain_has(
    chain: Chain, paying: tuple[Session, Party], tmp_path: Path
) -> None:
    dumps.dump(tmp_path / "copy")
    lost = chain.open_pool(DEPOSIT)  # its payer's money is in the contract, and the copy knows of no such pool
    dumps.restore(tmp_path / "copy")
    assert not Pool.objects.filter(pool_key=lost.pool_key).exists()
    before = told(chain)
    assert chain.settle() == 1  # signed for a nonce that the chain has used
    chain.until(lambda: SignerNonce.objects.exclude(stopped_reason="").exists(), "the signer has stopped")
    for _ in range(3):
        sweep(chain)
    assert told(chain) == before
    check_paid_once(chain, {})
    stopped = SignerNonce.objects.exclude(stopped_reason="").get()
    assert "none of ours" in stopped.stopped_reason
    assert chain.client.nonce(stopped.address) > stopped.next_nonce - 1
    assert ledger.balance(Batch.objects.get().account) == PRICE  # it waits there for a person, and is lost to nobody
    report = chain.reconcile()
    assert report.exit_code == 2
    assert any("none of ours" in alarm for alarm in report.alarms)
