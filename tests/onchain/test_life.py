"""A pool's whole life on a chain: what each side gets, to the last micro-USDC, with books that equal the chain."""

from typing import Any
from uuid import uuid4

import pytest

from escrow import disputes, ledger, payments, pools
from escrow.chain import contract, deploy
from escrow.errors import StateConflict
from escrow.models import Batch, ChainAction, ChainCursor, Dispute, Party, Payment, Pool
from tests.onchain.conftest import Chain, books, party
from tests.onchain.towns import settle_and_land


@pytest.mark.promise("S10", "S18")
def test_every_micro_arrives(chain: Chain) -> None:
    lint, security = party("lint"), party("security")
    pool = chain.open_pool(10_000_000, providers=(lint,))
    assert chain.contract.pool(pool.key).free == 10_000_000
    session = chain.session(pool, 5_000_000)
    sent = [chain.pay(session, lint, 12_000) for _ in range(20)] + [chain.pay(session, security, 25_001)]

    settle_and_land(chain)
    batch = Batch.objects.get()
    assert (batch.status, batch.first_seq, batch.records.count()) == ("settled", 0, 2)
    assert {payment.status for payment in Payment.objects.all()} == {"settled"}
    assert ledger.balance(ledger.credited(pool, lint)) == 240_000
    assert chain.reconcile().exit_code == 0

    assert chain.pay_out() == 2
    chain.quiet()
    assert chain.token.balance_of(lint.address) == 237_600  # 240,000 less 1 %
    assert chain.token.balance_of(security.address) == 24_751  # the fee of 250.01 is floored
    assert chain.reconcile().exit_code < 2

    pools.close(pool=pool, now=chain.now())
    chain.step_out()
    chain.quiet()
    chain.step_out()
    chain.until(lambda: chain.fresh(pool).status == Pool.Status.CLOSED, "the pool is closed")
    spent = sum(payment.amount_micros for payment in sent)
    assert chain.token.balance_of(str(pool.payer_address)) == 10_000_000 - spent
    assert chain.contract.fees() == spent - 237_600 - 24_751
    after = pools.balances(chain.fresh(pool))
    assert (after.deposited, after.withdrawn, after.fees, after.reclaimed) == (
        10_000_000,
        262_351,
        2_650,
        10_000_000 - spent,
    )
    chain.quiet()
    assert chain.reconcile().exit_code == 0


def test_a_second_batch_goes_on_where_the_first_ended(chain: Chain) -> None:
    lint = party("lint")
    pool = chain.open_pool(providers=(lint,))
    session = chain.session(pool, 1_000_000)
    for first_seq in (0, 1):
        chain.pay(session, lint, 1_000)
        settle_and_land(chain)
        assert Batch.objects.get(first_seq=first_seq).status == "settled"
    assert ledger.balance(ledger.credited(pool, lint)) == 2_000
    assert chain.reconcile().exit_code == 0


def test_a_top_up_arrives(chain: Chain) -> None:
    pool = chain.open_pool(1_000_000)
    mint = contract.mint_test_usdc(str(pool.payer_address), 500_000)
    deploy.send(chain.client, chain.somebody(), chain.token.address, mint)
    pools.top_up(pool=pool, amount_micros=500_000, now=chain.now())
    assert pools.balances(pool).available == 1_000_000  # not before the chain says so
    chain.quiet()
    assert pools.balances(pool).available == 1_500_000
    assert chain.reconcile().exit_code == 0


def test_a_pool_without_money_never_opens(chain: Chain, settings: Any) -> None:
    settings.RELAY_MAX_ATTEMPTS = 1
    pool = pools.open(payer_id=uuid4(), deposit_micros=1_000_000, now=chain.now())
    before = books()
    chain.until(lambda: chain.fresh(pool).status == Pool.Status.FAILED, "the pool has failed")
    assert books() == before
    assert "exceeds balance" in chain.fresh(pool).reason


