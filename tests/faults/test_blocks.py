"""Rows 23 to 25: blocks that change what they say, or do not come. Nothing ends early, and everything is paid once."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from escrow import ledger, pausing, receipts
from escrow.chain.client import Fees
from escrow.chain.signer import LocalSigner, Signer, TransactionFields
from escrow.errors import SettlementPaused
from escrow.models import Attempt, Batch, ChainAction, ChainCursor, Party, Payment, Session, SignerNonce
from tests.faults.conftest import check_books, check_paid_once
from tests.onchain.conftest import Chain, books
from tests.onchain.test_reorgs import deep
from tests.onchain.towns import DEPTH, finish, mine, settling, standing_still, sweep

__all__ = ["deep"]

DEPOSIT, PRICE = 1_000_000, 300_000
Status = ChainAction.Status


@pytest.fixture
def owing(deep: Chain, lint: Party) -> Session:
    """A session whose pool is final owes a provider 0.30, in a batch that is signed and not yet sent."""
    pool = deep.open_pool(DEPOSIT, providers=(lint,))
    for _ in range(3):
        mine(deep, DEPTH)
        sweep(deep)
    session = deep.session(pool, DEPOSIT)
    deep.pay(session, lint, PRICE)
    assert deep.settle() == 1
    return session


def signed(chain: Chain, signer: Signer, nonce: int, to: str, call: bytes) -> str:
    """Sign a chain transaction that is not one of ours; nobody has sent it."""
    fees: Fees = chain.client.fees()
    fields = TransactionFields(
        chain_id=chain.client.chain_id(),
        nonce=nonce,
        to=to,
        data=call,
        gas=500_000,
        max_fee_per_gas=fees.max_fee * 2,
        max_priority_fee_per_gas=fees.tip,
    )
    return "0x" + signer.sign_transaction(fields).raw.hex()


def reorganise(chain: Chain, depth: int, *placed: tuple[str, int]) -> None:
    """Put as many other blocks in the place of the newest ones, with chain transactions at places in them."""
    chain.client.request("anvil_reorg", [depth, [list(one) for one in placed]])


# --- 23 -----------------------------------------------------------------------------------------------------------


def test_another_s_chain_transaction_at_our_nonce_after_a_reorganisation_stops_the_signer(
    deep: Chain, owing: Session, lint: Party
) -> None:
    deep.relay()
    relayer, action = deep.keyring.relayer(0), settling()
    assert (action.status, action.nonce is not None) == (Status.MINED, True)
    foreign = signed(deep, relayer, action.nonce or 0, relayer.address, b"")
    reorganise(deep, 1, (foreign, 0))
    before = books()
    for _ in range(3):
        sweep(deep)
    assert not SignerNonce.objects.exclude(stopped_reason="").exists()  # not before it is final: it may come back
    for _ in range(3):
        mine(deep, DEPTH)
        sweep(deep)
    assert "none of ours" in SignerNonce.objects.get(address=relayer.address).stopped_reason
    assert books() == before
    check_paid_once(deep, {})
    assert ledger.balance(Batch.objects.get().account) == PRICE
    report = deep.reconcile()
    assert report.exit_code == 2
    assert any("none of ours" in alarm for alarm in report.alarms)


# --- 24 -----------------------------------------------------------------------------------------------------------


def test_one_that_a_reorganisation_moves_to_another_block_ends_in_that_one(
    deep: Chain, owing: Session, lint: Party
) -> None:
    mine(deep, 1)
    deep.relay()
    action, (attempt,) = settling(), Attempt.objects.filter(action__kind="settle")
    before = action.block_hash
    mine(deep, 1)
    reorganise(deep, 2, ("0x" + bytes(attempt.raw).hex(), 1))
    sweep(deep)
    sweep(deep)
    moved = settling()
    assert moved.status == Status.MINED
    assert moved.block_hash != before
    assert (moved.block_number or 0) == (action.block_number or 0) + 1
    finish(deep)
    assert settling().status == Status.FINAL
    assert Attempt.objects.filter(action__kind="settle").count() == 1
    check_paid_once(deep, {lint: PRICE})
    check_books(deep)


def test_a_success_that_a_reorganisation_turns_into_a_failure_ends_when_that_is_final_and_is_paid_once(
    deep: Chain, owing: Session, lint: Party
) -> None:
    stranger = deep.somebody()
    mine(deep, 3)  # so that its gas money stays
    deep.relay()
    (attempt,) = Attempt.objects.filter(action__kind="settle")
    assert settling().status == Status.MINED
    # In the other blocks a stranger lands the same batch first, as anybody may: ours finds nothing to do and reverts.
    first = signed(deep, stranger, 0, deep.contract.address, receipts.calldata(Batch.objects.get()))
    reorganise(deep, 2, (first, 0), ("0x" + bytes(attempt.raw).hex(), 1))
    for _ in range(2):
        sweep(deep)
    receipt = deep.client.receipt(attempt.tx_hash)
    assert receipt is not None
    assert not receipt.ok
    assert settling().status == Status.MINED  # a failure is no more final than its block
    finish(deep)
    assert settling().status == Status.REVERTED
    assert Batch.objects.get().status == Batch.Status.SETTLED
    check_paid_once(deep, {lint: PRICE})
    check_books(deep)


def test_a_failure_that_a_reorganisation_turns_into_a_success_is_the_success(
    deep: Chain, owing: Session, lint: Party
) -> None:
    stranger: LocalSigner = deep.somebody()
    deep.client.request("evm_setAutomine", [False])
    deep.relay()
    (attempt,) = Attempt.objects.filter(action__kind="settle")
    ahead = signed(deep, stranger, 0, deep.contract.address, receipts.calldata(Batch.objects.get()))
    deep.client.request("anvil_dropAllTransactions")
    deep.client.request("eth_sendRawTransaction", [ahead])
    deep.client.request("evm_mine", [])
    deep.client.request("eth_sendRawTransaction", ["0x" + bytes(attempt.raw).hex()])
    deep.client.request("evm_mine", [])
    deep.client.request("evm_setAutomine", [True])
    sweep(deep)
    receipt = deep.client.receipt(attempt.tx_hash)
    assert receipt is not None
    assert (receipt.ok, settling().status) == (False, Status.MINED)
    reorganise(deep, 2, ("0x" + bytes(attempt.raw).hex(), 0))
    finish(deep)
    assert settling().status == Status.FINAL
    check_paid_once(deep, {lint: PRICE})
    check_books(deep)


# --- 25 -----------------------------------------------------------------------------------------------------------


def test_while_no_block_comes_payments_go_on_and_debts_wait_and_all_lands_afterwards(chain: Chain, lint: Party) -> None:
    pool = chain.open_pool(DEPOSIT, providers=(lint,))
    session = chain.session(pool, DEPOSIT)
    with standing_still(chain):
        halted = chain.client.block("latest")
        for _ in range(10):
            for _ in range(5):
                chain.pay(session, lint, 2_000)
            chain.settle()
            sweep(chain)
            chain.pay_out()
        assert chain.client.block("latest") == halted
        assert Payment.objects.count() == 50
        assert not Payment.objects.filter(status="settled").exists()
        assert ChainCursor.objects.get().stopped_reason == ""
        owed = ledger.balance(ledger.payable(pool, lint)) + sum(
            ledger.balance(one.account) for one in Batch.objects.all()
        )
        assert owed == 100_000
        check_paid_once(chain, {})
    until_settled(chain, lambda: not Payment.objects.exclude(status="settled").exists())
    check_paid_once(chain, {lint: 100_000})
    assert ledger.balance(session.account) == DEPOSIT - 100_000
    assert not SignerNonce.objects.exclude(stopped_reason="").exists()
    check_books(chain)


def until_settled(chain: Chain, done: Callable[[], bool]) -> None:
    while not done():
        chain.settle()
        chain.quiet()


def test_payments_wait_for_the_chain_once_as_much_is_owed_as_may_wait_for_it(
    chain: Chain, lint: Party, settings: Any
) -> None:
    settings.UNSETTLED_MICROS = 3 * PRICE
    session = chain.session(chain.open_pool(DEPOSIT, providers=(lint,)), DEPOSIT)
    with standing_still(chain):
        sweep(chain)
        later = chain.now() + timedelta(minutes=33)
        for _ in range(2):
            chain.pay(session, lint, PRICE)
            chain.settle()
            assert not pausing.look(now=later)
        chain.pay(session, lint, PRICE)
        assert not pausing.look(now=chain.now())  # that is owed, and the chain has only just been heard of
        assert pausing.look(now=later)
        before = books()
        with pytest.raises(SettlementPaused):
            chain.pay(session, lint, 1)
        assert books() == before
        sweep(chain)
        assert not pausing.look(now=later)  # it was read again, and had nothing new
    until_settled(chain, lambda: not Payment.objects.exclude(status="settled").exists())
    assert pausing.look(now=chain.now())
    chain.pay(session, lint, 1)
    check_paid_once(chain, {lint: 3 * PRICE})
    check_books(chain)


def test_a_chain_that_halts_for_two_hours_past_a_deadline_pays_once_what_it_could_not_take(
    chain: Chain, lint: Party, settings: Any
) -> None:
    pool = chain.open_pool(DEPOSIT, providers=(lint,))
    session = chain.session(pool, DEPOSIT)
    chain.pay(session, lint, PRICE)
    with standing_still(chain):
        chain.settle()
        sweep(chain)
        first = Batch.objects.get()
        assert settling().status == Status.BROADCAST
        # The first block after it is past the batch's deadline.
        chain.client.request("evm_increaseTime", [136 * 60])
    chain.until(lambda: settling().status == Status.REVERTED, "it came too late")
    assert ledger.balance(first.account) == PRICE
    check_paid_once(chain, {})
    settings.SETTLE_DEADLINE = 4 * 3_600  # the chain's clock is ahead of ours now, which a real one is not
    chain.settle()
    first.refresh_from_db()
    assert (first.status, ledger.balance(first.account)) == (Batch.Status.VOID, 0)
    until_settled(chain, lambda: not Payment.objects.exclude(status="settled").exists())
    check_paid_once(chain, {lint: PRICE})
    check_books(chain)
