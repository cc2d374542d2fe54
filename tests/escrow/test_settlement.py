"""`escrow.settlement`: netting, what is signed, and both outcomes of a batch. No chain is needed for any of it."""

import logging
from datetime import datetime, timedelta
from itertools import count
from secrets import token_bytes
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.conf import settings
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from eth_account import Account as Keys

from escrow import crashpoints, dispatch, funding, invoices, ledger, pools, receipts, refunds, settlement
from escrow.chain import typed, wire
from escrow.chain.abi import codec
from escrow.chain.client import Block, Tiers
from escrow.chain.errors import ChainUnavailable
from escrow.chain.signer import LocalSigner
from escrow.chain.wire import Record
from escrow.errors import StateConflict
from escrow.models import (
    Batch,
    ChainAction,
    ChainCursor,
    Event,
    Party,
    Payment,
    Pool,
    PoolProvider,
    Session,
    Setback,
    Transfer,
)
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
    assert not Setback.objects.exists()  # what is void already is not even tried


def test_a_batch_of_a_reclaimed_pool_does_not_stop_the_others() -> None:
    lost, _, _ = owing()
    gone = settle(lost.pool)
    pools.reclaimed(lost.pool, amount_micros=100 * USDC, ref="0x9:0", at=NOW)
    spending, _, _ = owing()
    batch = settle(spending.pool)
    indexed(max(gone.deadline, batch.deadline) + timedelta(seconds=1))
    asked: list[Batch] = []

    def landed(one: Batch, block: int) -> bool:
        asked.append(one)
        return False

    assert settlement.void_expired(landed=landed, limit=9) == 1
    batch.refresh_from_db()
    assert (batch.status, asked) == ("void", [batch])
    assert not Setback.objects.exists()
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


# --- what is signed -----------------------------------------------------------------------------------------------

AUTHORIZER = LocalSigner(b"\1" * 32)


def sign(of: Pool, now: datetime = NOW) -> Batch:
    """Sign a batch with a key that is known."""
    batch = settlement.settle(pool=of, authorizer=AUTHORIZER, now=now)
    assert batch is not None
    return Batch.objects.select_related("pool", "account").get(pk=batch.pk)


def signer_of(batch: Batch, leaves: int = 1) -> str:
    """Return who signed a batch, by what the contract would check."""
    domain = wire.pool_domain(batch.pool.chain_id, batch.pool.contract_address)
    key, root = batch.pool.key, bytes.fromhex(batch.root[2:])
    message = typed.Batch(domain, key, bytes(batch.packed), root, int(batch.deadline.timestamp()))
    return str(Keys._recover_hash(message.digest, signature=bytes(batch.signature)))


def test_a_batch_is_signed_with_its_pool_its_records_its_root_and_its_deadline() -> None:
    spending, to = books.session(), books.party()
    books.pay(spending, to, 7)
    batch = sign(spending.pool, NOW + timedelta(microseconds=1_999_999))
    assert batch.deadline == NOW + timedelta(seconds=settings.SETTLE_DEADLINE + 1)  # whole seconds, rounded down
    assert signer_of(batch) == AUTHORIZER.address
    assert bytes(batch.packed) == wire.encode_batch(0, [Record(to.address, 7)])
    assert (batch.status, batch.first_seq, batch.turns, batch.next_at) == (
        "signed", 0, 0, NOW + timedelta(microseconds=1_999_999),
    )  # fmt: skip
    assert (batch.account.code, batch.account.kind, batch.account.pool_id) == (
        f"settling:{batch.pk}", "settling", spending.pool_id,
    )  # fmt: skip


def test_the_signer_is_told_what_each_leaf_stands_for() -> None:
    class Watching(LocalSigner):
        seen: tuple[wire.Leaf, ...] = ()

        def sign_typed(self, message: Any) -> bytes:
            Watching.seen = message.leaves
            return super().sign_typed(message)

    spending, to = books.session(), books.party()
    payments = [books.pay(spending, to, micros) for micros in (7, 8)]
    settlement.settle(pool=spending.pool, authorizer=Watching(b"\1" * 32), now=NOW)
    pool = Pool.objects.get(pk=spending.pool_id)
    expected = [
        receipts.leaf(
            pool_key=pool.key,
            seq=0,
            payment_id=payment.pk,
            address=to.address,
            amount_micros=payment.amount_micros,
            metadata=payment.metadata,
        )
        for payment in payments
    ]
    assert Watching.seen == tuple(expected)


