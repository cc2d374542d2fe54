"""`escrow.dispatch` and what the relay makes of it: batches that travel together, and one that the contract refuses."""

from datetime import timedelta
from typing import Any

import pytest

from escrow import gas, ledger
from escrow.chain import deploy
from escrow.models import Batch, ChainAction, Party, SignerNonce
from escrow.receipts import calldata
from tests.onchain.conftest import Chain, party
from tests.onchain.towns import credited, in_processes, open_pools, owe, settlements, standing_still


def test_batches_of_several_pools_land_in_one_chain_transaction(chain: Chain, lint: Party) -> None:
    sessions = open_pools(chain, 5, [lint])
    owe(chain, sessions, lint)
    assert chain.settle() == 5
    (action,) = ChainAction.objects.filter(kind="settle")
    assert (action.batches.count(), action.pool) == (5, None)
    chain.quiet()
    assert settlements() == ["final"]
    assert credited(sessions, lint) == [300_000] * 5
    assert chain.reconcile().exit_code == 0


def test_a_batch_that_the_contract_refuses_leaves_the_group_before_it_is_signed(chain: Chain, lint: Party) -> None:
    sessions, stranger = open_pools(chain, 3, [lint]), party("stranger")
    owe(chain, sessions[:2], lint)
    owe(chain, sessions[2:], stranger)
    chain.settle()
    ChainAction.objects.filter(kind="allow_providers").delete()  # nobody puts it on the list
    chain.relay()
    chain.quiet()
    bad = Batch.objects.get(status="signed")
    assert (bad.pool, bad.action, bad.turns) == (sessions[2].pool, None, 1)
    assert "ProviderNotAllowed" in bad.reason
    assert settlements() == ["final"]
    assert credited(sessions, lint) == [300_000, 300_000, 0]
    assert ledger.balance(bad.account) == 300_000
    assert chain.reconcile().exit_code == 0


def test_a_batch_whose_way_is_still_being_made_goes_with_a_new_action(chain: Chain, lint: Party) -> None:
    """It is not to blame, so it keeps its turns: the action that was dropped must not be taken for the next one."""
    sessions, stranger = open_pools(chain, 1, [lint]), party("stranger")
    owe(chain, sessions, stranger)
    chain.settle()
    later = chain.now() + timedelta(days=1)
    ChainAction.objects.filter(kind="allow_providers").update(next_at=later)
    chain.relay()
    assert settlements() == ["dropped"]
    Batch.objects.update(next_at=chain.now())
    assert chain.settle() == 0
    assert settlements() == ["dropped", "planned"]
    ChainAction.objects.filter(kind="allow_providers").update(next_at=chain.now())
    chain.relay()
    Batch.objects.update(next_at=chain.now())
    chain.settle()
    chain.quiet()
    assert Batch.objects.get().status == Batch.Status.SETTLED
    assert credited(sessions, stranger) == [300_000]
    assert chain.reconcile().exit_code == 0


def test_a_batch_that_the_chain_leaves_out_waits_and_the_others_have_landed(
    chain: Chain, lint: Party, settings: Any
) -> None:
    settings.SETTLE_DEADLINE = 4 * 3600
    sessions = open_pools(chain, 2, [lint])
    short = chain.session(chain.open_pool(10_000_000, providers=(lint,), expires_in=timedelta(hours=1)), 10_000_000)
    owe(chain, [*sessions, short], lint)
    assert chain.settle() == 3
    with standing_still(chain):
        chain.relay()  # all three were good when they were sent
        chain.client.request("evm_increaseTime", [3_700])
    chain.quiet()
    assert settlements() == ["final"]
    assert credited([*sessions, short], lint) == [300_000, 300_000, 0]
    bad = Batch.objects.get(pool=short.pool)
    assert (bad.action, bad.turns) == (None, 1)
    assert "PoolEnded" in bad.reason or "DeadlinePassed" in bad.reason
    assert ledger.balance(bad.account) == 300_000
    assert chain.reconcile().exit_code == 0


def test_a_batch_of_a_group_that_somebody_else_lands_first_counts_once(chain: Chain, lint: Party) -> None:
    sessions = open_pools(chain, 2, [lint])
    owe(chain, sessions, lint)
    chain.settle()
    first = Batch.objects.earliest("pk")
    deploy.send(chain.client, chain.somebody(), chain.contract.address, calldata(first))
    chain.relay()
    first.refresh_from_db()
    assert "AlreadySettled" in first.reason
    chain.quiet()
    assert settlements() == ["final"]
    assert credited(sessions, lint) == [300_000] * 2
    assert sorted(Batch.objects.values_list("status", flat=True)) == ["settled"] * 2
    assert chain.reconcile().exit_code == 0


def test_a_group_that_is_too_large_goes_in_halves(
    chain: Chain, lint: Party, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = open_pools(chain, 4, [lint])
    owe(chain, sessions, lint)
    chain.settle()
    (whole,) = ChainAction.objects.filter(kind="settle")
    monkeypatch.setattr(gas, "TRANSACTION_GAS_CAP", 250_000)
    chain.relay()
    whole.refresh_from_db()
    assert whole.status == "dropped"
    assert set(Batch.objects.values_list("turns", flat=True)) == {1}
    monkeypatch.setattr(gas, "TRANSACTION_GAS_CAP", 16_777_216)
    settings.SETTLE_MAX_GROUP = 4
    chain.settle()
    chain.quiet()
    assert settlements() == ["dropped", "final", "final"]
    assert credited(sessions, lint) == [300_000] * 4
    assert chain.reconcile().exit_code == 0


def test_eight_workers_land_forty_batches_that_are_each_delivered_twice(
    chain: Chain, lint: Party, settings: Any
) -> None:
    settings.SETTLE_MAX_GROUP = 1  # as many chain transactions as batches
    settings.RELAY_RUN_SECONDS = 0
    sessions = open_pools(chain, 40, [lint])
    owe(chain, sessions, lint)

    def deliver(number: int) -> None:
        for _ in range(10):
            chain.settle()
            chain.relay()
            chain.index()

    assert in_processes(8, deliver) == [0] * 8
    chain.quiet()
    assert settlements() == ["final"] * 40
    assert credited(sessions, lint) == [300_000] * 40
    assert sorted(Batch.objects.values_list("status", flat=True)) == ["settled"] * 40
    relayer = SignerNonce.objects.get(address=chain.keyring.relayer(0).address)
    used = ChainAction.objects.filter(signer_address=relayer.address).order_by("nonce")
    assert list(used.values_list("nonce", flat=True)) == list(range(used[0].nonce or 0, relayer.next_nonce))
    assert chain.client.nonce(relayer.address) == relayer.next_nonce
    assert not ChainAction.objects.filter(status="reverted").exists()
    assert chain.reconcile().exit_code == 0
