"""Row 38 for the money that goes to the chain: a worker whose clock is two hours wrong signs, sends and reads as any other."""

from datetime import timedelta
from typing import Any

import pytest

from escrow import clock, ledger, offchain, workers
from escrow.models import Batch, Party, Payment, Pool
from tests.faults.conftest import check_books, check_paid_once
from tests.onchain.conftest import Chain, party
from tests.safety.test_clocks import WRONG, lying

DEPOSIT, PRICE = 1_000_000, 300_000


@pytest.fixture
def work(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """A chain whose sweeps are Celery's own entries."""
    monkeypatch.setattr(workers, "chain_client", lambda: chain.client)
    monkeypatch.setattr(workers, "keyring", lambda: chain.keyring)
    return chain


@pytest.mark.parametrize("by", WRONG)
def test_a_worker_whose_clock_is_wrong_lands_and_pays_out_as_any_other(work: Chain, by: timedelta) -> None:
    lint: Party = party("lint")
    pool: Pool = work.open_pool(DEPOSIT, providers=(lint,))
    work.pay(work.session(pool, DEPOSIT), lint, PRICE)
    with lying(by):
        workers.settle_sweep()
        batch = Batch.objects.get()
        assert abs(batch.deadline - clock.now() - timedelta(hours=1)) < timedelta(minutes=1)  # by the database's clock
        sweep_until(lambda: Payment.objects.get().status == "settled")
        offchain.payout_sweep()
        sweep_until(lambda: ledger.balance(ledger.credited(pool, lint)) == 0)
        offchain.close_sweep()
        offchain.timer_sweep()
    assert work.fresh(pool).status == Pool.Status.OPEN  # its end has not come
    work.quiet()
    assert work.token.balance_of(lint.address) == 297_000
    check_paid_once(work, {lint: PRICE})
    check_books(work)


def sweep_until(done: Any) -> None:
    for _ in range(500):
        workers.relay_sweep()
        workers.index_sweep()
        if done():
            return
    raise AssertionError("it never was so")
