"""Payments, holds, captures, refunds and batches in any order, beside a plain reckoning of who should have what.

The reckoning adds and subtracts what passed, and knows nothing of accounts, debts or batches.
"""

from collections import Counter
from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from django.db import transaction
from django.db.models import F, Sum
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from escrow import holds, ledger, refunds, settlement
from escrow.chain.signer import LocalSigner
from escrow.errors import EscrowError, InsufficientFunds, InvalidInput, StateConflict
from escrow.models import DUE, Account, Batch, BatchRecord, Hold, Payment
from tests.escrow import books
from tests.escrow.books import NOW, balance
from tests.escrow.test_refunds import check_debts

pytestmark = pytest.mark.django_db
BUDGET = 10_000
micros = st.sampled_from([1, 2, 7, 100, 999, 4_000])
parts = st.one_of(st.none(), micros)
which = st.integers(min_value=0, max_value=9)
AUTHORIZER = LocalSigner(b"\1" * 32)


class Walk(RuleBasedStateMachine):
    """Two sessions of one pool, and two parties."""

    def __init__(self) -> None:
        super().__init__()
        self.undo = transaction.atomic()
        self.undo.__enter__()
        self.now: datetime = NOW
        self.pool = books.pool(3 * BUDGET)
        self.sessions = [books.session(self.pool, BUDGET) for _ in range(2)]
        self.parties = [books.party() for _ in range(2)]
        self.left = Counter({session.pk: BUDGET for session in self.sessions})
        self.held: dict[object, int] = {}
        self.earned = Counter({party.pk: 0 for party in self.parties})
        self.back = Counter[object]()

    def teardown(self) -> None:
        check_debts(self.pool)
        books.check_pool(self.pool)
        transaction.set_rollback(True)
        self.undo.__exit__(None, None, None)

    def tried(self, step: object, *expected: type[EscrowError]) -> bool:
        """Take a step; return whether it passed. One that is refused moves no money."""
        before = books.money()
        try:
            with transaction.atomic():
                self.outcome = step()  # type: ignore[operator]
        except expected:
            assert books.money() == before
            return False
        return True

    def some(self, rows: object, at: int) -> object:
        found = list(rows)  # type: ignore[call-overload]
        return found[at % len(found)]

    @rule(session=which, party=which, amount=micros)
    def send(self, session: int, party: int, amount: int) -> None:
        by, to = self.sessions[session % 2], self.parties[party % 2]
        passed = self.tried(lambda: books.pay(by, to, amount), InsufficientFunds)
        assert passed == (amount <= self.left[by.pk])
        if passed:
            self.left[by.pk] -= amount
            self.earned[to.pk] += amount

    @rule(session=which, party=which, amount=micros, seconds=st.sampled_from([60, 3_600]))
    def hold(self, session: int, party: int, amount: int, seconds: int) -> None:
        by, to = self.sessions[session % 2], self.parties[party % 2]
        place = {"session": by, "party": to, "to": books.LINT, "amount_micros": amount, "expires_in": seconds}
        passed = self.tried(lambda: holds.place(now=self.now, **place), InsufficientFunds)
        assert passed == (amount <= self.left[by.pk])
        if passed:
            self.left[by.pk] -= amount
            self.held[self.outcome.pk] = amount

    @precondition(lambda self: Hold.objects.exists())
    @rule(at=which, amount=parts)
    def capture(self, at: int, amount: int | None) -> None:
        held = self.some(Hold.objects.order_by("created_at", "pk"), at)
        was, over = self.held.get(held.pk), self.now >= held.expires_at
        take = lambda: holds.capture(hold=held, amount_micros=amount, now=self.now)  # noqa: E731
        passed = self.tried(take, StateConflict, InvalidInput)
        assert passed == (was is not None and not over and (amount is None or amount <= was))
        if passed and was is not None:
            paid = was if amount is None else amount
            self.left[held.session_id] += was - paid
            self.earned[held.party_id] += paid
            del self.held[held.pk]

    @precondition(lambda self: Hold.objects.exists())
    @rule(at=which)
    def release(self, at: int) -> None:
        held = self.some(Hold.objects.order_by("created_at", "pk"), at)
        passed = self.tried(lambda: holds.release(hold=held, now=self.now), StateConflict)
        assert passed == (held.pk in self.held or held.status == "released")
        self.left[held.session_id] += self.held.pop(held.pk, 0)

    @rule(minutes=st.sampled_from([1, 59, 61]))
    def wait(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)
        over = [held for held in Hold.objects.filter(pk__in=self.held) if held.expires_at <= self.now]
        assert holds.release_expired(now=self.now, limit=99) == len(over)
        for held in over:
            self.left[held.session_id] += self.held.pop(held.pk)

    @precondition(lambda self: Payment.objects.exists())
    @rule(at=which, amount=parts, is_asked=st.booleans())
    def refund(self, at: int, amount: int | None, is_asked: bool) -> None:
        payment = self.some(Payment.objects.order_by("pk"), at)
        left = payment.amount_micros - self.back[payment.pk]
        owed = balance(ledger.payable(self.pool, payment.party))

        def give() -> None:
            if is_asked:
                asked = refunds.ask(payment=payment, amount_micros=amount, reason="x", now=self.now)
                refunds.grant(refund=asked, now=self.now)
            else:
                refunds.pay(payment=payment, amount_micros=amount, reason="x", now=self.now)

        wanted = left if amount is None else amount
        passed = self.tried(give, StateConflict, InvalidInput)
        if not left:
            assert passed == (amount is None and not is_asked)
            return
        assert passed == (payment.status != "settling" and wanted <= min(left, owed))
        if passed:
            self.back[payment.pk] += wanted
            self.left[payment.session_id] += wanted
            self.earned[payment.party_id] -= wanted

    @rule()
    def settle(self) -> None:
        owes = Payment.objects.filter(status="payable").exists()
        batch = settlement.settle(pool=self.pool, authorizer=AUTHORIZER, now=self.now)
        assert (batch is not None) == owes

    @precondition(lambda self: Batch.objects.filter(status="signed").exists())
    @rule(at=which, lands=st.booleans())
    def end_a_batch(self, at: int, lands: bool) -> None:
        batch = self.some(Batch.objects.filter(status="signed").order_by("first_seq"), at)
        if lands:
            books.land(batch, tx_hash=f"0x{uuid4().hex:0>64}")
        else:
            settlement.void(batch=batch)

    @invariant()
    def the_books_add_up(self) -> None:
        books.check_conservation()
        held = ledger.balances_by_kind(self.pool)
        due = dict(Payment.objects.values_list("status").annotate(s=Sum(DUE)))
        assert (held.get("payable", 0), held.get("settling", 0)) == (due.get("payable", 0), due.get("settling", 0))
        assert (held.get("hold", 0), held["session"]) == (sum(self.held.values()), sum(self.left.values()))

    @invariant()
    def everybody_has_what_the_reckoning_says(self) -> None:
        assert {session.pk: balance(session.account) for session in self.sessions} == self.left
        owed = Payment.objects.values_list("party").annotate(s=Sum(F("amount_micros") - F("refunded_micros")))
        landed = Account.objects.filter(kind__in=["payable", "credited"]).values_list("party")
        has = Counter(dict(landed.annotate(s=Sum(F("received_micros") - F("sent_micros")))))
        signed = BatchRecord.objects.filter(batch__status="signed").values_list("party")
        has += Counter(dict(signed.annotate(s=Sum("amount_micros"))))
        earned = {party: micros for party, micros in self.earned.items() if micros}
        assert {party: micros for party, micros in owed if micros} == dict(has) == earned
        went = dict(Payment.objects.filter(refunded_micros__gt=0).values_list("pk", "refunded_micros"))
        assert went == dict(self.back)


def test_whatever_happens_everybody_has_what_was_paid_less_what_came_back() -> None:
    run_state_machine_as_test(
        Walk,
        settings=settings(
            max_examples=12,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