def test_a_deadline_is_a_second_before_the_pool_ends_or_can_be_reclaimed() -> None:
    spending, to = books.session(), books.party()
    ends = spending.pool.expires_at
    for soon in (ends - timedelta(seconds=1), ends):
        books.pay(spending, to, 1)
        with unmoved():
            assert settlement.settle(pool=spending.pool, authorizer=AUTHORIZER, now=soon) is None
    assert sign(spending.pool, ends - timedelta(seconds=2)).deadline == ends - timedelta(seconds=1)
    books.pay(spending, to, 1)
    spending.pool.reclaimable_at = ends - timedelta(hours=3)
    batch = settlement.settle(pool=spending.pool, authorizer=AUTHORIZER, now=ends - timedelta(hours=3, seconds=9))
    assert batch is not None
    assert batch.deadline == ends - timedelta(hours=3, seconds=1)


def test_what_was_refunded_before_is_not_settled() -> None:
    spending, to = books.session(), books.party()
    refunds.pay(payment=books.pay(spending, to, 700), amount_micros=200, reason="x", now=NOW)
    books.pay(spending, to, 50)
    batch = sign(spending.pool)
    assert list(batch.records.values_list("amount_micros", flat=True)) == [550]
    assert balance(batch.account) == 550
    record = batch.records.get()
    leaves = [
        receipts.leaf(
            pool_key=batch.pool.key,
            seq=0,
            payment_id=payment.pk,
            address=to.address,
            amount_micros=payment.due_micros,
            metadata=payment.metadata,
        )
        for payment in record.payments.order_by("created_at", "pk")
    ]
    assert wire.MerkleTree(leaves).root == bytes.fromhex(batch.root[2:])


def test_what_is_settled_is_one_transfer_for_each_party() -> None:
    spending, lint, brief = owing()
    batch = sign(spending.pool)
    sent = Transfer.objects.filter(receiver=batch.account).order_by("amount_micros")
    assert [(one.sender.code, one.amount_micros, one.reason, one.ref) for one in sent] == [
        (f"payable:{spending.pool_id}:{lint.pk}", 45_000, "settle", str(batch.pk)),
        (f"payable:{spending.pool_id}:{brief.pk}", 3_000_003, "settle", str(batch.pk)),
    ]
    settlement.void(batch=batch)
    back = Transfer.objects.filter(sender=batch.account).order_by("amount_micros")
    assert [(one.receiver.code, one.amount_micros, one.reason, one.ref) for one in back] == [
        (f"payable:{spending.pool_id}:{lint.pk}", 45_000, "settle_void", str(batch.pk)),
        (f"payable:{spending.pool_id}:{brief.pk}", 3_000_003, "settle_void", str(batch.pk)),
    ]


def told(batch: Batch, type: str) -> list[tuple[Any, ...]]:
    """Return what was told of a batch: to which party or payer, with which facts."""
    events = Event.objects.filter(type=type, subject_type="batch", subject_id=batch.pk).order_by("pk")
    return [(event.party_id, event.payer_id, event.payload) for event in events]


def test_the_payer_is_told_of_a_whole_batch_and_each_party_of_its_part() -> None:
    spending, lint, brief = owing()
    batch = sign(spending.pool)
    about = {"pool_id": str(spending.pool_id), "records": 4}
    parts = {lint.pk: "0.045", brief.pk: "3.000003"}
    expected = [(party, None, {**about, "amount": parts[party]}) for party in sorted(parts)]
    whole = (None, spending.pool.payer_id, {**about, "amount": "3.045003"})
    for type in ("batch.signed", "batch.voided"):
        if type == "batch.voided":
            settlement.void(batch=batch)
        events = told(batch, type)
        assert sorted(events[:-1]) == expected
        assert events[-1] == whole


