"""`escrow.receipts`: each payment of a signed batch can be proven from the root alone, and never falsely."""

import json
import logging
from collections import Counter
from datetime import timedelta

import pytest
from django.conf import settings
from eth_utils.crypto import keccak

from escrow import disputes, pools, receipts, refunds, settlement
from escrow.chain import contract
from escrow.chain.merkle import verify_proof
from escrow.chain.signer import LocalSigner
from escrow.errors import NotSettledYet, StateConflict
from escrow.models import Batch, ChainLog, Event, Payment, Session
from tests.escrow import books
from tests.escrow.books import NOW, USDC, unmoved

pytestmark = pytest.mark.django_db

TX = "0x" + "5e" * 32


@pytest.fixture
def spending() -> Session:
    """A session that owes four calls to two parties."""
    session = books.session()
    for party in (books.party("lint"), books.party("brief")):
        for micros in (12_000, 25_000):
            books.pay(session, party, micros)
    return session


def sign(session: Session) -> Batch:
    """Sign a batch of all that the session's pool owes."""
    batch = settlement.settle(pool=session.pool, authorizer=LocalSigner(b"\1" * 32), now=NOW)
    assert batch is not None
    return batch


def rows() -> list[Payment]:
    """Return every payment with what a receipt is made of."""
    return list(Payment.objects.select_related("record", "party", "pool").order_by("pk"))


def test_every_payment_is_proven_by_its_own_leaf(spending: Session) -> None:
    batch = sign(spending)
    root = bytes.fromhex(batch.root[2:])
    for payment in rows():
        assert payment.record is not None
        receipt = receipts.prove(payment=payment, now=NOW)
        assert verify_proof(root, receipt.leaf, receipt.proof)
        assert (receipt.batch, receipt.landing) == (batch, None)
        assert f"0x{receipt.leaf.pool_id.hex()}" == payment.pool.pool_key
        assert receipt.leaf.payment_id == payment.pk.bytes + b"\0" * 16
        assert (receipt.leaf.provider, receipt.leaf.amount) == (payment.party.address, payment.amount_micros)
        assert receipt.leaf.seq == payment.record.seq
        assert receipt.leaf.task_hash == keccak(
            json.dumps(payment.metadata, sort_keys=True, separators=(",", ":")).encode()
        )


def test_a_batch_of_one_is_its_own_root() -> None:
    spending = books.session()
    books.pay(spending, books.party(), 5)
    batch = sign(spending)
    receipt = receipts.prove(payment=rows()[0], now=NOW)
    assert (receipt.proof, f"0x{receipt.leaf.hash.hex()}") == ([], batch.root)


def test_the_tree_takes_one_query_and_is_made_once(spending: Session, django_assert_num_queries) -> None:
    sign(spending)
    first, second, *_ = rows()
    with django_assert_num_queries(2):  # the batch, and its payments
        receipts.prove(payment=first, now=NOW)
    with django_assert_num_queries(1):
        receipts.prove(payment=second, now=NOW)


def test_it_says_where_the_batch_landed_whoever_sent_it(spending: Session) -> None:
    batch = sign(spending)
    books.land(batch, tx_hash=TX, block=41)
    receipt = receipts.prove(payment=rows()[0], now=NOW)
    assert receipt.landing == receipts.Landing(TX, 41)
    assert receipts.landings([batch]) == {batch.pk: receipts.Landing(TX, 41)}


def test_a_batch_that_is_mined_says_so_and_is_proven_without_it_until_that_is_final(spending: Session) -> None:
    batch = sign(spending)
    args = {"first_seq": batch.first_seq, "root": batch.root}
    for at, root in enumerate((batch.root, "0x" + "00" * 32)):  # the other is none of ours
        ChainLog.objects.create(
            pool=batch.pool,
            event="BatchSettled",
            args={**args, "root": root},
            block_number=40 + at,
            block_hash="0x" + "0a" * 32,
            tx_hash=TX[:-1] + str(at),
            log_index=at,
        )
    with unmoved():
        assert receipts.landings([batch]) == {batch.pk: receipts.Landing(TX[:-1] + "0", 40, "mined")}
        assert receipts.prove(payment=rows()[0], now=NOW).landing is None


