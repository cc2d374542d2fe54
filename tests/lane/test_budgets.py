"""However many ask at once, a budget is spent to the last micro-USDC and no further, and each gets its own exact answer."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone

from escrow import ledger, money
from escrow.models import Approval, Party, Payment, Session
from escrow.policy import Policy
from marketplace import keys
from tests.escrow import books
from tests.escrow.books import LINT
from tests.lane.doors import PATIENCE, PAY, Asked, Lane
from tests.marketplace.client import Answer
from tests.marketplace.conftest import World

pytestmark = pytest.mark.django_db(transaction=True)

REPEATS = 20 if os.environ.get("FULL") else 2
_SEND = """
SELECT ord, outcome, remaining_micros, facts::text FROM escrow_send(
    false, NULL, interval '1 day', %s::uuid[], %s::uuid[], %s::text[], %s::bigint[], %s::text[], %s::text[], %s::text[],
    %s::text[], %s::bytea[], %s::integer[], %s::timestamptz[], %s::timestamptz[], %s::text[]
)
"""


def send(*orders: tuple[Session, Party, int], named: Sequence[str] = ()) -> list[tuple[Any, ...]]:
    """Let the database judge a batch, each order on its own; return ord, outcome, what remains, facts."""
    by, to, amounts = zip(*orders, strict=True)
    many = len(orders)
    arguments = [[one.pk for one in by], [one.pk for one in to], [LINT] * many, list(amounts)]
    arguments += [[money.render(amount) for amount in amounts], ["{}"] * many, [""] * many]
    arguments += [list(named) or [uuid4().hex for _ in orders], [b"\1" * 32] * many]
    arguments += [[one.policy_version for one in by], [None] * many, [None] * many, [None] * many]
    with connection.cursor() as cursor:
        cursor.execute(_SEND, arguments)
        return list(cursor.fetchall())


def outcomes(rows: Sequence[tuple[Any, ...]]) -> list[tuple[str, int]]:
    return [(outcome, remaining) for _, outcome, remaining, _ in rows]


def opened(market: World, micros: int, policy: Policy | None = None) -> tuple[Session, str]:
    """Open another session of buyer A; return it and its key."""
    pool = market.a.pool
    return keys.open_session(pool=pool, budget_micros=micros, policy=policy or Policy(), now=timezone.now())


def told(answers: Sequence[Answer]) -> Counter[tuple[int, str]]:
    """Count answers by status and code."""
    return Counter((answer.status, answer.json.get("code", "")) for answer in answers)


# --- one batch ----------------------------------------------------------------------------------------------------


def test_a_cheap_order_behind_a_dear_one_gets_its_fair_answer_in_the_same_batch(market: World) -> None:
    spending, to = books.session(micros=10), books.party()
    rows = send(*((spending, to, amount) for amount in (6, 5, 3, 1)))
    assert [row[0] for row in rows] == [1, 2, 3, 4]
    assert outcomes(rows) == [("allowed", 4), ("insufficient_funds", 4), ("allowed", 1), ("allowed", 0)]
    assert Payment.objects.count() == 3


def test_the_same_request_twice_in_one_batch_asks_a_person_once(market: World) -> None:
    spending, to = books.session(policy=Policy(approval_above=5)), books.party()
    rows = send((spending, to, 6), (spending, to, 6), named=["k", "k"])
    assert [outcome for _, outcome, *_ in rows] == ["approval_required", "busy"]
    asked = str(Approval.objects.get().pk)
    assert [json.loads(row[3])["approval_id"] for row in (rows[0], *send((spending, to, 6), named=["k"]))] == [
        asked
    ] * 2


def test_each_session_of_a_batch_has_its_own_answers_in_order(market: World) -> None:
    of, to, other = books.pool(), books.party(), books.party("example.dev")
    one, two, three = (books.session(of, micros) for micros in (10, 5, 1))
    rows = send(
        (one, to, 6), (two, other, 5), (one, other, 5), (three, to, 2), (one, to, 4), (two, to, 1), (three, to, 1)
    )
    assert [row[0] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert outcomes(rows) == [
        ("allowed", 4), ("allowed", 0), ("insufficient_funds", 4), ("insufficient_funds", 1), ("allowed", 0),
        ("insufficient_funds", 0), ("allowed", 0),
    ]  # fmt: skip
    assert (books.balance(ledger.payable(of, to)), books.balance(ledger.payable(of, other))) == (11, 5)


@pytest.mark.parametrize("rule", ["max_total", "max_per_hour", "max_per_day"])
def test_what_the_orders_before_it_spent_counts_against_each_limit(market: World, rule: str) -> None:
    spending, to = books.session(policy=Policy(**{rule: 10})), books.party()  # type: ignore[arg-type]
    rows = send(*((spending, to, amount) for amount in (6, 5, 3, 2, 1)))
    assert [row[1] for row in rows] == ["allowed", rule, "allowed", rule, "allowed"]
    facts = [json.loads(row[3]) for row in rows if row[1] == rule]
    assert [(counted["limit"], counted["spent"]) for counted in facts] == [(10, 6), (10, 9)]


def test_the_orders_before_it_count_against_the_minute_s_number(market: World) -> None:
    spending, to = books.session(policy=Policy(max_tx_per_minute=2)), books.party()
    rows = send(*((spending, to, amount) for amount in (1, 200_000_000, 1, 1)))
    assert [row[1] for row in rows] == ["allowed", "insufficient_funds", "allowed", "max_tx_per_minute"]


def test_the_same_key_twice_in_one_batch_is_decided_once(market: World) -> None:
    spending, to = books.session(micros=10), books.party()
    rows = send(*[(spending, to, 3)] * 3, named=["k", "k", "other"])
    assert [row[1] for row in rows] == ["allowed", "busy", "allowed"]
    assert send((spending, to, 3), named=["k"])[0][1:3] == ("replayed", 7)
    assert Payment.objects.count() == 2


def test_an_empty_batch_of_unknown_sessions_says_nothing(market: World) -> None:
    assert send((Session(pk=uuid4()), books.party(), 1)) == []


# --- many at once -------------------------------------------------------------------------------------------------


def test_forty_at_once_on_one_budget_are_forty_payments(market: World, lane: Lane) -> None:
    session, key = opened(market, 40 * 12_000)
    answers = lane.ask_all([Asked(key) for _ in range(40)])
    assert told(answers) == {(201, ""): 40}
    assert sorted(answer.json["remaining"] for answer in answers) == sorted(
        money.render(12_000 * left) for left in range(40)
    )
    assert books.balance(session.account) == 0


@pytest.mark.parametrize("repeat", range(REPEATS))
def test_two_hundred_at_once_on_a_budget_for_a_hundred_pay_exactly_a_hundred(
    market: World, lane: Lane, repeat: int
) -> None:
    session, key = opened(market, 100 * 12_000)
    agents = ["agent://lint.acme.dev", "agent://check.example.dev"]
    answers = lane.ask_all([Asked(key, {**PAY, "to": agents[number % 2]}) for number in range(200)])
    assert told(answers) == {(201, ""): 100, (402, "insufficient_funds"): 100}
    assert {answer.json["remaining"] for answer in answers if answer.status == 402} == {"0.00"}
    assert books.balance(session.account) == 0
    assert Payment.objects.filter(session=session).count() == 100


@pytest.mark.parametrize("repeat", range(REPEATS))
def test_two_processes_on_one_budget_pay_exactly_what_it_is_for(market: World, lane: Lane, repeat: int) -> None:
    session, key = opened(market, 100 * 12_000)
    with Lane(batch_size=8) as other:
        begun = [door.begin(Asked(key)) for _ in range(100) for door in (lane, other)]
        answers = [waiting.result(PATIENCE) for waiting in begun]
    assert told(answers) == {(201, ""): 100, (402, "insufficient_funds"): 100}
    assert books.balance(session.account) == 0


@pytest.mark.parametrize("repeat", range(REPEATS))
@pytest.mark.parametrize("rule", ["max_total", "max_per_hour", "max_per_day", "max_tx_per_minute"])
@pytest.mark.promise("S20")
def test_two_processes_never_pass_a_limit(market: World, lane: Lane, rule: str, repeat: int) -> None:
    limits = {rule: 30} if rule == "max_tx_per_minute" else {rule: 30 * 12_000}
    session, key = opened(market, 100 * 12_000, Policy(**limits))  # type: ignore[arg-type]
    with Lane(batch_size=4) as other:
        begun = [door.begin(Asked(key)) for _ in range(30) for door in (lane, other)]
        answers = [waiting.result(PATIENCE) for waiting in begun]
    assert told(answers) == {(201, ""): 30, (403, "policy_denied"): 30}
    assert {answer.json["rule"] for answer in answers if answer.status == 403} == {rule}
    assert books.balance(session.account) == 70 * 12_000