def test_lines_are_in_the_order_of_their_parties_and_then_of_their_debts() -> None:
    spending, lint, brief = owing()
    batch = sign(spending.pool)
    of = {lint.pk: [45_000], brief.pk: [2_400_000, 600_000, 3]}
    expected = [(party, micros) for party in sorted(of) for micros in of[party]]
    assert list(batch.records.order_by("seq").values_list("party_id", "amount_micros")) == expected
    assert list(batch.records.order_by("seq").values_list("seq", flat=True)) == [0, 1, 2, 3]
    calls = Payment.objects.filter(record__amount_micros=3)
    assert sorted(calls.values_list("amount_micros", flat=True)) == [1, 2]


def test_a_batch_takes_the_oldest_debts_up_to_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    spending = books.session()
    parties = sorted((books.party() for _ in range(3)), key=lambda party: party.pk)
    for micros, to in enumerate([*reversed(parties), *parties], start=1):
        books.pay(spending, to, micros)
    monkeypatch.setattr(settings, "SETTLE_MAX_PAYMENTS", 2)
    batch = sign(spending.pool)
    assert sorted(Payment.objects.filter(record__batch=batch).values_list("amount_micros", flat=True)) == [1, 2]
    monkeypatch.setattr(settings, "SETTLE_MAX_PAYMENTS", 100)
    monkeypatch.setattr(settings, "SETTLE_MAX_RECORDS", 2)
    batch = sign(spending.pool)
    assert list(batch.records.order_by("seq").values_list("party_id", "amount_micros")) == [
        (parties[0].pk, 3 + 4), (parties[1].pk, 5),
    ]  # fmt: skip
    assert set(Payment.objects.filter(status="payable").values_list("amount_micros", flat=True)) == {6}
    assert balance(ledger.payable(spending.pool, parties[2])) == 6


def test_calls_whose_sum_no_record_can_hold_are_several_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_AMOUNT", 10)
    spending, to = books.session(), books.party()
    for micros in (4, 6, 1, 9, 10, 3):
        books.pay(spending, to, micros)
    batch = sign(spending.pool)
    assert list(batch.records.order_by("seq").values_list("amount_micros", flat=True)) == [10, 10, 10, 3]


def test_a_batch_is_never_larger_than_the_authorizer_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "SIGNER_MAX_BATCH_MICROS", 10)
    spending = books.session()
    parties = sorted((books.party() for _ in range(4)), key=lambda party: party.pk)
    for to, micros in zip(parties, (4, 6, 1, 11), strict=True):
        books.pay(spending, to, micros)
    amounts = []
    for _ in range(3):
        batch = sign(spending.pool)
        amounts.append(list(batch.records.order_by("seq").values_list("amount_micros", flat=True)))
    assert amounts == [[4, 6], [1], [11]]  # one debt that is more than that is asked for by itself


def test_the_calls_of_a_record_are_never_more_than_the_authorizer_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "SIGNER_MAX_BATCH_MICROS", 10)
    spending, to = books.session(), books.party()
    for micros in (4, 6, 1):
        books.pay(spending, to, micros)
    assert list(sign(spending.pool).records.values_list("amount_micros", flat=True)) == [10]
    assert list(sign(spending.pool).records.values_list("amount_micros", flat=True)) == [1]


def test_only_accounts_that_hold_something_are_locked_and_only_their_debts_settled() -> None:
    spending, lint, other = books.session(), books.party(), books.party()
    ledger.payable(spending.pool, other)
    books.pay(spending, lint, 5)
    elsewhere = books.session()
    books.pay(elsewhere, other, 9)
    with CaptureQueriesContext(connection) as queries:
        batch = sign(spending.pool)
    locking = [query["sql"] for query in queries if "FOR NO KEY UPDATE" in query["sql"]]
    assert ['OF "' in sql or sql.endswith("FOR NO KEY UPDATE") for sql in locking] == [True] * len(locking)
    assert [sql.rpartition(" OF ")[2] for sql in locking if " OF " in sql] == ['"escrow_account"', '"escrow_payment"']
    assert sum('FROM "escrow_pool"' in sql for sql in locking) == 1
    assert f'"escrow_account"."id" IN ({ledger.payable(spending.pool, lint).pk})' in locking[0]
    assert list(batch.records.values_list("party_id", "amount_micros")) == [(lint.pk, 5)]
    assert [query["sql"] for query in queries if 'FROM "escrow_party" WHERE' in query["sql"]] == []  # they come along