def test_a_payment_that_waits_says_until_when(spending: Session) -> None:
    payment = rows()[0]
    with unmoved(), pytest.raises(NotSettledYet) as refusal:
        receipts.prove(payment=payment, now=payment.created_at)
    due = payment.created_at + timedelta(seconds=settings.SETTLE_MAX_AGE)
    assert refusal.value.facts["settles_by"] == due.isoformat().replace("+00:00", "Z")
    late = due + timedelta(days=1)
    with unmoved(), pytest.raises(NotSettledYet) as refusal:
        receipts.prove(payment=payment, now=late)
    assert refusal.value.facts["settles_by"] == late.isoformat().replace("+00:00", "Z")


def test_what_lands_in_no_batch_is_a_conflict(spending: Session) -> None:
    refunded, disputed, *_ = rows()
    refunds.pay(payment=refunded, reason="late", now=NOW)
    disputes.open_for_payment(payment=disputed, amount_micros=disputed.amount_micros, reason="no", now=NOW)
    ended = rows()[2]
    for payment, state in zip(rows()[:2], ("refunded", "disputed"), strict=True):
        with unmoved(), pytest.raises(StateConflict) as refusal:
            receipts.prove(payment=payment, now=NOW)
        assert (refusal.value.code, refusal.value.facts["state"]) == ("conflict", state)
    with unmoved(), pytest.raises(StateConflict) as refusal:
        receipts.prove(payment=ended, now=ended.pool.expires_at)
    assert refusal.value.code == "conflict"


def test_a_reclaimed_pool_proves_nothing_more(spending: Session) -> None:
    pools.reclaimed(spending.pool, amount_micros=100 * USDC, ref="0x9:0", at=NOW)
    with unmoved(), pytest.raises(StateConflict) as refusal:
        receipts.prove(payment=rows()[0], now=NOW)
    assert (refusal.value.code, refusal.value.facts["subject"]) == ("conflict", "pool")


def test_a_payment_whose_batch_was_voided_meanwhile_waits_again(spending: Session) -> None:
    batch = sign(spending)
    read_before = rows()[0]
    settlement.void(batch=batch)
    with unmoved(), pytest.raises(NotSettledYet):
        receipts.prove(payment=read_before, now=NOW)


@pytest.mark.parametrize("known", [False, True], ids=["a fresh tree", "a tree made before"])
def test_never_a_false_proof(spending: Session, caplog: pytest.LogCaptureFixture, *, known: bool) -> None:
    sign(spending)
    payment = rows()[0]
    if known:
        receipts.prove(payment=payment, now=NOW)
    Payment.objects.filter(pk=payment.pk).update(metadata={"n": "another"})
    with unmoved(), caplog.at_level(logging.CRITICAL), pytest.raises(RuntimeError, match="cannot be proven"):
        receipts.prove(payment=rows()[0], now=NOW)
    assert str(payment.pk) in caplog.text


def test_the_calldata_is_all_that_landing_needs(spending: Session) -> None:
    batch = sign(spending)
    key = batch.pool.key
    deadline = int(batch.deadline.timestamp())
    root = bytes.fromhex(batch.root[2:])
    wanted = contract.settle(key, bytes(batch.packed), root, deadline, bytes(batch.signature))
    assert receipts.calldata(Batch.objects.select_related("pool").get()) == wanted


def test_a_signed_batch_is_told_to_each_party_in_it_and_so_is_its_end(spending: Session) -> None:
    batch = sign(spending)
    settlement.void(batch=batch)
    told = Event.objects.filter(subject_id=batch.pk).values_list("type", "party_id", "payload__amount")
    for type in ("batch.signed", "batch.voided"):
        amounts = Counter((party is not None, amount) for found, party, amount in told if found == type)
        assert amounts == {(True, "0.037"): 2, (False, "0.074"): 1}
