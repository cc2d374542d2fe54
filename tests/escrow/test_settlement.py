"""`escrow.settlement`: netting, what is signed, and both outcomes of a batch. No chain is needed for any of it."""

from datetime import datetime, timedelta
from itertools import count
from secrets import token_bytes
from uuid import uuid4

import pytest
from django.conf import settings

from escrow import dispatch, funding, invoices, ledger, pools, receipts, settlement
from escrow.chain import wire
from escrow.chain.signer import LocalSigner
from escrow.errors import StateConflict
from escrow.models import Batch, ChainAction, ChainCursor, Party, Payment, Pool, PoolProvider, Session
from tests.escrow import books
from tests.escrow.books import NOW, USDC, balance, unmoved

pytestmark = pytest.mark.django_db
_heights = count(1)


def settle(of: Pool, now: datetime = NOW) -> Batch:
    """Sign a batch of what a pool owes."""
    batch = settlement.settle(pool=of, authorizer=LocalSigner(token_bytes(31).rjust(32, b"\1")), now=now)
    assert batch is not None
    return batch


def indexed(until: datetime, stopped: str = "") -> None:
    """Let the indexer have read up to a block of a time."""
    ChainCursor.objects.update_or_create(
        chain_id=settings.CHAIN_ID,
        contract_address=settings.ESCROW_ADDRESS,
        defaults={
            "block_number": next(_heights),
            "block_hash": "0x" + "00" * 32,
            "block_time": until,
            "read_at": NOW,
            "stopped_reason": stopped,
        },
    )


def owing() -> tuple[Session, Party, Party]:
    """Make debts: three calls to one party, and two calls and two invoices to another."""
    spending = books.session(micros=25 * USDC)
    lint, brief = books.party("lint"), books.party("brief")
    for micros in (12_000, 25_000, 8_000):
        books.pay(spending, lint, micros)
    for micros in (1, 2):
        books.pay(spending, brief, micros)
    for number, micros in enumerate((2_400_000, 600_000)):
        invoice = books.invoice(books.hold(spending, brief, 3 * USDC), micros, number=f"INV-{number}")
        invoices.approve(invoice=invoice, now=NOW)
    return spending, lint, brief


def test_calls_are_netted_by_party_and_an_invoice_is_a_record_of_its_own() -> None:
    spending, lint, brief = owing()
    batch = settle(spending.pool)
    lines = sorted(batch.records.values_list("party__name", "amount_micros"))
    assert lines == [("brief", 3), ("brief", 600_000), ("brief", 2_400_000), ("lint", 45_000)]
    decoded = wire.decode_batch(bytes(batch.packed))
    records = batch.records.order_by("seq").select_related("party")
    assert decoded.first_seq == 0
    assert [(r.provider, r.amount) for r in decoded.records] == [(r.party.address, r.amount_micros) for r in records]
    assert {record.payments.count() for record in records if record.amount_micros == 45_000} == {3}
    assert lint.address != brief.address


def test_exactly_what_is_payable_becomes_settling() -> None:
    spending, lint, brief = owing()
    batch = settle(spending.pool)
    assert balance(batch.account) == 3_045_003
    assert balance(ledger.payable(spending.pool, lint)) == balance(ledger.payable(spending.pool, brief)) == 0
    assert set(Payment.objects.values_list("status", flat=True)) == {"settling"}
    assert not Payment.objects.filter(record__isnull=True).exists()
    assert books.check_pool(spending.pool).settling == 3_045_003
    assert batch.action is None  # until it is dispatched


def test_sequence_numbers_are_dense_over_batches() -> None:
    spending, lint, _ = owing()
    first = settle(spending.pool)
    books.pay(spending, lint, 5)
    books.pay(spending, books.party(), 6)
    second = settle(spending.pool)
    assert sorted(first.records.values_list("seq", flat=True)) == [0, 1, 2, 3]
    assert sorted(second.records.values_list("seq", flat=True)) == [4, 5]
    assert (second.first_seq, wire.decode_batch(bytes(second.packed)).first_seq) == (4, 4)
    spending.pool.refresh_from_db()
    assert spending.pool.next_seq == 6


def test_every_payment_can_be_proven_from_the_root() -> None:
    spending, _, _ = owing()
    batch = settle(spending.pool)
    pool = Pool.objects.get(pk=spending.pool_id)
    assert pool.pool_key is not None
    leaves = [
        receipts.leaf(
            pool_key=bytes.fromhex(pool.pool_key[2:]),
            seq=record.seq,
            payment_id=payment.pk,
            address=record.party.address,
            amount_micros=payment.amount_micros,
            metadata=payment.metadata,
        )
        for record in batch.records.select_related("party")
        for payment in record.payments.all()
    ]
    tree = wire.MerkleTree(leaves)
    root = bytes.fromhex(batch.root[2:])
    assert (len(leaves), tree.root) == (7, root)
    assert all(wire.verify_proof(root, leaf, tree.proof(leaf)) for leaf in leaves)
    assert not wire.verify_proof(root, leaves[0], tree.proof(leaves[1]))