def test_what_other_pools_owe_a_party_is_theirs_to_settle() -> None:
    ours, theirs, to = books.session(), books.session(), books.party()
    books.pay(ours, to, 5)
    other = books.pay(theirs, to, 7)
    batch = sign(ours.pool)
    assert list(batch.records.values_list("amount_micros", flat=True)) == [5]
    other.refresh_from_db()
    assert (other.status, other.record) == ("payable", None)
    assert balance(ledger.payable(theirs.pool, to)) == 7


def test_a_debt_whose_account_is_not_locked_is_left_for_the_next_batch() -> None:
    spending, here, arriving = books.session(), books.party(), books.party()
    mine = books.pay(spending, here, 5)
    books.pay(spending, arriving, 7)
    (line,) = settlement._lines(spending.pool, [here.pk])
    assert (line.party, line.payments) == (here, [mine])


def test_the_oldest_debts_are_those_that_were_made_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "SETTLE_MAX_PAYMENTS", 1)
    spending, to = books.session(), books.party()
    for age, micros in enumerate((5, 6, 7)):
        made = books.pay(spending, to, micros)
        Payment.objects.filter(pk=made.pk).update(created_at=NOW - timedelta(minutes=age))
    assert list(sign(spending.pool).records.values_list("amount_micros", flat=True)) == [7]


def test_nothing_is_signed_for_a_pool_that_the_chain_does_not_know() -> None:
    of = pools.open(payer_id=uuid4(), deposit_micros=USDC, now=NOW)
    with unmoved(), pytest.raises(ValueError, match=f"{of} has no terms yet"):
        settlement._sign(of, [], AUTHORIZER, NOW, NOW)
    assert not Batch.objects.exists()


def test_payments_that_leave_while_a_batch_is_made_are_missed() -> None:
    spending, to = books.session(), books.party()
    payments = [books.pay(spending, to, micros) for micros in (5, 6)]
    batch = sign(spending.pool)
    payments.append(books.pay(spending, to, 7))
    batch.first_seq = 50
    with pytest.raises(RuntimeError, match=f"2 payments left {batch} while it was made"), transaction.atomic():
        settlement._attach(batch, [settlement.Line(to, payments)])
    assert list(batch.records.values_list("seq", flat=True)) == [0]


def test_each_fresh_party_is_put_on_the_list_once_with_a_nonce_of_its_own() -> None:
    spending = books.session()
    parties = sorted((books.party() for _ in range(3)), key=lambda party: party.pk)
    PoolProvider.objects.create(pool=spending.pool, party=parties[1], allowed_at=NOW)
    PoolProvider.objects.create(pool=spending.pool, party=parties[2])  # asked for, and not there yet
    PoolProvider.objects.create(pool=books.pool(), party=parties[0], allowed_at=NOW)
    for to in reversed(parties):
        books.pay(spending, to, 1)
    batch = sign(spending.pool)
    action = ChainAction.objects.get(kind="allow_providers")
    assert (action.pool, action.dedupe_key) == (spending.pool, f"allow:{batch.pk}")
    assert action.params == {"parties": [str(parties[0].pk), str(parties[2].pk)], "nonce": str(batch.pk)}
    listed = PoolProvider.objects.filter(pool=spending.pool).values_list("party", "allowed_at")
    assert dict(listed) == {parties[0].pk: None, parties[1].pk: NOW, parties[2].pk: None}


# --- sweeps -------------------------------------------------------------------------------------------------------


def due_at(now: datetime) -> list[Any]:
    return [of.pk for of in settlement.due(now)]


def debt(micros: int, *, made_at: datetime = NOW, **changes: Any) -> Pool:
    """A pool that owes an amount since a moment."""
    spending = books.session()
    books.pay(spending, books.party(), micros)
    Payment.objects.filter(session=spending).update(created_at=made_at)
    Pool.objects.filter(pk=spending.pool_id).update(**changes)
    return Pool.objects.get(pk=spending.pool_id)


def test_a_debt_is_due_from_the_second_on_that_it_is_old_enough() -> None:
    of = debt(1)
    aged = NOW + timedelta(seconds=settings.SETTLE_MAX_AGE)
    assert due_at(aged - timedelta(seconds=1)) == []
    assert due_at(aged) == [of.pk]


