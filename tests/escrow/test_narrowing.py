"""`escrow.narrowing`: a child's policy is never wider than its parent's, whoever wrote either."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from escrow import policy
from escrow.errors import InvalidPolicy, PolicyDenied
from escrow.narrowing import NUMBERS
from escrow.policy import Policy
from escrow.windows import Window, written
from tests.escrow import drawn
from tests.escrow.books import NOW

OFFICE = Window(days=(0, 1, 2, 3, 4), start=540, end=1020, zone="Europe/Berlin")
PARENT = Policy(
    max_per_tx=500_000,
    max_total=20_000_000,
    max_per_hour=2_000_000,
    max_per_day=5_000_000,
    max_tx_per_minute=60,
    allowed_recipients=("*.acme.dev", "test.example.dev"),
    denied_recipients=("bad.acme.dev",),
    allowed_capabilities=("code.lint", "code.test"),
    windows=(OFFICE,),
    approval_above=300_000,
    new_recipient_max=100_000,
    checkpoint_at=(5000,),
    expires_at=NOW,
)


def allows(limits: Policy, to: str, capability: str | None, now: drawn.datetime) -> bool:
    try:
        policy.check(limits, to=to, capability=capability, now=now)
    except PolicyDenied:
        return False
    return True


def refused(asked: Policy, parent: Policy = PARENT) -> dict[str, object]:
    with pytest.raises(InvalidPolicy) as caught:
        policy.narrow(asked, parent)
    return caught.value.facts


def test_a_child_that_asks_for_nothing_has_its_parents_limits_and_its_own_checkpoints() -> None:
    assert policy.narrow(Policy(), PARENT) == replace(PARENT, checkpoint_at=())


def test_a_parent_without_limits_narrows_nothing() -> None:
    assert policy.narrow(PARENT, Policy()) == PARENT


def test_a_child_has_what_it_asks_for_within_its_parents_limits() -> None:
    asked = Policy(
        max_per_tx=500_000,
        max_total=1,
        max_tx_per_minute=59,
        allowed_recipients=("lint.acme.dev", "agent://*.lint.acme.dev", "test.example.dev"),
        denied_recipients=("*.evil.acme.dev",),
        allowed_capabilities=("code.test",),
        windows=(replace(OFFICE, days=(0, 2), start=600), replace(OFFICE, days=(4,), end=1019)),
        checkpoint_at=(9000,),
        expires_at=NOW - timedelta(seconds=1),
    )
    expected = replace(
        asked,
        max_per_hour=2_000_000,
        max_per_day=5_000_000,
        denied_recipients=("*.evil.acme.dev", "bad.acme.dev"),
        approval_above=300_000,
        new_recipient_max=100_000,
    )
    assert policy.narrow(asked, PARENT) == expected
    assert policy.tightened(asked, PARENT) == expected


@pytest.mark.parametrize(
    ("name", "asked", "would_pass"),
    [
        ("max_per_tx", 500_001, '"0.50" or less'),
        ("max_total", 20_000_001, '"20.00" or less'),
        ("max_per_hour", 2_000_001, '"2.00" or less'),
        ("max_per_day", 5_000_001, '"5.00" or less'),
        ("new_recipient_max", 100_001, '"0.10" or less'),
        ("max_tx_per_minute", 61, "60 or less"),
        ("expires_at", NOW + timedelta(microseconds=1), '"2026-11-24T12:00:00Z" or earlier'),
    ],
)
def test_a_limit_above_the_parents_is_refused_with_the_parents(name: str, asked: object, would_pass: str) -> None:
    facts = refused(Policy(**{name: asked}))  # type: ignore[arg-type]
    assert facts == {"field": f"policy.{name}", "rule": "is wider than the parent's", "would_pass": would_pass}


@pytest.mark.parametrize("name", ["acme.dev", "*.dev.acme", "*.example.dev", "a.test.example.dev", "evilacme.dev"])
def test_a_recipient_that_no_pattern_of_the_parents_covers_is_refused_by_name(name: str) -> None:
    assert refused(Policy(allowed_recipients=("lint.acme.dev", name))) == {
        "field": "policy.allowed_recipients",
        "rule": f"is wider than the parent's by {name}",
        "would_pass": "what lies within *.acme.dev, test.example.dev",
    }


def test_a_capability_that_the_parent_lacks_is_refused_by_name() -> None:
    assert refused(Policy(allowed_capabilities=("code.lint", "code"))) == {
        "field": "policy.allowed_capabilities",
        "rule": "is wider than the parent's by code",
        "would_pass": "what lies within code.lint, code.test",
    }


@pytest.mark.parametrize(
    "window",
    [
        replace(OFFICE, days=(5,)),
        replace(OFFICE, days=(0, 6)),
        replace(OFFICE, start=539),
        replace(OFFICE, end=1021),
        replace(OFFICE, zone="Europe/Paris"),
    ],
    ids=str,
)
def test_a_window_that_does_not_lie_within_one_of_the_parents_is_refused(window: Window) -> None:
    facts = refused(Policy(windows=(OFFICE, window)))
    assert facts["field"] == "policy.windows"
    assert facts["rule"] == f"is wider than the parent's by {json.dumps(written(window))}"
    assert facts["would_pass"] == f"what lies within {json.dumps(written(OFFICE))}"


def test_of_two_thresholds_of_approval_the_lower_one_holds() -> None:
    for asked, parent, holds in ((2, 1, 1), (1, 2, 1), (None, 2, 2), (2, None, 2)):
        assert policy.narrow(Policy(approval_above=asked), Policy(approval_above=parent)).approval_above == holds


def test_denied_recipients_are_added_up_without_what_others_cover() -> None:
    asked = Policy(denied_recipients=("*.bad.dev", "a.acme.dev"))
    parent = Policy(denied_recipients=("x.bad.dev", "agent://a.acme.dev", "*.acme.dev"))
    assert policy.narrow(asked, parent).denied_recipients == ("*.bad.dev", "*.acme.dev")


def test_denied_recipients_have_a_bound_together_too() -> None:
    asked, parent = (Policy(denied_recipients=tuple(f"{who}{n}.acme.dev" for n in range(60))) for who in "ab")
    assert refused(asked, parent) == {
        "field": "policy.denied_recipients",
        "rule": "would be 120 with the parent's, and 100 are the most",
        "would_pass": "40 or fewer",
    }
    assert policy.tightened(asked, parent) is None


def test_lists_may_be_as_long_as_their_bound_and_no_longer() -> None:
    many = tuple(f"{n}.acme.dev" for n in range(100))
    denied = [Policy(denied_recipients=many[:60]), Policy(denied_recipients=many[60:])]
    assert policy.narrow(*denied).denied_recipients == many
    child = policy.tightened(*denied)
    assert child is not None
    assert child.denied_recipients == many
    hours = tuple(Window((day,), 60 * n, 60 * n + 59, "UTC") for day in range(7) for n in range(3))
    whole = Policy(windows=(Window(tuple(range(7)), 0, 1440, "UTC"),))
    assert policy.tightened(Policy(windows=hours[:20]), whole) == Policy(windows=hours[:20])
    assert policy.tightened(Policy(windows=hours), whole) is None


def test_a_tightened_policy_is_what_both_allow() -> None:
    child = Policy(
        max_per_tx=600_000,
        max_total=1,
        allowed_recipients=("*.lint.acme.dev", "*.example.dev", "else.dev"),
        allowed_capabilities=("text.brief", "code.lint"),
        windows=(Window((4, 5), 960, 1440, "Europe/Berlin"), Window((0,), 0, 1440, "Europe/Paris")),
        approval_above=400_000,
        checkpoint_at=(1,),
        expires_at=NOW + timedelta(days=1),
    )
    assert policy.tightened(child, PARENT) == replace(
        PARENT,
        max_total=1,
        allowed_recipients=("*.lint.acme.dev", "test.example.dev"),
        allowed_capabilities=("code.lint",),
        windows=(Window((4,), 960, 1020, "Europe/Berlin"),),
        checkpoint_at=(1,),
    )


@pytest.mark.parametrize(
    "child",
    [
        Policy(allowed_recipients=("else.dev",)),
        Policy(allowed_capabilities=("text.brief",)),
        Policy(windows=(replace(OFFICE, days=(6,)),)),
        Policy(windows=(replace(OFFICE, start=1020, end=1440),)),
        Policy(windows=(replace(OFFICE, zone="Europe/Paris"),)),
    ],
    ids=str,
)
def test_nothing_is_left_of_what_has_nothing_in_common(child: Policy) -> None:
    assert policy.tightened(child, PARENT) is None


def lower(child: Policy, parent: Policy) -> bool:
    """Whether each number of a child is at most its parent's."""
    pairs = [(getattr(child, name), getattr(parent, name)) for name in (*NUMBERS, "expires_at")]
    return all(most is None or (number is not None and number <= most) for number, most in pairs)