def test_nothing_owed_is_no_batch() -> None:
    of = books.session().pool
    with unmoved():
        assert settlement.settle(pool=of, authorizer=LocalSigner(b"\1" * 32), now=NOW) is None
    assert not Batch.objects.exists()


def test_nothing_is_signed_that_could_not_land_before_the_pool_ends() -> None:
    spending, _, _ = owing()
    ends = spending.pool.expires_at
    with unmoved():
        assert settlement.settle(pool=spending.pool, authorizer=LocalSigner(b"\1" * 32), now=ends) is None
    assert settle(spending.pool, now=ends - timedelta(seconds=60)).deadline < ends


def test_a_settling_payment_is_in_no_second_batch() -> None:
    spending, _, _ = owing()
    settle(spending.pool)
    with unmoved():
        assert settlement.settle(pool=spending.pool, authorizer=LocalSigner(b"\1" * 32), now=NOW) is None


def test_parties_that_the_pool_does_not_allow_yet_are_put_on_its_list() -> None:
    known, fresh = books.party("known"), books.party("fresh")
    of = pools.open(payer_id=uuid4(), deposit_micros=USDC, now=NOW, providers=[known])
    books.bind(of)
    funding.opened(of, deposit_micros=USDC, ref="0x1:0", at=NOW)
    spending = books.session(of, USDC)
    books.pay(spending, known, 1)
    settle(of)
    assert not ChainAction.objects.filter(kind="allow_providers").exists()
    books.pay(spending, fresh, 1)
    settle(of)
    action = ChainAction.objects.get(kind="allow_providers")
    assert action.params["parties"] == [str(fresh.pk)]
    assert PoolProvider.objects.get(party=fresh).allowed_at is None
    assert dispatch.dispatch_due(now=NOW, limit=10) == 1
    assert action.pk < ChainAction.objects.filter(kind="settle").earliest("pk").pk


def test_a_void_batch_gives_all_back_and_it_settles_again() -> None:
    spending, lint, brief = owing()
    batch = settle(spending.pool)
    settlement.void(batch=batch)
    batch.refresh_from_db()
    assert (batch.status, balance(batch.account)) == ("void", 0)
    assert balance(ledger.payable(spending.pool, lint)) == 45_000
    assert balance(ledger.payable(spending.pool, brief)) == 3_000_003
    assert set(Payment.objects.values_list("status", "record")) == {("payable", None)}
    with unmoved(), pytest.raises(StateConflict):
        settlement.void(batch=batch)
    again = settle(spending.pool)
    assert (again.first_seq, balance(again.account)) == (4, 3_045_003)


def test_a_batch_is_void_only_when_the_indexed_chain_has_passed_its_deadline() -> None:
    spending, _, _ = owing()
    batch = settle(spending.pool)
    with unmoved():
        assert settlement.void_expired(landed=books.never_landed, limit=9) == 0
        indexed(batch.deadline)
        assert settlement.void_expired(landed=books.never_landed, limit=9) == 0
        indexed(batch.deadline + timedelta(seconds=1), stopped="reorganised")
        assert settlement.void_expired(landed=books.never_landed, limit=9) == 0
    indexed(batch.deadline + timedelta(seconds=1))
    assert settlement.void_expired(landed=books.never_landed, limit=9) == 1
    with unmoved():
        assert settlement.void_expired(landed=books.never_landed, limit=9) == 0


def test_a_batch_of_a_reclaimed_pool_does_not_stop_the_others() -> None:
    lost, _, _ = owing()
    gone = settle(lost.pool)
    pools.reclaimed(lost.pool, amount_micros=100 * USDC, ref="0x9:0", at=NOW)
    spending, _, _ = owing()
    batch = settle(spending.pool)
    indexed(max(gone.deadline, batch.deadline) + timedelta(seconds=1))
    assert settlement.void_expired(landed=books.never_landed, limit=9) >= 1
    batch.refresh_from_db()
    assert batch.status == "void"
    books.check_pool(lost.pool)


def test_debts_are_due_by_size_by_age_and_at_the_end() -> None:
    small, large, leaving = books.session(), books.session(), books.session()
    books.pay(small, books.party(), settings.SETTLE_MIN_MICROS - 1)
    books.pay(large, books.party(), settings.SETTLE_MIN_MICROS)
    books.pay(leaving, books.party(), 1)
    pools.close(pool=leaving.pool, now=NOW)
    made = Payment.objects.earliest("created_at").created_at
    assert {of.pk for of in settlement.due(made)} == {large.pool_id, leaving.pool_id}
    aged = made + timedelta(seconds=settings.SETTLE_MAX_AGE)
    assert small.pool_id in {of.pk for of in settlement.due(aged)}


def test_one_sweep_settles_every_pool_that_is_due() -> None:
    first, second = owing()[0], owing()[0]
    assert settlement.settle_due(authorizer=LocalSigner(b"\1" * 32), now=NOW) == 2
    assert settlement.settle_due(authorizer=LocalSigner(b"\1" * 32), now=NOW) == 0
    assert first.pool_id != second.pool_id