def test_the_pools_that_have_owed_for_longest_come_first() -> None:
    large = settings.SETTLE_MIN_MICROS
    made = [debt(large, made_at=NOW - timedelta(minutes=age)) for age in (2, 3, 1)]
    assert due_at(NOW) == [made[1].pk, made[0].pk, made[2].pk]


def test_the_age_of_a_pools_debts_is_that_of_its_oldest() -> None:
    spending, aged = books.session(), NOW + timedelta(seconds=settings.SETTLE_MAX_AGE)
    old, young = (books.pay(spending, books.party(), 1) for _ in range(2))
    Payment.objects.filter(pk=old.pk).update(created_at=NOW)
    Payment.objects.filter(pk=young.pk).update(created_at=NOW + timedelta(minutes=5))
    assert due_at(aged) == [spending.pool_id]
    refunds.pay(payment=old, reason="x", now=NOW)
    assert due_at(aged) == []


def test_the_debts_of_all_parties_together_are_enough() -> None:
    spending = books.session()
    books.pay(spending, books.party(), settings.SETTLE_MIN_MICROS - 1)
    assert due_at(NOW) == []
    books.pay(spending, books.party(), 1)
    assert due_at(NOW) == [spending.pool_id]


def test_a_pool_that_owes_nothing_or_has_ended_is_not_due() -> None:
    large = settings.SETTLE_MIN_MICROS
    books.session(micros=5 * USDC)  # has money, and owes none
    debt(large, status="closed")
    debt(large, status="opening")
    later = NOW + timedelta(seconds=1)
    ended, taken = debt(large, expires_at=later), debt(large, reclaimable_at=later)
    assert set(due_at(NOW)) == {ended.pk, taken.pk}
    assert due_at(later) == []


def test_a_pool_on_its_way_out_is_due_with_any_debt() -> None:
    leaving, staying = debt(1, status="closing"), debt(1)
    assert due_at(NOW) == [leaving.pk]
    assert staying.status == "open"


def test_one_sweep_takes_no_more_than_its_limit_and_tells_a_failure_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bad, good, later = (debt(settings.SETTLE_MIN_MICROS, made_at=NOW - timedelta(minutes=5 - n)) for n in range(3))

    class Refusing(LocalSigner):
        def sign_typed(self, message: Any) -> bytes:
            if message.pool_id.hex() == str(bad.pool_key)[2:]:
                raise ValueError("not this one")
            return super().sign_typed(message)

    monkeypatch.setattr(settings, "SWEEP_LIMIT", 2)
    assert settlement.settle_due(authorizer=Refusing(b"\1" * 32), now=NOW) == 1
    assert [batch.pool_id for batch in Batch.objects.all()] == [good.pk]
    assert Batch.objects.get().deadline == NOW + timedelta(seconds=settings.SETTLE_DEADLINE)
    assert list(Setback.objects.values_list("sweep", "subject")) == [("settlements", str(bad.pk))]
    assert due_at(NOW) == [bad.pk, later.pk]


def test_one_settles_at_a_time() -> None:
    debt(settings.SETTLE_MIN_MICROS)
    place = connection.get_connection_params()
    with psycopg.connect(**{key: place[key] for key in ("dbname", "user", "host", "port") if place.get(key)}) as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended('escrow.settlement', 0))")
        with unmoved():
            assert settlement.settle_due(authorizer=AUTHORIZER, now=NOW) == 0
        other.execute("SELECT pg_advisory_unlock_all()")
    assert settlement.settle_due(authorizer=AUTHORIZER, now=NOW) == 1


def test_where_settling_can_be_made_to_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[str] = []
    monkeypatch.setattr(crashpoints, "reach", reached.append)
    debt(settings.SETTLE_MIN_MICROS)
    settlement.settle_due(authorizer=AUTHORIZER, now=NOW)
    assert reached == ["settle.signed", "settle.committed"]
    batch = Batch.objects.get()
    indexed(batch.deadline + timedelta(seconds=1))
    settlement.void_expired(landed=books.never_landed, limit=9)
    assert reached[2:] == ["void.committed"]


