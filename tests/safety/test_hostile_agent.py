"""Ten thousand calls of an agent that wants to spend what it may not: it never can, and every refusal is on record.

A run is its seed; what failed is found again with `HOSTILE_SEED=<seed>`. Quick in every run of the tests, whole with FULL=1.
"""

import os
from random import Random

import pytest

from marketplace.api import rates
from tests.lane.doors import Lane
from tests.marketplace.conftest import World
from tests.safety.history import Violation
from tests.safety.hostile import ROUTES, Agent, Call
from tests.safety.town import Town, make_town, stolen

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(3_600)]

CALLS, RUNS = (2_500, 4) if os.environ.get("FULL") else (600, 1)
SEEDS = [int(os.environ["HOSTILE_SEED"])] if "HOSTILE_SEED" in os.environ else range(20_261_129, 20_261_129 + RUNS)
DECIDED = {"policy_denied", "approval_required", "insufficient_funds"}
"""Codes of refusals of money that were decided on, and so are on record."""


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_it_calls_it_spends_what_its_policy_says_and_nothing_else(
    market: World, lane: Lane, seed: int
) -> None:
    town = make_town(market, seed)
    agent = Agent(seed, town.key, lane, stolen(town))
    agent.ids["session_id"].append(str(town.session.pk))
    life = Random(f"life:{seed}")
    before, said, denied = town.state(), town.answers(), town.denials()
    for number in range(CALLS):
        if life.random() < 0.08:
            town.live()
        elif number % 15 == 14:
            town.go_on()
        else:
            before, said, denied = _one_call(agent, town, number, (before, said, denied))
            continue
        before, said, denied = town.state(), town.answers(), town.denials()
    town.history.check_unchanged()
    _check_it_tried(agent, town)


def _one_call(agent: Agent, town: Town, number: int, known: tuple) -> tuple:
    """Let it call once, and compare everything that it must not change."""
    before, said, denied = known
    policies = town.policies()
    rates.forget()
    call = agent.act(number)
    try:
        moved = town.history.judge(policies)
    except Violation as found:
        raise Violation(f"{found}\n{call}\npolicy {town.policy}") from None
    assert call.answer.status < 500 or call.path == "/readyz", call
    assert town.state() == before, call
    answers = town.answers()
    assert {pk: answers[pk] for pk in said} == said, call
    assert {status for pk, status in answers.items() if pk not in said} <= {"waiting"}, call
    if call.answer.status >= 400:
        assert not moved, call
    refused = town.denials() - denied
    assert refused == _on_record(call), call
    return before, answers, denied + refused


def _on_record(call: Call) -> int:
    """Return how many refusals a call must have left on record."""
    if not call.spends or call.answer.status < 400:
        return 0
    said = call.answer.json
    if said["code"] in DECIDED:
        return 1
    return int(said["code"] == "conflict" and said.get("subject") in ("session", "pool") and not _is_only_posted(call))


def _is_only_posted(call: Call) -> bool:
    """Return whether a task was refused before it asked for money: posting one asks whether its session is open."""
    return call.path == "/v1/tasks"


def _check_it_tried(agent: Agent, town: Town) -> None:
    """A run in which nothing succeeds, or nothing is refused, proves nothing."""
    told = agent.told
    if os.environ.get("SHOW"):
        print("\n", town.history.judged, "spent;", dict(town.lived), "\n", dict(told.most_common()))
    done = ["POST payments: done", "POST holds: done", "POST holds/capture: done", "POST sessions/children: done"]
    for kind in done:
        assert told[kind] >= max(CALLS // 600, 1), (kind, told)
    refusals = {key.partition(": ")[2] for key in told}
    expected = {"max_per_tx", "max_per_hour", "max_tx_per_minute", "allowed_recipients", "denied_recipients"}
    expected |= {"allowed_capabilities", "windows", "approval_above", "new_recipient_max", "forbidden", "not_found"}
    assert expected <= refusals, expected - refusals
    walked = {(key.split(" ")[0], key.split(" ")[1].partition(":")[0]) for key in told}
    assert len(walked) >= len(ROUTES) // 2, walked
    assert town.history.judged >= CALLS // 40, town.lived
