"""`escrow.sessions`: a cap that is a balance."""

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import F

from escrow import budgets, holds, ledger, payments, pools, refunds, sessions
from escrow.budgets import SessionBalances
from escrow.errors import InsufficientFunds, NotFound, PolicyDenied, StateConflict
from escrow.models import Party, Pool, Session, Transfer
from escrow.policy import Policy
from tests.escrow import books
from tests.escrow.books import LINT, NOW, USDC, balance, unmoved

pytestmark = pytest.mark.django_db


def test_a_budget_leaves_the_pool_for_the_session() -> None:
    of = books.pool(100 * USDC)
    spending = sessions.open(pool=of, budget_micros=25 * USDC, policy=Policy(max_per_tx=50_000), now=NOW, name="review")
    assert (spending.status, spending.name, spending.policy) == ("open", "review", {"max_per_tx": "0.05"})
    assert (balance(spending.account), balance(ledger.free(of))) == (25 * USDC, 75 * USDC)
    assert budgets.of(spending) == SessionBalances(25 * USDC, 0, 0, 25 * USDC)


@pytest.mark.promise("S6")
def test_a_budget_over_what_the_pool_has_is_refused() -> None:
    of = books.pool(10 * USDC)
    with unmoved(), pytest.raises(InsufficientFunds) as caught:
        sessions.open(pool=of, budget_micros=10 * USDC + 1, policy=Policy(), now=NOW)
    assert caught.value.facts == {"remaining": "10.00", "required": "10.000001", "would_allow": "10.00"}
    assert not Session.objects.exists()


@pytest.mark.parametrize("status", ["opening", "closing", "closed", "failed"])
def test_only_an_open_pool_has_sessions(status: str) -> None:
    of = books.pool()
    Pool.objects.filter(pk=of.pk).update(status=status)
    with unmoved(), pytest.raises(StateConflict) as caught:
        sessions.open(pool=of, budget_micros=1, policy=Policy(), now=NOW)
    assert caught.value.facts == {"subject": "pool", "state": status}


def test_a_top_up_adds_to_the_budget() -> None:
    of = books.pool(100 * USDC)
    spending = books.session(of, 10 * USDC)
    for _ in range(2):
        sessions.top_up(session=spending, amount_micros=5 * USDC, now=NOW)
    assert budgets.of(spending) == SessionBalances(20 * USDC, 0, 0, 20 * USDC)
    assert balance(ledger.free(of)) == 80 * USDC


def test_a_top_up_is_refused_when_there_is_too_little_or_no_more_spending() -> None:
    of = books.pool(10 * USDC)
    spending = books.session(of, 9 * USDC)
    with unmoved(), pytest.raises(InsufficientFunds):
        sessions.top_up(session=spending, amount_micros=1 * USDC + 1, now=NOW)
    sessions.close(session=spending, now=NOW)
    with unmoved(), pytest.raises(StateConflict, match="The session is closed"):
        sessions.top_up(session=spending, amount_micros=1, now=NOW)
    other = books.session(of, 1)
    pools.close(pool=of, now=NOW)
    with unmoved(), pytest.raises(StateConflict, match="The pool is closing"):
        sessions.top_up(session=other, amount_micros=1, now=NOW)


def test_an_expired_session_takes_no_top_up() -> None:
    spending = sessions.open(pool=books.pool(), budget_micros=USDC, policy=Policy(), now=NOW, expires_at=NOW)
    with unmoved(), pytest.raises(StateConflict) as caught:
        sessions.top_up(session=spending, amount_micros=1, now=NOW)
    assert caught.value.facts == {"subject": "session", "state": "expired"}
    assert sessions.close(session=spending, now=NOW + timedelta(days=1)).status == "closed"


def test_closing_gives_the_rest_back_once() -> None:
    of = books.pool(100 * USDC)
    spending, to = books.session(of, 25 * USDC), books.party()
    books.pay(spending, to, 8_000)
    books.hold(spending, to, 10 * USDC)
    spending = sessions.close(session=spending, now=NOW)
    assert budgets.of(spending) == SessionBalances(25 * USDC, 8_000, 10 * USDC, 0)
    assert balance(ledger.free(of)) == 90 * USDC - 8_000
    with unmoved():
        assert sessions.close(session=spending, now=NOW).status == "closed"


def test_the_lines_of_a_session_are_what_it_sent_and_received() -> None:
    spending = books.session(micros=USDC)
    books.pay(spending, books.party(), 8_000)
    assert [(line.reason, line.amount_micros) for line in ledger.sent_by(spending.account)] == [("payment", 8_000)]
    assert [(line.reason, line.amount_micros) for line in ledger.received_by(spending.account)] == [
        ("session_open", USDC)
    ]


