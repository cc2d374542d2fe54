"""An order that the database refuses fails alone; the others of its batch are paid."""

import asyncio
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from escrow.models import Payment
from escrow.verdicts import ALLOWED, REPLAYED
from marketplace.lane.statement import Order
from tests.escrow import books
from tests.lane.doors import Asked, Lane
from tests.marketplace.conftest import World

pytestmark = pytest.mark.django_db(transaction=True)

POISONS: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "metadata that jsonb refuses": ({"metadata": r'{"x": "\u0000"}'}, asyncpg.DataError),
    "metadata that is no JSON": ({"metadata": "{"}, asyncpg.DataError),
    "a NUL": ({"metadata": '{"x": "\x00"}'}, asyncpg.DataError),
    "half a surrogate pair": ({"metadata": '{"x": "\ud800"}'}, asyncpg.DataError),
    "an amount of nothing": ({"amount_micros": 0}, asyncpg.IntegrityConstraintViolationError),
    "an amount below nothing": ({"amount_micros": -1}, asyncpg.IntegrityConstraintViolationError),
    "an amount beyond bigint": ({"amount_micros": 2**63}, asyncpg.DataError),
    "a session that is no UUID": ({"session_id": "x"}, asyncpg.DataError),
    "a key that is too long": ({"idempotency_key": "k" * 256}, asyncpg.DataError),
}


def decide_all(lane: Lane, orders: list[Order]) -> list[Any]:
    """Send orders in one batch; return each one's verdict's outcome, or the fault."""

    async def all_of_them() -> list[Any]:
        decided = (lane.batches.decide(order) for order in orders)
        return await asyncio.gather(*decided, return_exceptions=True)

    return [one if isinstance(one, Exception) else one[0].verdict.outcome for one in lane.run(all_of_them())]


@pytest.mark.parametrize("name", POISONS)
def test_a_poisoned_order_fails_alone(market: World, lane: Lane, statements: list[tuple[bool, int]], name: str) -> None:
    change, fault = POISONS[name]
    assert lane.pay(str(market.a.by_session.key)).status == 201  # the policy is known from here on
    del statements[:]
    orders = [lane.order(Asked(market.a.by_session.key)) for _ in range(9)]
    orders[4] = replace(orders[4], **change)
    answers = decide_all(lane, orders)
    assert isinstance(answers.pop(4), fault)
    assert answers == [ALLOWED] * 8
    assert statements == [(False, 9)] + [(False, 1)] * 9
    assert Payment.objects.count() == 9
    assert books.balance(market.a.session.account) == 25_000_000 - 9 * 12_000
    again = decide_all(lane, orders[:4] + orders[5:])
    assert again == [REPLAYED] * 8


def test_two_poisoned_orders_harm_nobody_of_another_session(market: World, lane: Lane) -> None:
    orders = [lane.order(Asked(buyer.by_session.key)) for _ in range(4) for buyer in (market.a, market.b)]
    for place in (0, 7):
        orders[place] = replace(orders[place], metadata='{"x": "\\u0000"}')
    answers = decide_all(lane, orders)
    assert [type(answer) for answer in answers] == [asyncpg.UntranslatableCharacterError] + [str] * 6 + [
        asyncpg.UntranslatableCharacterError
    ]
    assert books.balance(market.a.session.account) == books.balance(market.b.session.account) == 25_000_000 - 3 * 12_000


def test_the_answer_to_an_order_that_the_database_refuses_does_not_say_why(market: World, lane: Lane) -> None:
    def poisoned(*args: Any) -> Order:
        return replace(plain(*args), amount_micros=0)

    plain = lane.door._order
    lane.door._order = poisoned  # type: ignore[method-assign]
    with books.unmoved():
        answer = lane.ask(Asked(market.a.by_session.key))
    assert (answer.status, answer.json["code"], answer.json["outcome"]) == (500, "internal", "unknown")
    assert answer.json["detail"] == "Something broke here; the fault is logged."
    assert b"payment_positive" not in answer.raw
    lane.door._order = plain  # type: ignore[method-assign]
    assert lane.pay(str(market.a.by_session.key)).status == 201
