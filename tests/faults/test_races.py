"""Rows 40 and 42: what a payer does while its debts are being signed. Whoever comes first, money is in one place."""

import os
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self
from uuid import UUID

import pytest
from django.db import connection, connections, transaction

from escrow import disputes, holds, pools, refunds, sessions, settlement
from escrow.chain.signer import LocalSigner
from escrow.errors import EscrowError, StateConflict
from escrow.models import Batch, Dispute, Hold, Party, Payment, Pool, Session
from tests.escrow import books
from tests.escrow.books import NOW, USDC
from tests.faults.conftest import check_books, check_paid_once
from tests.onchain.conftest import Chain, party

pytestmark = pytest.mark.django_db(transaction=True)

AUTHORIZER = LocalSigner(b"\1" * 32)
FULL = bool(os.environ.get("FULL"))
ROUNDS, DUELS = (40, 200) if FULL else (2, 6)
MOST_ROUNDS = 60
"""It is given up after so many, when there is a verb that was always too late."""
PATIENCE = 30
REFUSALS = {"StateConflict", "NotRefundable"}
"""What whoever came too late may be told."""


def at_once(*calls: Callable[[], object]) -> list[str]:
    """Run calls together, each in a thread and a connection of its own; return "done" or the refusal of each."""
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> str:
        try:
            gate.wait(PATIENCE)
            call()
        except EscrowError as error:
            return type(error).__name__
        finally:
            connections.close_all()
        return "done"

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))


class Watch:
    """Looks, as often as it can, whether a pool's money adds up: in one snapshot, as everybody else sees it."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.looks, self._done = pool, 0, threading.Event()
        self.wrong: list[Exception] = []
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "it looks for ever"

    def _watch(self) -> None:
        try:
            while not self._done.is_set():
                with transaction.atomic():
                    with connection.cursor() as sql:
                        sql.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    at = books.check_pool(self.pool)
                    assert min(getattr(at, name) for name in at.__slots__) >= 0
                    books.check_conservation()
                self.looks += 1
        except Exception as error:  # noqa: BLE001 - whatever it saw, the test shall tell
            self.wrong.append(error)
        finally:
            connections.close_all()


def settle(pool: Pool) -> Batch | None:
    return settlement.settle(pool=Pool.objects.get(pk=pool.pk), authorizer=AUTHORIZER, now=NOW)


def void_all(pool: Pool) -> None:
    for batch in Batch.objects.filter(pool=pool, status=Batch.Status.SIGNED).select_related("pool", "account"):
        settlement.void(batch=batch)


def check_debts(pool: Pool) -> None:
    """Check that what is in batches and what is payable is what the payments say."""
    at = books.check_pool(pool)
    due = Counter[str]()
    for payment in Payment.objects.filter(pool=pool):
        due[str(payment.status)] += payment.due_micros
    assert (at.payable, at.settling) == (due["payable"], due["settling"])
    for batch in Batch.objects.filter(pool=pool):
        records = sum(record.amount_micros for record in batch.records.all())
        assert books.balance(batch.account) == (records if batch.status == Batch.Status.SIGNED else 0)


@pytest.fixture
def contract(settings: Any) -> None:
    """Have a contract's address to sign for: no chain is needed to be first."""
    settings.ESCROW_ADDRESS = "0x" + "11" * 20


@pytest.mark.usefixtures("contract")
def test_closing_topping_up_cancelling_and_voiding_beside_a_settlement_keep_every_sum() -> None:
    done: Counter[str] = Counter()
    for number in range(MOST_ROUNDS):
        said = _everything_at_once()
        assert set(said.values()) <= {"done"} | REFUSALS, said
        done += Counter(verb for verb, how in said.items() if how == "done")
        assert done.keys() <= said.keys()
        if number + 1 >= ROUNDS and done.keys() == said.keys():
            return
    raise AssertionError(f"in {MOST_ROUNDS} rounds these alone were done: {done}")


