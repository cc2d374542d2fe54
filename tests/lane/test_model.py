"""Random batches against a model in plain Python: the database says of every order exactly what the model says."""

import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection

from escrow import money, refunds, sessions
from escrow.models import Account, Party, Payment, Session, Transfer
from escrow.policy import Policy
from tests.escrow import books
from tests.escrow.books import LINT, NOW

pytestmark = pytest.mark.django_db(transaction=True)

SEEDS = range(200 if os.environ.get("FULL") else 12)
TICK = timedelta(microseconds=1)
SPANS = {
    "max_per_hour": timedelta(hours=1), "max_per_day": timedelta(days=1), "max_tx_per_minute": timedelta(minutes=1),
}  # fmt: skip
STEPS = [
    timedelta(0),
    TICK,
    timedelta(seconds=7),
    *(span + skew for span in SPANS.values() for skew in (-TICK, timedelta(0))),
]
_SEND = """
SELECT outcome, remaining_micros, facts::text, payment_id FROM escrow_send(
    %s, %s, interval '1 day', %s::uuid[], %s::uuid[], %s::text[], %s::bigint[], %s::text[], %s::text[], %s::text[],
    %s::text[], %s::bytea[], %s::integer[], %s::timestamptz[], %s::timestamptz[], %s::text[]
)
"""


@dataclass
class Spender:
    """A session, and what the model knows of it."""

    session: Session
    policy: Policy
    given: int
    balance: int
    sent: list[tuple[datetime, int]] = field(default_factory=list)
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    """From each key that has paid to its hash and what was left then."""

    def verdict(self, micros: int, key: str, hashed: int, at: datetime, in_batch: set[str]) -> tuple[str, Any]:
        """Return the outcome of an order, and what is left or the limit and what counts against it; pay if it may."""
        if key in self.keys:
            known, left = self.keys[key]
            return ("replayed", left) if known == hashed else ("key_conflict", left)
        if key in in_batch:
            return "busy", None
        limits = self.policy
        if limits.max_per_tx is not None and micros > limits.max_per_tx:
            return "max_per_tx", (limits.max_per_tx, None)
        spent = {"max_total": self.given - self.balance}
        for rule in ("max_per_hour", "max_per_day"):
            spent[rule] = sum(amount for when, amount in self.sent if when > at - SPANS[rule])
        for rule, counted in spent.items():
            limit = getattr(limits, rule)
            if limit is not None and counted + micros > limit:
                return rule, (limit, counted)
        number = sum(when > at - SPANS["max_tx_per_minute"] for when, _ in self.sent)
        if limits.max_tx_per_minute is not None and number >= limits.max_tx_per_minute:
            return "max_tx_per_minute", (limits.max_tx_per_minute, None)
        if micros > self.balance:
            return "insufficient_funds", self.balance
        self.balance -= micros
        self.sent.append((at, micros))
        in_batch.add(key)
        return "allowed", self.balance


def spender(dice: random.Random, of: Any) -> Spender:
    """Open a session with some limits."""
    names = [*SPANS, "max_per_tx", "max_total"]
    limits = {name: dice.randint(3, 60) for name in dice.sample(names, dice.randint(0, 3))}
    policy, given = Policy(**limits), dice.choice([20, 100, 1_000])  # type: ignore[arg-type]
    return Spender(books.session(of, given, policy), policy, given, given)


def send(
    orders: Sequence[tuple[Spender, Party, int, str, int]], *, patient: bool, at: datetime
) -> list[tuple[Any, ...]]:
    """Let the database decide a batch at a time."""
    by, to, amounts, keys, hashes = zip(*orders, strict=True)
    many = len(orders)
    arguments: list[Any] = [patient, at, [one.session.pk for one in by], [one.pk for one in to], [LINT] * many]
    arguments += [list(amounts), [money.render(amount) for amount in amounts], ["{}"] * many, [""] * many, list(keys)]
    arguments += [[bytes([number]) * 32 for number in hashes], [one.session.policy_version for one in by]]
    arguments += [[None] * many, [None] * many, [None] * many]
    with connection.cursor() as cursor:
        cursor.execute(_SEND, arguments)
        return list(cursor.fetchall())


def change(dice: random.Random, spenders: Sequence[Spender]) -> None:
    """Top a session up, or give a payment back."""
    one = dice.choice(spenders)
    if dice.random() < 0.5:
        sessions.top_up(session=one.session, amount_micros=5, now=NOW)
        one.given, one.balance = one.given + 5, one.balance + 5
        return
    paid = Payment.objects.filter(session=one.session, status=Payment.Status.PAYABLE).first()
    if paid is not None:
        refunds.pay(payment=paid, reason="x", now=NOW)
        one.balance += paid.amount_micros


@pytest.mark.parametrize("seed", SEEDS)
def test_the_database_judges_as_the_model_does(seed: int) -> None:
    dice = random.Random(seed)
    of, parties = books.pool(), [books.party() for _ in range(3)]
    spenders = [spender(dice, of) for _ in range(4)]
    at = NOW
    for _ in range(12):
        at += dice.choice(STEPS)
        orders = []
        for _ in range(dice.randint(1, 24)):
            key = f"k{dice.randint(0, 30)}" if dice.random() < 0.3 else uuid4().hex
            orders.append((dice.choice(spenders), dice.choice(parties), dice.randint(1, 12), key, dice.randint(1, 2)))
        rows = send(orders, patient=dice.random() < 0.5, at=at)
        in_batch: dict[int, set[str]] = {id(one): set() for one in spenders}
        allowed = []
        for (one, _, micros, key, hashed), (outcome, remaining, facts, _) in zip(orders, rows, strict=True):
            wanted, more = one.verdict(micros, key, hashed, at, in_batch[id(one)])
            counted = json.loads(facts) if facts else {}
            said = (counted["limit"], counted.get("spent")) if isinstance(more, tuple) else remaining
            assert (outcome, None if outcome == "busy" else said) == (wanted, more)
            if outcome == "allowed":
                allowed.append((one, key, hashed, remaining))
        for one, key, hashed, remaining in allowed:
            one.keys[key] = (hashed, remaining)
        change(dice, spenders)
    for one in spenders:
        account = Account.objects.get(pk=one.session.account_id)
        assert (account.balance_micros, account.sent_count) == (one.balance, len(one.sent))
        lines = Transfer.objects.filter(sender=account).order_by("created_at", "id")
        assert [(line.created_at, line.amount_micros) for line in lines] == one.sent
        assert [line.sender_nth for line in lines] == list(range(1, len(one.sent) + 1))
    books.check_conservation()