def test_a_session_that_is_not_there() -> None:
    with pytest.raises(NotFound):
        sessions.reread(books.party().pk)


# --- limits: what counts, and from when until when ------------------------------------------------------------------

TICK = timedelta(microseconds=1)
SPANS = {
    "max_per_hour": timedelta(hours=1), "max_per_day": timedelta(days=1), "max_tx_per_minute": timedelta(minutes=1),
}  # fmt: skip
AMOUNT_SPANS = [rule for rule in SPANS if rule != "max_tx_per_minute"]


def pay_at(by: Session, to: Party, micros: int, at: Any) -> None:
    """Pay at a time of the test's choice."""
    payments.send(
        session_id=by.pk,
        party_id=to.pk,
        to=LINT,
        amount_micros=micros,
        metadata={},
        idempotency_key=str(random.random()),
        request_hash=b"\1" * 32,
        now=at,
    )


def denied_at(by: Session, to: Party, micros: int, at: Any) -> dict[str, Any]:
    """Pay at a time of the test's choice, see it refused, and return the facts."""
    with unmoved(), pytest.raises(PolicyDenied) as caught:
        pay_at(by, to, micros, at)
    assert caught.value.retryable
    return dict(caught.value.facts)


@pytest.mark.parametrize("rule", AMOUNT_SPANS)
@pytest.mark.promise("S9")
def test_a_payment_counts_until_its_span_is_over_and_not_a_microsecond_longer(rule: str) -> None:
    spending, to, span = books.session(policy=Policy(**{rule: 10})), books.party(), SPANS[rule]
    pay_at(spending, to, 4, NOW)
    pay_at(spending, to, 3, NOW + TICK)
    pay_at(spending, to, 3, NOW + span / 2)
    facts = denied_at(spending, to, 1, NOW + span - TICK)
    assert facts == {"rule": rule, "limit": "0.00001", "spent": "0.00001", "would_allow": "0.00", "policy_version": 1}
    facts = denied_at(spending, to, 5, NOW + span)
    assert (facts["spent"], facts["would_allow"]) == ("0.000006", "0.000004")
    pay_at(spending, to, 4, NOW + span)
    facts = denied_at(spending, to, 4, NOW + span + TICK)
    assert (facts["spent"], facts["would_allow"]) == ("0.000007", "0.000003")
    pay_at(spending, to, 3, NOW + span + TICK)
    assert denied_at(spending, to, 1, NOW + span * 3 / 2 - TICK)["would_allow"] == "0.00"
    pay_at(spending, to, 3, NOW + span * 3 / 2)
    pay_at(spending, to, 10, NOW + span * 3)


@pytest.mark.promise("S20")
def test_a_payment_counts_for_a_minute_and_not_a_microsecond_longer() -> None:
    spending, to, span = books.session(policy=Policy(max_tx_per_minute=3)), books.party(), SPANS["max_tx_per_minute"]
    for at in (NOW, NOW, NOW + TICK):
        pay_at(spending, to, 1, at)
    facts = {"rule": "max_tx_per_minute", "limit": 3, "would_allow": None, "policy_version": 1}
    assert denied_at(spending, to, 1, NOW + span - TICK) == facts
    pay_at(spending, to, 1, NOW + span)
    pay_at(spending, to, 1, NOW + span)
    assert denied_at(spending, to, 1, NOW + span) == facts
    pay_at(spending, to, 1, NOW + span + TICK)
    assert denied_at(spending, to, 1, NOW + span * 2 - TICK) == facts
    pay_at(spending, to, 1, NOW + span * 2)


@pytest.mark.parametrize("rule", SPANS)
def test_a_hold_counts_as_a_payment_does_and_its_release_makes_no_room(rule: str) -> None:
    limit = 2 if rule == "max_tx_per_minute" else 10
    spending, to, span = books.session(policy=Policy(**{rule: limit})), books.party(), SPANS[rule]
    held = books.hold(spending, to, 6)
    placed = Transfer.objects.get(sender=spending.account).created_at
    pay_at(spending, to, 4, placed + TICK)
    with unmoved(), pytest.raises(PolicyDenied) as caught:
        holds.place(session=spending, amount_micros=1, party=to, to=LINT, now=placed + span - TICK)
    assert caught.value.facts["rule"] == rule
    holds.give_back(hold=held, now=NOW)
    assert denied_at(spending, to, 1, placed + span - TICK)["rule"] == rule
    pay_at(spending, to, 6, placed + span)


def test_a_refund_makes_no_room_in_a_span() -> None:
    spending, to = books.session(policy=Policy(max_per_hour=10)), books.party()
    refunds.pay(payment=books.pay(spending, to, 10), reason="x", now=NOW)
    assert denied_at(spending, to, 1, NOW + TICK)["spent"] == "0.00001"