def _everything_at_once() -> dict[str, str]:
    """Play one round in a pool of its own, check it, and return what became of each verb."""
    pool, to = books.pool(), books.party()
    spending = [books.session(pool, USDC) for _ in range(3)]
    set_aside = [books.hold(each, to, 1_000, expires_in=900) for each in spending]
    paid = [books.pay(each, to, 2_000) for each in spending for _ in range(2)]

    def reread(row: Session) -> Session:
        return sessions.reread(row.pk)

    def pay(by: Session) -> Callable[[], object]:
        return lambda: books.pay(by, to, 500)

    calls: dict[str, Callable[[], object]] = {
        "settle": lambda: settle(pool),
        "settle too": lambda: settle(pool),
        "void": lambda: (settle(pool), void_all(pool)),
        **{f"pay {number}": pay(each) for number, each in enumerate(spending)},
        "top up": lambda: sessions.top_up(session=reread(spending[0]), amount_micros=70_000, now=NOW),
        "close session": lambda: sessions.close(session=reread(spending[1]), now=NOW),
        "release": lambda: holds.release(hold=Hold.objects.get(pk=set_aside[0].pk), now=NOW),
        "capture": lambda: holds.capture(hold=Hold.objects.get(pk=set_aside[1].pk), amount_micros=600, now=NOW),
        "refund": lambda: refunds.pay(payment=paid[0], reason="sorry", now=NOW, amount_micros=300),
        "close": lambda: pools.close(pool=Pool.objects.get(pk=pool.pk), now=NOW),
    }
    with Watch(pool) as watch:
        said = dict(zip(calls, at_once(*calls.values()), strict=True))
    assert watch.wrong == []
    assert watch.looks > 0
    assert {said[verb] for verb in ("settle", "settle too", "void", "close")} == {"done"}, said
    check_debts(pool)
    books.check_conservation()
    settle(pool)
    check_debts(pool)
    at = books.check_pool(pool)
    assert (at.payable, at.in_sessions) == (0, 0)  # all sessions ended with the pool, and every debt is in a batch
    return said


@pytest.mark.usefixtures("contract")
def test_a_dispute_and_a_settlement_of_one_debt_end_with_the_one_that_was_first(subtests: pytest.Subtests) -> None:
    for number in range(DUELS):
        spending, to = books.session(micros=USDC), books.party()
        payment = books.pay(spending, to, 10_000)

        def dispute(payment_id: UUID = payment.pk) -> None:
            row = Payment.objects.get(pk=payment_id)
            disputes.open_for_payment(payment=row, amount_micros=10_000, reason="It never ran.", now=NOW)

        def sign(pool: Pool = spending.pool) -> None:
            settle(pool)

        with subtests.test(number=number):
            # The one that is asked first mostly wins: so both are asked first in turn.
            said = at_once(*((dispute, sign) if number % 2 else (sign, dispute)))
            payment.refresh_from_db()
            at = books.check_pool(spending.pool)
            if Dispute.objects.filter(payment=payment).exists():
                assert said == ["done", "done"]
                assert (payment.status, at.disputed, at.settling) == ("disputed", 10_000, 0)
                assert not Batch.objects.filter(pool=spending.pool).exists()
            else:
                assert sorted(said) == ["StateConflict", "done"]
                assert (payment.status, at.disputed, at.settling) == ("settling", 0, 10_000)
            check_debts(spending.pool)


def test_what_is_signed_is_not_disputed_until_it_has_landed_and_then_is_on_the_chain(chain: Chain) -> None:
    lint: Party = party("lint")
    pool = chain.open_pool(USDC, providers=(lint,), window=3_600)
    payment = chain.pay(chain.session(pool, USDC), lint, 100_000)
    assert chain.settle() == 1
    payment.refresh_from_db()
    with books.unmoved(), pytest.raises(StateConflict):
        disputes.open_for_payment(payment=payment, amount_micros=60_000, reason="It never ran.", now=chain.now())
    chain.quiet()
    payment.refresh_from_db()
    dispute = disputes.open_for_payment(payment=payment, amount_micros=60_000, reason="It never ran.", now=chain.now())
    assert dispute.on_chain
    chain.quiet()
    dispute.refresh_from_db()
    assert dispute.status == Dispute.Status.OPEN
    assert books.balance(dispute.account) == 60_000
    check_paid_once(chain, {lint: 100_000})
    check_books(chain)
