"""`escrow.backtest`: the past under another policy, to the micro-USDC and to the microsecond."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escrow import backtest, policy
from escrow.backtest import Past, Report, Tally, replay
from escrow.errors import PolicyDenied
from escrow.policy import Policy
from tests.escrow import drawn
from tests.escrow.books import LINT, NOW

TICK = timedelta(microseconds=1)
OTHER = "agent://test.acme.dev"


def paid(seconds: float = 0, amount: int = 10, **change: Any) -> Past:
    """A payment that was allowed, so many seconds after the beginning."""
    at = NOW + timedelta(seconds=seconds)
    past = Past(at, "s1", "payment", LINT, "p1", None, amount, was_allowed=True)
    return replace(past, **change)


def denied(seconds: float = 0, amount: int = 10, rule: str | None = "max_per_tx", **change: Any) -> Past:
    return paid(seconds, amount, was_allowed=False, rule=rule, **change)


def refused(report: Report) -> list[datetime]:
    return [example.past.at for example in report.examples]


def sums(report: Report) -> dict[str, tuple[int, int]]:
    return {rule: (tally.count, tally.amount_micros) for rule, tally in report.by_rule.items()}


def test_nothing_comes_of_nothing() -> None:
    assert replay([], Policy(max_total=1)) == Report()


def test_a_report_counts_every_decision_once() -> None:
    history = [paid(amount=30), paid(amount=51), denied(amount=40), denied(amount=60), denied(amount=7, rule=None)]
    report = replay(history, Policy(max_per_tx=50))
    assert report.decisions == 5
    assert report.still_allowed == Tally(1, 30)
    assert report.refused == Tally(1, 51)
    assert report.newly_allowed == Tally(1, 40)
    assert report.still_refused == Tally(2, 67)
    assert report.by_rule == {"max_per_tx": Tally(1, 51)}
    (example,) = report.examples
    assert example.past == history[1]
    assert example.refusal.facts == {"rule": "max_per_tx", "limit": "0.00005", "would_allow": "0.00005"}


@pytest.mark.parametrize("rule", [None, "insufficient_funds", "session_closed"])
def test_what_no_policy_refused_stays_refused_and_counts_nothing(rule: str | None) -> None:
    report = replay([denied(amount=10, rule=rule), paid(amount=10)], Policy(max_total=10))
    assert (report.still_refused, report.still_allowed, report.newly_allowed) == (Tally(1, 10), Tally(1, 10), Tally())


@pytest.mark.parametrize(("rule", "span"), [("max_per_hour", 3600), ("max_per_day", 86_400)])
def test_an_hour_and_a_day_slide_and_what_is_just_as_old_has_left(rule: str, span: int) -> None:
    limits = Policy(**{rule: 20})  # type: ignore[arg-type]
    early = replay([paid(0, 20), replace(paid(amount=1), at=NOW + timedelta(seconds=span) - TICK)], limits)
    assert sums(early) == {rule: (1, 1)}
    assert replay([paid(0, 20), paid(span, 20)], limits).refused == Tally()
    shown = early.examples[0].refusal
    assert (shown.facts["spent"], shown.facts["would_allow"], shown.retryable) == ("0.00002", "0.00", True)


def test_payments_a_minute_are_counted_alike() -> None:
    limits = Policy(max_tx_per_minute=2)
    history = [
        paid(0),
        paid(1),
        paid(2),
        replace(paid(), at=NOW + timedelta(minutes=1) - TICK),
        paid(60),
        paid(60.5),
        paid(61),
    ]
    report = replay(history, limits)
    assert refused(report) == [history[2].at, history[3].at, history[5].at]
    assert sums(report) == {"max_tx_per_minute": (3, 30)}


def test_only_what_the_proposed_policy_allows_counts() -> None:
    history = [paid(0, 15), paid(1, 15), paid(2, 5), denied(3, 1), paid(4, 1)]
    report = replay(history, Policy(max_total=21))
    assert refused(report) == [history[1].at, history[4].at]
    assert report.newly_allowed == Tally(1, 1)
    assert sums(report) == {"max_total": (2, 16)}
    assert report.examples[0].refusal.facts["spent"] == "0.000015"


def test_each_session_has_its_own_sums() -> None:
    history = [paid(n, 10, session_id=f"s{n % 2}") for n in range(6)]
    report = replay(history, Policy(max_total=20, max_per_hour=20, max_per_day=20, max_tx_per_minute=3))
    assert refused(report) == [history[4].at, history[5].at]
    assert sums(report) == {"max_total": (2, 20)}


def test_what_came_back_lowers_the_total_and_not_the_hour() -> None:
    back = replace(paid(1, 10), kind=backtest.RETURN)
    assert replay([paid(0), back, paid(2)], Policy(max_total=10)).refused == Tally()
    assert sums(replay([paid(0), back, paid(2)], Policy(max_per_hour=10))) == {"max_per_hour": (1, 10)}
    assert sums(replay([back, paid(2, 11)], Policy(max_total=10))) == {"max_total": (1, 11)}


def test_the_first_payment_to_a_party_is_limited_until_one_was_allowed() -> None:
    history = [paid(0, 30), paid(1, 20), paid(2, 30), paid(3, 30, party="p2"), paid(4, 30, session_id="s2")]
    report = replay(history, Policy(new_recipient_max=20))
    assert refused(report) == [history[0].at, history[3].at]
    assert sums(report) == {"new_recipient_max": (2, 60)}


def test_what_a_person_would_be_asked_for_counts_as_allowed_and_is_told_apart() -> None:
    history = [paid(0, 60), paid(1, 50), denied(2, 60, rule="approval_above"), paid(3, 1)]
    report = replay(history, Policy(approval_above=50, max_total=110))
    assert report.waiting == Tally(1, 60)
    assert report.still_allowed == Tally(2, 110)
    assert report.still_refused == Tally(1, 60)
    assert sums(report) == {"max_total": (1, 1)}


def test_the_pure_rules_are_those_of_the_moment() -> None:
    limits = Policy(
        expires_at=NOW + timedelta(seconds=3),
        allowed_recipients=("lint.acme.dev",),
        allowed_capabilities=("code.lint",),
    )
    history = [paid(0, capability="code.lint"), paid(1), paid(2, to=OTHER), paid(3, capability="code.lint")]
    assert sums(replay(history, limits)) == {
        "allowed_capabilities": (1, 10),
        "allowed_recipients": (1, 10),
        "expires_at": (1, 10),
    }


def test_the_rules_refuse_in_the_order_of_the_database() -> None:
    strict = Policy(
        denied_recipients=("lint.acme.dev",),
        max_per_tx=9,
        new_recipient_max=9,
        max_total=9,
        max_per_hour=9,
        max_per_day=9,
    )
    order = []
    for rule in ("denied_recipients", "max_per_tx", "new_recipient_max", "max_total", "max_per_hour", "max_per_day"):
        order += replay([paid()], strict).by_rule
        strict = replace(strict, **{rule: () if rule == "denied_recipients" else None})
    assert order == ["denied_recipients", "max_per_tx", "new_recipient_max", "max_total", "max_per_hour", "max_per_day"]


def test_what_came_before_counts_and_is_not_reported() -> None:
    history = [paid(0, 10), paid(1, 30), denied(2, 5), paid(10, 6), paid(11, 5)]
    report = replay(history, Policy(max_total=20), since=NOW + timedelta(seconds=10))
    assert (report.decisions, report.refused, report.still_allowed) == (2, Tally(1, 6), Tally(1, 5))
    assert refused(report) == [history[3].at]


def test_there_are_twenty_examples_at_most() -> None:
    report = replay([paid(n) for n in range(25)], Policy(max_per_tx=9))
    assert (report.refused, len(report.examples)) == (Tally(25, 250), 20)
    assert report.examples[-1].past == paid(19)


# --- Under the policy that it was made with --------------------------------------------------------------------------
requests = st.lists(
    st.tuples(
        st.integers(0, 3 * 3600), st.sampled_from(["s1", "s2"]), drawn.agents, st.none() | drawn.capabilities,
        st.integers(1, 6), st.booleans(),
    ),
    max_size=40,
)  # fmt: skip


def lived(limits: Policy, asked: list[Any]) -> Iterator[Past]:
    """What becomes of requests, by counting everything anew for each of them."""
    allowed: list[Past] = []
    at = drawn.START
    for seconds, session, to, capability, amount, is_funded in asked:
        at += timedelta(seconds=seconds)
        past = Past(at, session, "payment", to, to, capability, amount, was_allowed=True)
        mine = [one for one in allowed if one.session_id == session]

        def within(span: timedelta | None, of: list[Past] = mine, at: datetime = at) -> list[int]:
            return [one.amount_micros for one in of if span is None or at - span < one.at]

        rule = None
        try:
            policy.check(limits, to=to, capability=capability, now=at)
        except PolicyDenied as denial:
            rule = str(denial.facts["rule"])
        over = {
            "max_per_tx": amount,
            "new_recipient_max": 0 if any(one.party == to for one in allowed) else amount,
            "max_total": sum(within(None)) + amount,
            "max_per_hour": sum(within(timedelta(hours=1))) + amount,
            "max_per_day": sum(within(timedelta(days=1))) + amount,
            "max_tx_per_minute": len(within(timedelta(minutes=1))) + 1,
        }
        for name, comes_to in over.items():
            limit = getattr(limits, name)
            rule = name if rule is None and limit is not None and comes_to > limit else rule
        if rule is not None:
            yield replace(past, was_allowed=False, rule=rule)
        elif is_funded:
            allowed.append(past)
            yield past
        else:
            yield replace(past, was_allowed=False, rule="insufficient_funds")


@settings(max_examples=200, deadline=None)
@given(limits=drawn.policies(most=20), asked=requests)
def test_a_history_is_the_same_under_the_policy_that_it_was_made_with(limits: Policy, asked: list[Any]) -> None:
    open_ = replace(limits, allowed_recipients=limits.allowed_recipients[:1], windows=limits.windows[:1])
    history = list(lived(open_, asked))
    report = replay(history, open_)
    assert (report.refused, report.newly_allowed) == (Tally(), Tally())
    assert report.still_allowed.count == sum(past.was_allowed for past in history)


@settings(max_examples=200, deadline=None)
@given(proposed=drawn.policies(most=20), asked=requests)
def test_what_is_refused_is_what_the_proposed_policy_would_have_refused(proposed: Policy, asked: list[Any]) -> None:
    """A history of everything, asked of the naive count: the streaming one says the same."""
    proposed = replace(proposed, approval_above=None)
    everything = [
        replace(past, was_allowed=True, rule=None) for past in lived(Policy(), [(*ask[:5], True) for ask in asked])
    ]
    expected: dict[str, Tally] = {}
    for past in lived(proposed, [(*ask[:5], True) for ask in asked]):
        if past.rule is not None:
            expected.setdefault(past.rule, Tally()).add(past.amount_micros)
    assert replay(everything, proposed).by_rule == expected


def test_memory_is_a_day_and_not_the_history() -> None:
    counted = backtest._Counted(Policy(max_per_hour=10**9, max_per_day=10**9, max_tx_per_minute=100))
    for hour in range(24 * 30):
        past = paid(hour * 3600, session_id=f"s{hour}")
        assert counted.refusal(past) is None
        counted.add(past)
    assert [len(sums._entries) for sums in counted._sums.values()] == [1, 24]
    assert [len(sums._sums) for sums in counted._sums.values()] == [1, 24]