def test_settled_money_is_disputed_and_ruled_on_chain(chain: Chain) -> None:
    lint = party("lint")
    pool = chain.open_pool(1_000_000, providers=(lint,), window=3_600)
    payment = chain.pay(chain.session(pool, 1_000_000), lint, 100_001)
    settle_and_land(chain)
    payment.refresh_from_db()
    dispute = disputes.open_for_payment(payment=payment, amount_micros=100_001, reason="It never ran.", now=chain.now())
    assert dispute.status == Dispute.Status.OPENING
    chain.quiet()
    dispute.refresh_from_db()
    assert dispute.status == Dispute.Status.OPEN
    assert ledger.balance(dispute.account) == 100_001
    assert chain.reconcile().exit_code == 0

    disputes.rule(dispute=dispute, to_provider_bps=7_000, reason="Most of it ran.", ruled_by="ada", now=chain.now())
    assert ledger.balance(dispute.account) == 100_001  # until the chain has carried it out
    chain.quiet()
    dispute.refresh_from_db()
    assert (dispute.status, dispute.to_provider_micros) == (Dispute.Status.RULED, 70_000)
    assert ledger.balance(ledger.credited(pool, lint)) == 70_000
    assert ledger.balance(ledger.free(pool)) == 30_001
    assert chain.reconcile().exit_code == 0


def test_matured_money_cannot_be_disputed(chain: Chain) -> None:
    lint = party("lint")
    pool = chain.open_pool(1_000_000, providers=(lint,), window=0)
    payment = chain.pay(chain.session(pool, 1_000_000), lint, 50_000)
    settle_and_land(chain)
    payment.refresh_from_db()
    before = books()
    with pytest.raises(StateConflict, match="hold window"):
        disputes.open_for_payment(payment=payment, amount_micros=50_000, reason="Too late.", now=chain.now())
    assert books() == before
    assert not ChainAction.objects.filter(kind="dispute").exists()


def test_a_dispute_that_the_contract_refuses_moves_nothing(chain: Chain, settings: Any) -> None:
    settings.RELAY_MAX_ATTEMPTS = 1
    lint = party("lint")
    pool = chain.open_pool(1_000_000, providers=(lint,), window=3_600)
    payment = chain.pay(chain.session(pool, 1_000_000), lint, 50_000)
    settle_and_land(chain)
    payment.refresh_from_db()
    before = books()
    dispute = disputes.open_for_payment(payment=payment, amount_micros=50_000, reason="Late.", now=chain.now())
    chain.client.request("evm_increaseTime", [7_300])  # the chain's clock has passed the window, ours has not
    chain.client.request("evm_mine", [])
    chain.quiet()
    dispute.refresh_from_db()
    assert dispute.status == Dispute.Status.FAILED
    assert books() == before
    assert ChainAction.objects.get(kind="dispute").nonce is None  # refused before anything was signed


def test_a_strangers_fees_leave_with_ours(chain: Chain) -> None:
    """Somebody else's pool on the same contract pays its fee into the same place; the books must bear it."""
    lint = party("lint")
    pool = chain.open_pool(1_000_000, providers=(lint,))
    chain.pay(chain.session(pool, 1_000_000), lint, 100_000)
    settle_and_land(chain)
    Pool.objects.filter(pk=pool.pk).update(pool_key="0x" + "ee" * 32)  # as if it were a stranger's
    deploy.send(chain.client, chain.somebody(), chain.contract.address, contract.withdraw(pool.key, lint.address))
    chain.quiet()
    deploy.send(chain.client, chain.somebody(), chain.contract.address, contract.withdraw_fees())
    chain.quiet()
    assert ledger.balance(ledger.fees()) == 0
    assert ChainCursor.objects.get().stopped_reason == ""


def test_a_party_that_is_new_to_the_pool_is_allowed_first(chain: Chain) -> None:
    newcomer: Party = party("newcomer")
    pool = chain.open_pool(1_000_000)
    chain.pay(chain.session(pool, 1_000_000), newcomer, 30_000)
    settle_and_land(chain)
    assert pool.providers.get(party=newcomer).allowed_at is not None
    assert ledger.balance(ledger.credited(pool, newcomer)) == 30_000
    assert chain.reconcile().exit_code == 0


def test_a_disputed_payment_buys_nothing_any_more(chain: Chain) -> None:
    lint = party("lint")
    pool = chain.open_pool(1_000_000, providers=(lint,), window=3_600)
    payment = chain.pay(chain.session(pool, 1_000_000), lint, 100_000)
    settle_and_land(chain)
    payment.refresh_from_db()
    disputes.open_for_payment(payment=payment, amount_micros=100_000, reason="Never asked.", now=chain.now())
    chain.quiet()
    before = books()
    with pytest.raises(StateConflict, match="disputed"):
        payments.redeem(payment=payment, party_id=lint.pk, request_hash="ab" * 32, now=chain.now())
    assert books() == before
    payment.refresh_from_db()
    assert payment.redeemed_hash == ""
