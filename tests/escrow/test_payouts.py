"""Payouts: a credit is withdrawn once it is ripe, whatever came in after it; nobody's trouble keeps others waiting."""

from datetime import timedelta

import pytest
from django.utils import timezone

from escrow import ledger, lifecycle, payouts
from escrow.ledger import Move
from escrow.models import ChainAction, Party, Pool, Reason
from tests.escrow import books

pytestmark = pytest.mark.django_db
WINDOW = 3_600


def credit(pool: Pool, party: Party, micros: int, ref: str) -> None:
    ledger.post([Move(ledger.free(pool), ledger.credited(pool, party), micros, Reason.CREDIT, ref)])


def windows(number: float) -> timedelta:
    return timedelta(seconds=WINDOW * number)


@pytest.fixture
def pool() -> Pool:
    made = books.pool()
    Pool.objects.filter(pk=made.pk).update(dispute_window_seconds=WINDOW)
    return made


@pytest.fixture
def seller() -> Party:
    return books.party()


def due(now_in: timedelta) -> int:
    return payouts.pay_due(now=timezone.now() + now_in, limit=10)


def test_a_credit_waits_for_two_windows(pool: Pool, seller: Party) -> None:
    credit(pool, seller, 500, "batch-1")
    assert due(windows(1.99)) == 0
    assert due(windows(2)) == 1
    assert due(windows(2)) == 0  # it is on its way
    action = ChainAction.objects.get(kind="withdraw")
    assert (action.pool, action.subject_id, action.dedupe_key) == (pool, seller.pk, f"withdraw:{pool.pk}:{seller.pk}:0")


def test_a_late_credit_is_paid_when_it_is_ripe_itself(pool: Pool, seller: Party) -> None:
    credit(pool, seller, 500, "batch-1")
    credit(pool, seller, 300, "batch-2")
    payouts.withdrawn(pool, seller, net_micros=495, fee_micros=5, ref="0xaa:1")
    assert due(windows(1)) == 0
    assert due(windows(2)) == 1
    assert ChainAction.objects.get(kind="withdraw").dedupe_key.endswith(":1")


def test_nothing_is_due_when_all_has_left(pool: Pool, seller: Party) -> None:
    credit(pool, seller, 500, "batch-1")
    payouts.withdrawn(pool, seller, net_micros=495, fee_micros=5, ref="0xaa:1")
    assert due(windows(9)) == 0
    assert ledger.balance(ledger.fees()) == 5


def test_a_parked_withdrawal_keeps_nobody_else_waiting(pool: Pool, seller: Party) -> None:
    other = books.party("other.dev")
    credit(pool, seller, 500, "batch-1")
    credit(pool, other, 500, "batch-1b")
    assert due(windows(2)) == 2
    blocked = ChainAction.objects.get(subject_id=seller.pk)
    lifecycle.move(blocked, ChainAction.Status.PARKED)
    ChainAction.objects.filter(subject_id=other.pk).delete()
    assert payouts.pay_due(now=timezone.now() + windows(2), limit=1) == 1
    assert ChainAction.objects.filter(subject_id=other.pk).count() == 1


def test_a_reverted_withdrawal_is_tried_again_at_most_three_times(pool: Pool, seller: Party) -> None:
    credit(pool, seller, 500, "batch-1")
    for turn in range(5):
        due(windows(2))
        ChainAction.objects.filter(status="planned").update(status="reverted")
        assert ChainAction.objects.filter(kind="withdraw").count() == min(turn + 1, 3)


def test_fees_wait_until_they_are_worth_a_chain_transaction(pool: Pool, seller: Party, settings: object) -> None:
    settings.FEE_PAYOUT_MIN_MICROS = 5  # type: ignore[attr-defined]
    credit(pool, seller, 500, "batch-1")
    payouts.withdrawn(pool, seller, net_micros=496, fee_micros=4, ref="0xaa:1")
    assert not payouts.pay_fees(now=books.NOW)
    credit(pool, seller, 100, "batch-2")
    payouts.withdrawn(pool, seller, net_micros=99, fee_micros=1, ref="0xaa:2")
    assert payouts.pay_fees(now=books.NOW)
    payouts.fees_withdrawn(amount_micros=5, ref="0xaa:3")
    assert ledger.balance(ledger.fees()) == 0
