"""Row 39: a pool ends while its debts are on their way. They land before the end, or the payer has the money: never both."""

from datetime import timedelta

import pytest

from escrow import ledger
from escrow.chain import contract, deploy
from escrow.models import Batch, ChainAction, Party, Payment, Pool, Session
from tests.faults.conftest import check_books, check_paid_once
from tests.onchain.conftest import Chain, books, party
from tests.onchain.towns import standing_still

DEPOSIT, PRICE, NET = 1_000_000, 300_000, 297_000
HOUR = 3_600


@pytest.fixture
def owing(chain: Chain) -> tuple[Session, Party]:
    """A session of a pool that ends in an hour owes a provider 0.30, in a batch that is signed and not yet sent."""
    lint = party("lint")
    pool = chain.open_pool(DEPOSIT, providers=(lint,), expires_in=timedelta(seconds=HOUR))
    session = chain.session(pool, DEPOSIT)
    chain.pay(session, lint, PRICE)
    assert chain.settle() == 1
    return session, lint


def pass_time(chain: Chain, seconds: int) -> None:
    chain.client.request("evm_increaseTime", [seconds])
    chain.client.request("evm_mine", [])


def reclaim(chain: Chain, pool: Pool) -> None:
    """Let a stranger send the rest home, as anybody may after the end."""
    deploy.send(chain.client, chain.somebody(), chain.contract.address, contract.reclaim(pool.key))
    chain.until(lambda: chain.fresh(pool).status == Pool.Status.CLOSED, "the reclaim was seen")


def check_payer_has_all(chain: Chain, pool: Pool, lint: Party) -> None:
    assert chain.token.balance_of(str(pool.payer_address)) == DEPOSIT
    assert chain.contract.line_of(pool.key, lint.address).matured == 0
    check_paid_once(chain, {})
    assert ledger.balance(Batch.objects.get().account) == 0
    assert {code for code in books()[0] if not code.startswith("world")} == set()


def test_a_batch_that_lands_before_the_end_is_paid_and_the_payer_has_the_rest(
    chain: Chain, owing: tuple[Session, Party]
) -> None:
    session, lint = owing
    pool = session.pool
    batch = Batch.objects.get()
    assert timedelta(0) < pool.expires_at - batch.deadline <= timedelta(seconds=2)
    pass_time(chain, HOUR - 120)
    chain.until(lambda: Batch.objects.get().status == Batch.Status.SETTLED, "it has landed")
    pass_time(chain, 180)
    reclaim(chain, pool)
    chain.pay_out()
    chain.quiet()
    assert chain.token.balance_of(lint.address) == NET  # what was credited leaves after the end too
    assert chain.token.balance_of(str(pool.payer_address)) == DEPOSIT - PRICE
    check_paid_once(chain, {lint: PRICE})
    check_books(chain)


def test_a_batch_that_the_end_overtakes_unsent_is_the_payer_s_money(chain: Chain, owing: tuple[Session, Party]) -> None:
    session, lint = owing
    pass_time(chain, HOUR + 60)
    chain.relay()
    assert not ChainAction.objects.filter(kind="settle", nonce__isnull=False).exists()  # no gas for what cannot land
    reclaim(chain, session.pool)
    chain.settle()
    chain.relay()
    check_payer_has_all(chain, session.pool, lint)
    assert Payment.objects.get().status == Payment.Status.SETTLING  # never told as settled
    assert chain.reconcile().exit_code < 2


def test_a_batch_that_the_end_overtakes_in_the_mempool_reverts_and_is_the_payer_s_money(
    chain: Chain, owing: tuple[Session, Party]
) -> None:
    session, lint = owing
    with standing_still(chain):
        for _ in range(2):
            chain.relay()
        action = ChainAction.objects.get(kind="settle")
        assert action.status == ChainAction.Status.BROADCAST
        chain.client.request("evm_increaseTime", [HOUR + 60])
    chain.until(lambda: ChainAction.objects.get(pk=action.pk).status == "reverted", "its revert is final")
    reclaim(chain, session.pool)
    chain.settle()
    chain.relay()
    check_payer_has_all(chain, session.pool, lint)
    assert ChainAction.objects.filter(kind="settle", nonce__isnull=False).count() == 1  # it is not sent a second time
    assert chain.reconcile().exit_code < 2