def test_a_batch_that_the_contract_has_is_not_void_whatever_the_indexer_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    spending, _, _ = owing()
    batch = settle(spending.pool)
    indexed(batch.deadline + timedelta(seconds=1))
    asked: list[tuple[Batch, int]] = []

    def has_landed(one: Batch, block: int) -> bool:
        asked.append((one, block))
        return True

    with unmoved(), caplog.at_level(logging.ERROR):
        assert settlement.void_expired(landed=has_landed, limit=9) == 0
    assert asked == [(batch, ChainCursor.objects.get().block_number)]
    failure = Setback.objects.get()
    assert (failure.sweep, failure.subject) == ("late-batches", str(batch.pk))
    assert failure.error == f"RuntimeError: {batch} has landed, and the indexer was not told"


def test_late_batches_are_void_in_the_order_of_their_deadlines_and_no_more_than_asked_for() -> None:
    made = [settle(debt(1), now=NOW + timedelta(minutes=age)) for age in (2, 1, 3)]
    indexed(made[2].deadline + timedelta(seconds=1))
    ChainCursor.objects.create(
        chain_id=settings.CHAIN_ID + 1, contract_address=settings.ESCROW_ADDRESS, block_number=0, block_hash="0x",
        block_time=NOW, read_at=NOW,
    )  # fmt: skip
    ChainCursor.objects.create(
        chain_id=settings.CHAIN_ID, contract_address="0x" + "00" * 20, block_number=0, block_hash="0x",
        block_time=NOW, read_at=NOW,
    )  # fmt: skip
    with CaptureQueriesContext(connection) as queries:
        assert settlement.void_expired(landed=books.never_landed, limit=2) == 2
    assert set(Batch.objects.filter(status="void")) == set(made[:2])
    by_itself = (
        'FROM "escrow_pool" WHERE',
        'FROM "escrow_party" WHERE',
        'FROM "escrow_account" WHERE "escrow_account"."id" =',
    )
    assert [query["sql"] for query in queries if any(part in query["sql"] for part in by_itself)] == []


def test_nothing_is_void_of_a_contract_that_was_never_read() -> None:
    batch = settle(owing()[0].pool)
    indexed(batch.deadline + timedelta(seconds=1))
    for elsewhere in ({"chain_id": settings.CHAIN_ID + 1}, {"contract_address": "0x" + "00" * 20}):
        ChainCursor.objects.update(chain_id=settings.CHAIN_ID, contract_address=settings.ESCROW_ADDRESS)
        ChainCursor.objects.update(**elsewhere)
        with unmoved():
            assert settlement.void_expired(landed=books.never_landed, limit=9) == 0


class Node:
    """A node that has read so far, and whose contract gives one answer."""

    def __init__(self, newest: int, *, answer: bool) -> None:
        self.newest, self.answer = newest, answer
        self.asked: list[tuple[Any, ...]] = []

    def tiers(self) -> Tiers:
        block = Block(self.newest, "0x", "0x", 0, 0)
        return Tiers(latest=block, safe=Block(0, "0x", "0x", 0, 0), final=Block(0, "0x", "0x", 0, 0))

    def call(self, to: str, data: bytes, block: Any = None, **_: Any) -> bytes:
        self.asked.append((to, data, block))
        return int(self.answer).to_bytes(32, "big")


@pytest.mark.parametrize("answer", [True, False])
def test_the_contract_is_asked_about_the_first_record_at_the_newest_block(answer: bool) -> None:
    spending, to = books.session(), books.party()
    books.pay(spending, to, 1)
    sign(spending.pool)
    books.pay(spending, to, 1)
    batch = sign(spending.pool)
    node: Any = Node(78, answer=answer)
    assert settlement.landed_on(node)(batch, 77) is answer
    assert settlement.landed_on(node)(batch, 78) is answer
    assert batch.first_seq == 1
    asked = (
        settings.ESCROW_ADDRESS,
        codec("BudgetPool").call("isSettled", batch.pool.key, 1),
        78,
    )
    assert node.asked == [asked, asked]


def test_a_node_that_has_not_come_so_far_knows_nothing() -> None:
    batch = sign(debt(1))
    node: Any = Node(76, answer=False)
    with pytest.raises(ChainUnavailable, match="the node is at block 76, before block 77"):
        settlement.landed_on(node)(batch, 77)
    assert node.asked == []