def test_another_session_s_payments_count_for_nothing() -> None:
    of, to, policy = books.pool(), books.party(), Policy(max_per_hour=10, max_tx_per_minute=1)
    one, other = (books.session(of, USDC, policy) for _ in range(2))
    pay_at(one, to, 10, NOW)
    pay_at(other, to, 10, NOW)
    assert denied_at(one, to, 1, NOW)["rule"] == "max_per_hour"


def test_of_several_limits_the_first_that_refuses_is_named() -> None:
    policy = Policy(max_per_tx=5, max_total=20, max_per_hour=9, max_per_day=13, max_tx_per_minute=2)
    spending, to = books.session(policy=policy), books.party()
    refused: list[str] = []
    for micros, at in (
        (6, 0),
        (5, 0),
        (5, 1),
        (3, 1),
        (1, 1),
        (5, 3_600),
        (1, 3_660),
        (1, 90_000),
        (5, 90_000),
        (2, 90_000),
    ):
        try:
            pay_at(spending, to, micros, NOW + timedelta(seconds=at))
            refused.append("")
        except PolicyDenied as denial:
            refused.append(str(denial.facts["rule"]))
    assert refused == [
        "max_per_tx", "", "max_per_hour", "", "max_tx_per_minute", "", "max_per_day", "", "", "max_total"
    ]  # fmt: skip


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("rule", SPANS)
@pytest.mark.promise("S20")
def test_fifty_at_once_never_pass_a_limit(rule: str) -> None:
    limit = 20 if rule == "max_tx_per_minute" else 60
    spending, to = books.session(policy=Policy(**{rule: limit})), books.party()
    start, dice = threading.Barrier(50), random.Random(1)
    amounts = [[dice.randint(1, 7) for _ in range(2)] for _ in range(50)]

    def attempt(number: int) -> list[str]:
        told = []
        try:
            start.wait(30)
            for micros in amounts[number]:
                try:
                    pay_at(spending, to, micros, None)
                    told.append("paid")
                except PolicyDenied as denial:
                    told.append(str(denial.facts["rule"]))
        finally:
            connection.close()
        return told

    with ThreadPoolExecutor(50) as threads:
        told = Counter(answer for answers in threads.map(attempt, range(50)) for answer in answers)
    sent = list(Transfer.objects.filter(sender=spending.account).order_by("created_at", "id"))
    assert told == {"paid": len(sent), rule: 100 - len(sent)}
    assert sent[-1].created_at - sent[0].created_at < SPANS[rule]
    if rule == "max_tx_per_minute":
        assert len(sent) == limit
    else:
        assert limit - 7 < sum(transfer.amount_micros for transfer in sent) <= limit


# --- a policy that changes ------------------------------------------------------------------------------------------


def amend(spending: Session, policy: Policy) -> None:
    """Give a session another policy, as another process would."""
    amended = {"policy": policy.to_document(), "policy_version": F("policy_version") + 1}
    assert Session.objects.filter(pk=spending.pk).update(**amended) == 1


def test_a_policy_that_has_changed_is_obeyed_at_once() -> None:
    spending, to = books.session(), books.party()
    pay_at(spending, to, 5, NOW)
    for policy, rule in (
        (Policy(denied_recipients=("lint.acme.dev",)), "denied_recipients"),
        (Policy(allowed_recipients=("*.example.dev",)), "allowed_recipients"),
        (Policy(expires_at=NOW), "expires_at"),
        (Policy(max_per_tx=4), "max_per_tx"),
        (Policy(max_total=9), "max_total"),
        (Policy(max_per_hour=9), "max_per_hour"),
        (Policy(max_per_day=9), "max_per_day"),
        (Policy(max_tx_per_minute=1), "max_tx_per_minute"),
    ):
        amend(spending, policy)
        with unmoved(), pytest.raises(PolicyDenied) as caught:
            pay_at(spending, to, 5, NOW)
        assert caught.value.facts["rule"] == rule
        with unmoved(), pytest.raises(PolicyDenied):
            holds.place(session=spending, amount_micros=5, party=to, to=LINT, now=NOW)
    amend(spending, Policy())
    pay_at(spending, to, 5, NOW)


def test_the_end_of_a_policy_is_the_database_s_to_judge() -> None:
    spending, to = books.session(policy=Policy(expires_at=NOW + timedelta(hours=1))), books.party()
    pay_at(spending, to, 1, NOW)
    pay_at(spending, to, 1, NOW + timedelta(hours=1) - TICK)
    with unmoved(), pytest.raises(PolicyDenied, match="The policy ended at 2026-11-24T13:00:00Z"):
        pay_at(spending, to, 1, NOW + timedelta(hours=1))
    pay_at(spending, to, 1, NOW)
