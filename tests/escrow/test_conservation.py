"""Whatever is done, in whatever order: nothing is made, nothing is lost, and what is refused moves nothing."""

import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import transaction

from escrow import (
    disputes,
    events,
    funding,
    holds,
    invoices,
    ledger,
    mirroring,
    pools,
    refunds,
    sessions,
    settlement,
    silence,
)
from escrow.chain.signer import LocalSigner
from escrow.errors import EscrowError
from escrow.models import Batch, Dispute, Hold, Invoice, Party, Payment, Pool, Refund, Session, Transfer
from escrow.policy import Policy
from tests.escrow import books
from tests.escrow.books import NOW, USDC
from tests.escrow.test_settlement import indexed

pytestmark = pytest.mark.django_db
STEPS = 120


class Market:
    """Two pools, three parties, and a die. Each verb takes any row there is, in any state."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.now = NOW
        self.pools = [books.pool(40 * USDC), books.pool(3 * USDC)]
        self.parties = [books.party() for _ in range(3)]
        for of in self.pools:
            books.session(of, USDC)

    def any(self, model: type) -> object:
        rows = list(model.objects.order_by("pk"))
        if not rows:
            raise LookupError
        return self.dice.choice(rows)

    def party(self) -> Party:
        return self.dice.choice(self.parties)

    def micros(self) -> int:
        return self.dice.choice([1, 7, 8_000, 12_000, 400_001, USDC])

    def verbs(self) -> dict[str, Callable[[], object]]:
        any_, micros, now, text = self.any, self.micros(), self.now, "because"
        return {
            "open": lambda: sessions.open(
                pool=self.dice.choice(self.pools), budget_micros=micros, policy=Policy(max_per_tx=500_000), now=now
            ),
            "top_up": lambda: sessions.top_up(session=any_(Session), amount_micros=micros, now=now),
            "close": lambda: self.seldom(lambda: sessions.close(session=any_(Session), now=now)),
            "pay": lambda: books.pay(any_(Session), self.party(), micros),
            "pay_again": lambda: books.pay(any_(Session), self.party(), micros, key=str(self.dice.randrange(9))),
            "refund": lambda: refunds.pay(payment=any_(Payment), reason=text, now=now),
            "refund_part": lambda: refunds.pay(payment=any_(Payment), amount_micros=micros, reason=text, now=now),
            "ask": lambda: refunds.ask(payment=any_(Payment), reason=text, now=now),
            "grant": lambda: refunds.grant(refund=any_(Refund), now=now),
            "decline": lambda: refunds.decline(refund=any_(Refund), reason=text, now=now),
            "hold": lambda: books.hold(any_(Session), self.party(), micros),
            "give_back": lambda: holds.give_back(hold=any_(Hold), now=now),
            "hold_for_a_call": lambda: books.hold(any_(Session), self.party(), micros, expires_in=7_200),
            "capture": lambda: holds.capture(hold=any_(Hold), now=now),
            "capture_part": lambda: holds.capture(hold=any_(Hold), amount_micros=micros, now=now),
            "release": lambda: holds.release(hold=any_(Hold), now=now),
            "submit": lambda: books.invoice(any_(Hold), micros, number=str(self.dice.randrange(10**9))),
            "approve": lambda: invoices.approve(invoice=any_(Invoice), now=now),
            "reject": lambda: invoices.reject(invoice=any_(Invoice), reason=text, now=now),
            "withdraw": lambda: invoices.withdraw(invoice=any_(Invoice), now=now),
            "dispute_invoice": lambda: disputes.open_for_invoice(invoice=any_(Invoice), reason=text, now=now),
            "dispute_payment": self.dispute_payment,
            "answer": lambda: disputes.answer(dispute=any_(Dispute), answer=text, now=now),
            "rule": self.rule,
            "settle": lambda: settlement.settle_due(authorizer=LocalSigner(b"\1" * 32), now=now),
            "land": self.land,
            "void": lambda: settlement.void(batch=any_(Batch)),
            "void_expired": lambda: (indexed(self.now), settlement.void_expired(landed=books.never_landed, limit=9)),
            "silence": lambda: (
                invoices.approve_by_silence(now=now, limit=9)
                + silence.rule_by_silence(now=now, limit=9)
                + refunds.lapse_by_silence(now=now, limit=9)
                + holds.release_expired(now=now, limit=9)
            ),
            "wait": self.wait,
            "publish": events.publish,
            "topped_up": lambda: funding.topped_up(
                self.dice.choice(self.pools), amount_micros=micros, ref=f"0x{self.dice.randrange(10**9)}:0"
            ),
        }

    def seldom(self, verb: Callable[[], object]) -> object:
        return verb() if self.dice.random() < 0.2 else None

    def wait(self) -> None:
        self.now += timedelta(hours=self.dice.choice([1, 20, 80]))

    def dispute_payment(self) -> Dispute:
        payment = self.any(Payment)
        assert isinstance(payment, Payment)
        return disputes.open_for_payment(payment=payment, reason="because", now=self.now)

    def rule(self) -> Dispute:
        dispute = self.any(Dispute)
        assert isinstance(dispute, Dispute)
        bps = self.dice.choice([0, 1, 3_333, 5_000, 7_000, 10_000])
        return disputes.rule(dispute=dispute, to_provider_bps=bps, reason="fair", ruled_by="admin", now=self.now)

    def land(self) -> None:
        """Let the chain take a batch, as the indexer mirrors it."""
        batch = Batch.objects.filter(status="signed").order_by("pk").first()
        if batch is None:
            raise LookupError
        mirroring.credit(batch, mirroring.Place(ref=f"0x{batch.pk.hex}:0", at=self.now))


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_made_or_lost(seed: int) -> None:
    market, done = Market(seed), Counter[str]()
    for step in range(STEPS):
        verbs = market.verbs()
        name = market.dice.choice(sorted(verbs))
        before = books.money()
        try:
            with transaction.atomic():
                verbs[name]()
        except LookupError:
            continue
        except EscrowError:
            assert books.money() == before, (step, name)
            continue
        done[name] += 1
        books.check_conservation()
        for of in market.pools:
            books.check_pool(of)
            check_statuses(of)
    assert sum(done.values()) > STEPS // 3, done
    assert Transfer.objects.count() > STEPS // 8


def check_statuses(of: Pool) -> None:
    """Check that what the rows say is owed, held and settling is what the accounts hold."""
    at = pools.balances(of)
    debts = Payment.objects.filter(pool=of)
    assert at.payable == sum(p.due_micros for p in debts.filter(status="payable"))
    assert at.settling == sum(p.due_micros for p in debts.filter(status="settling"))
    held = Hold.objects.filter(session__pool=of, status="held").select_related("account")
    assert at.held == sum(hold.account.balance_micros for hold in held)
    contested = Dispute.objects.filter(session__pool=of, on_chain=False, status__in=["open", "answered"])
    assert at.disputed == sum(dispute.amount_micros for dispute in contested)
    assert ledger.balance(ledger.world(of)) <= 0
