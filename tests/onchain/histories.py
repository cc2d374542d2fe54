"""Seeded histories of the money rooms on a chain: everything that moves money, in any order, until it is quiet again."""

import random
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import uuid4

from django.db import transaction

from escrow import disputes, holds, invoices, pools, refunds, sessions
from escrow.errors import EscrowError
from escrow.models import Dispute, Hold, Invoice, Party, Payment, Pool, Session
from escrow.policy import Policy
from tests.onchain.conftest import Chain, party

USDC = 1_000_000
TO = "agent://lint.acme.dev"
POLICY = Policy(max_per_tx=USDC, max_per_hour=20 * USDC, max_per_day=30 * USDC, max_tx_per_minute=100)
PART = Policy(max_per_tx=USDC, max_per_hour=USDC, max_per_day=USDC, max_tx_per_minute=10)
"""A child's: all that its parent may spend would leave its parent nothing."""


@dataclass
class History:
    """One pool with two sessions, and what a seed does with them. `parties` may be shared with other histories."""

    chain: Chain
    seed: int
    parties: list[Party] = field(default_factory=lambda: [party("lint"), party("check")])

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.taken: list[str] = []
        self.pool: Pool = self.chain.open_pool(10 * USDC, window=self.draw.choice([0, 3_600]))
        open_ = {"pool": self.pool, "policy": POLICY, "now": self.chain.now()}
        self.sessions = [sessions.open(budget_micros=3 * USDC, **open_) for _ in range(2)]

    def walk(self, steps: int) -> None:
        """Take steps; one that the rooms refuse ("!") or that finds nothing to do ("-") changes nothing, and is one too."""
        for _ in range(steps):
            step = self.draw.choice(STEPS)
            self.taken.append(step)
            try:
                with transaction.atomic():
                    is_done = getattr(self, f"_{step}")()
            except EscrowError:
                self.taken[-1] += "!"
            else:
                self.taken[-1] += "" if is_done else "-"

    def micros(self) -> int:
        return self.draw.choice([1, 7, 1_000, 250_000, 999_999])

    def session(self) -> Session:
        return self.draw.choice(self.sessions)

    def _pay(self) -> bool:
        self.chain.pay(self.session(), self.draw.choice(self.parties), self.micros())
        return True

    def _hold(self) -> bool:
        payee, by = self.draw.choice(self.parties), self.session()
        ends = self.draw.choice([None, 900])
        terms = {"to": TO, "amount_micros": self.micros(), "expires_in": ends, "now": self.chain.now()}
        held = holds.place(session=by, party=payee, **terms)
        if ends is None:
            self._claim(held)
        return True

    def _claim(self, held: Hold) -> None:
        about = {"number": uuid4().hex, "memo": "", "task_ref": "t", "deliverable": {}, "now": self.chain.now()}
        amount = self.draw.randint(1, held.amount_micros)
        invoices.submit(hold=Hold.objects.get(pk=held.pk), amount_micros=amount, **about)

    def _capture(self) -> bool:
        held = self._one(Hold.objects.filter(session__pool=self.pool, status="held", expires_at__isnull=False))
        if held is not None:
            part = self.draw.choice([None, self.draw.randint(1, held.amount_micros)])
            holds.capture(hold=held, amount_micros=part, now=self.chain.now())
        return held is not None

    def _release(self) -> bool:
        held = self._one(Hold.objects.filter(session__pool=self.pool, status="held", expires_at__isnull=False))
        if held is not None:
            holds.release(hold=held, now=self.chain.now())
        return held is not None

    def _approve(self) -> bool:
        invoice = self._one(Invoice.objects.filter(session__pool=self.pool, status__in=["submitted", "rejected"]))
        if invoice is not None:
            invoices.approve(invoice=invoice, now=self.chain.now())
        return invoice is not None

    def _withdraw(self) -> bool:
        invoice = self._one(Invoice.objects.filter(session__pool=self.pool, status="submitted"))
        if invoice is not None:
            invoices.withdraw(invoice=invoice, now=self.chain.now())
        return invoice is not None

    def _dispute(self) -> bool:
        invoice = self._one(Invoice.objects.filter(session__pool=self.pool, status="submitted"))
        payment = self._one(Payment.objects.filter(pool=self.pool, status__in=["payable", "settled"]))
        if invoice is not None and self.draw.random() < 0.5:
            disputes.open_for_invoice(invoice=invoice, reason="nothing came", now=self.chain.now())
        elif payment is not None:
            disputes.open_for_payment(payment=payment, reason="nothing came", now=self.chain.now())
        else:
            return False
        return True

    def _rule(self) -> bool:
        dispute = self._one(Dispute.objects.filter(session__pool=self.pool, status__in=["open", "answered"]))
        if dispute is not None:
            share = self.draw.choice([0, 3_333, 10_000])
            about = {"reason": "half came", "ruled_by": "anna", "now": self.chain.now()}
            disputes.rule(dispute=dispute, to_provider_bps=share, **about)
        return dispute is not None

    def _refund(self) -> bool:
        payment = self._one(Payment.objects.filter(pool=self.pool))
        if payment is not None:
            part = self.draw.choice([None, self.draw.randint(1, payment.amount_micros)])
            refunds.pay(payment=payment, amount_micros=part, reason="late", now=self.chain.now())
        return payment is not None

    def _nest(self) -> bool:
        parent = self.session()
        self.sessions.append(
            sessions.open_child(parent=parent, budget_micros=100_000, policy=PART, now=self.chain.now())
        )
        return True

    def _close_session(self) -> bool:
        if len(self.sessions) <= 2:
            return False
        sessions.close(session=self.sessions.pop(), now=self.chain.now())
        return True

    def _top_up(self) -> bool:
        sessions.top_up(session=self.session(), amount_micros=self.micros(), now=self.chain.now())
        return True

    def _settle(self) -> bool:
        return self.chain.settle() > 0

    def _relay(self) -> bool:
        return self.chain.relay() > 0

    def _index(self) -> bool:
        return self.chain.index() > 0

    def _pay_out(self) -> bool:
        return self.chain.pay_out() > 0

    def _one(self, rows: object) -> object:
        found = list(rows.order_by("pk"))  # type: ignore[attr-defined]
        return self.draw.choice(found) if found else None

    def close(self) -> None:
        """Bring the pool to its end, as its payer asks."""
        pools.close(pool=self.pool, now=self.chain.now() + timedelta(0))


STEPS = [
    *["pay"] * 8, *["hold"] * 5, "capture", "capture", "release", "release", "approve", "approve", "withdraw", "withdraw",
    "dispute", "dispute", "rule", "rule", "refund", "refund", "nest", "nest", "nest", "close_session", "close_session",
    "top_up", "settle", "settle", "relay", "relay", "index", "pay_out", "pay_out",
]  # fmt: skip