small = drawn.policies(most=4)
asks = st.lists(st.tuples(drawn.agents, st.none() | drawn.capabilities, drawn.moments), min_size=20, max_size=20)


@settings(max_examples=100, deadline=None)
@given(asked=small, parent=small, requests=asks)
def test_what_a_narrowed_policy_allows_both_allow(asked: Policy, parent: Policy, requests: list) -> None:  # type: ignore[type-arg]
    try:
        child = policy.narrow(asked, parent)
    except InvalidPolicy:
        assume(False)
        raise
    assert lower(child, parent)
    assert lower(child, asked)
    assert Policy.from_document(child.to_document()) == child
    assert policy.narrow(child, parent) == child
    assert policy.tightened(asked, parent) is not None
    for to, capability, now in requests:
        both = allows(asked, to, capability, now) and allows(parent, to, capability, now)
        assert allows(child, to, capability, now) == both


@settings(max_examples=100, deadline=None)
@given(child=small, parent=small, requests=asks)
def test_what_a_tightened_policy_allows_both_allow(child: Policy, parent: Policy, requests: list) -> None:  # type: ignore[type-arg]
    held = policy.tightened(child, parent)
    if held is None:
        assert not any(allows(child, *one) and allows(parent, *one) and _same_zones(child, parent) for one in requests)
        return
    assert lower(held, parent)
    assert policy.narrow(held, parent) == held
    assert Policy.from_document(held.to_document()) == held
    for to, capability, now in requests:
        both = allows(child, to, capability, now) and allows(parent, to, capability, now)
        if allows(held, to, capability, now):
            assert both
        elif both:
            assert not _same_zones(child, parent), "only windows in zones of different names lose what both allow"


def _same_zones(child: Policy, parent: Policy) -> bool:
    return (
        not child.windows or not parent.windows or len({window.zone for window in child.windows + parent.windows}) == 1
    )
