"""`escrow.policy`: what a document may say, whom a pattern means, and the facts of each refusal."""

import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escrow import ap2, limits, policy
from escrow.errors import InvalidPolicy, PolicyDenied
from escrow.policy import Policy
from escrow.windows import Window
from tests.escrow import drawn
from tests.escrow.books import LINT, NOW


@pytest.mark.parametrize("key", ["max_per_week", "MAX_PER_TX", "maxPerTx", "", "max_per_tx "])
def test_an_unknown_key_is_named_with_the_known_ones(key: str) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        Policy.from_document({key: "1.00"})
    assert caught.value.facts == {
        "field": f"policy.{key}",
        "rule": "is not a policy key",
        "would_pass": "one of allowed_capabilities, allowed_recipients, approval_above, checkpoint_at, denied_recipients, "
        "expires_at, max_per_day, max_per_hour, max_per_tx, max_total, max_tx_per_minute, new_recipient_max, windows",
    }


@pytest.mark.parametrize("value", [1, 0.5, None, "1e3", "-1", "0", True], ids=repr)
@pytest.mark.parametrize("key", limits.AMOUNTS)
def test_an_amount_in_a_policy_is_a_decimal_string(key: str, value: object) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        Policy.from_document({key: value})
    assert caught.value.facts["field"] == f"policy.{key}"


@pytest.mark.parametrize(
    "value", ["2030-01-01", "2030-01-01T00:00:00", "soon", 1893456000, None, "２030-01-01T00:00:00Z"]
)
def test_an_end_has_a_zone(value: object) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        Policy.from_document({"expires_at": value})
    assert caught.value.facts == {
        "field": "policy.expires_at",
        "rule": "must be a time with its zone (RFC 3339)",
        "would_pass": '"2030-01-01T00:00:00Z"',
    }


def test_a_document_is_read_and_written_alike() -> None:
    document = {
        "max_per_tx": "0.05",
        "max_total": "20.00",
        "max_per_hour": "5.00",
        "max_per_day": "10.00",
        "max_tx_per_minute": 60,
        "allowed_recipients": ["*.acme.dev", "agent://lint.example.dev"],
        "denied_recipients": ["bad.acme.dev"],
        "allowed_capabilities": ["code.lint"],
        "windows": [{"days": ["mon", "fri"], "from": "09:00", "to": "24:00", "zone": "Europe/Berlin"}],
        "approval_above": "1.00",
        "new_recipient_max": "0.02",
        "checkpoint_at": ["0.5", "0.875", "0.9999"],
        "expires_at": "2030-01-01T00:00:00Z",
    }
    read = Policy.from_document(document)
    assert read.max_per_tx == 50_000
    assert read.windows == (Window(days=(0, 4), start=540, end=1440, zone="Europe/Berlin"),)
    assert (read.approval_above, read.new_recipient_max) == (1_000_000, 20_000)
    assert read.checkpoint_at == (5000, 8750, 9999)
    assert read.expires_at == datetime(2030, 1, 1, tzinfo=UTC)
    assert read.to_document() == document
    assert Policy.from_document({}).to_document() == {}


def check(limits: Policy, *, to: str = LINT, capability: str | None = None, now: datetime = NOW) -> None:
    policy.check(limits, to=to, capability=capability, now=now)


def denied(limits: Policy, *, to: str = LINT, capability: str | None = None, now: datetime = NOW) -> PolicyDenied:
    """The refusal of `check`."""
    with pytest.raises(PolicyDenied) as caught:
        check(limits, to=to, capability=capability, now=now)
    return caught.value


def test_allowed_recipients() -> None:
    check(Policy(allowed_recipients=("*.acme.dev",)))
    with pytest.raises(PolicyDenied) as caught:
        check(Policy(allowed_recipients=("*.acme.dev",)), to="agent://lint.evilacme.dev")
    assert caught.value.facts == {
        "rule": "allowed_recipients", "limit": ["*.acme.dev"], "would_allow": ["*.acme.dev"],
    }  # fmt: skip
    assert caught.value.detail == "agent://lint.evilacme.dev matches none of the allowed recipients."


def test_denied_recipients_win_over_allowed_ones() -> None:
    with pytest.raises(PolicyDenied) as caught:
        check(Policy(allowed_recipients=("*.acme.dev",), denied_recipients=("lint.acme.dev",)))
    assert caught.value.facts == {"rule": "denied_recipients", "limit": ["lint.acme.dev"], "would_allow": None}
    assert caught.value.detail == f"{LINT} is on the list of denied recipients."


def test_the_end_of_a_policy() -> None:
    limits = Policy(expires_at=NOW)
    check(limits, now=NOW - timedelta(microseconds=1))
    with pytest.raises(PolicyDenied) as caught:
        check(limits, now=NOW)
    assert caught.value.facts == {"rule": "expires_at", "limit": "2026-11-24T12:00:00Z", "would_allow": None}
    assert caught.value.detail == "The policy ended at 2026-11-24T12:00:00Z."


OFFICE = Window(days=(0, 1, 2, 3, 4), start=9 * 60, end=17 * 60, zone="Europe/Berlin")
SHOWN = {"days": ["mon", "tue", "wed", "thu", "fri"], "from": "09:00", "to": "17:00", "zone": "Europe/Berlin"}


def berlin(*moment: int) -> datetime:
    """A moment by the clock in Berlin, where it is winter."""
    return datetime(*moment, tzinfo=timezone(timedelta(hours=1)))  # type: ignore[misc,arg-type]


@pytest.mark.promise("S9")
def test_a_closed_window_says_when_it_opens() -> None:
    limits = Policy(windows=(OFFICE,))
    check(limits, now=berlin(2026, 11, 24, 9))
    check(limits, now=berlin(2026, 11, 24, 16, 59, 59, 999_999))
    refusal = denied(limits, now=berlin(2026, 11, 24, 17))
    assert refusal.facts == {
        "rule": "windows",
        "limit": [SHOWN],
        "would_allow": "2026-11-25T08:00:00Z",
        "available_at": "2026-11-25T08:00:00Z",
    }
    assert refusal.detail == "The policy's windows are closed; the next one opens at 2026-11-25T08:00:00Z."
    assert refusal.retryable


def test_windows_that_do_not_open_before_the_end_are_not_waited_for() -> None:
    limits = Policy(windows=(OFFICE,), expires_at=berlin(2026, 11, 25, 9))
    refusal = denied(limits, now=berlin(2026, 11, 24, 17))
    assert refusal.facts == {"rule": "windows", "limit": [SHOWN], "would_allow": None}
    assert refusal.detail == "The policy's windows are closed, and none opens before it ends."
    assert not refusal.retryable


def test_allowed_capabilities() -> None:
    limits = Policy(allowed_capabilities=("code.lint", "code.test"))
    check(limits, capability="code.test")
    facts = {
        "rule": "allowed_capabilities",
        "limit": ["code.lint", "code.test"],
        "would_allow": ["code.lint", "code.test"],
    }
    other, none = denied(limits, capability="code"), denied(limits, capability=None)
    assert (other.facts, none.facts) == (facts, facts)
    assert other.detail == "code is none of the allowed capabilities."
    assert none.detail == "The policy limits what is paid for; the payment has to name its capability."
    assert not other.retryable
    assert not none.retryable


def test_the_first_rule_that_refuses_is_named() -> None:
    limits = Policy(
        expires_at=NOW,
        windows=(OFFICE,),
        denied_recipients=("lint.acme.dev",),
        allowed_recipients=("other.acme.dev",),
        allowed_capabilities=("code.lint",),
    )
    night = berlin(2026, 11, 23, 23)
    order = []
    for lifted in ("expires_at", "windows", "denied_recipients", "allowed_recipients", "allowed_capabilities"):
        order.append(denied(limits, now=NOW if lifted == "expires_at" else night).facts["rule"])
        limits = replace(limits, **{lifted: type(getattr(limits, lifted))() if lifted != "expires_at" else None})
    assert order == ["expires_at", "windows", "denied_recipients", "allowed_recipients", "allowed_capabilities"]
    check(limits, now=night)


def test_an_answer_holds_between_the_edges_around_it() -> None:
    five, nine = berlin(2026, 11, 24, 17), berlin(2026, 11, 25, 9)
    open_, closed = berlin(2026, 11, 24, 9), nine
    limits = Policy(windows=(OFFICE,))
    assert policy.valid(limits, NOW) == (open_, five)
    assert policy.valid(limits, five) == (five, closed)
    assert policy.valid(replace(limits, expires_at=NOW), NOW) == (NOW, None)
    soon = NOW + timedelta(minutes=1)
    assert policy.valid(replace(limits, expires_at=soon), NOW) == (open_, soon)
    assert policy.valid(replace(limits, expires_at=nine), NOW) == (open_, five)
    assert policy.valid(Policy(expires_at=soon), NOW) == (None, soon)
    assert policy.valid(Policy(), NOW) == (None, None)


@pytest.mark.parametrize(
    ("rule", "detail"),
    [
        ("max_per_tx", "0.51 USDC is over the limit of 0.50 for one payment."),
        ("new_recipient_max", "0.51 USDC is over the limit of 0.50 for the first payment to a recipient."),
        ("approval_above", "0.51 USDC is over 0.50, above which a person has to approve."),
    ],
)
def test_a_limit_of_a_single_payment_is_explained(rule: str, detail: str) -> None:
    refusal = policy.exceeded(rule, limit=500_000, spent=0, amount_micros=510_000)
    assert refusal.facts == {"rule": rule, "limit": "0.50", "would_allow": "0.50"}
    assert (refusal.detail, refusal.retryable) == (detail, False)


@pytest.mark.parametrize(
    ("rule", "name", "slides"),
    [
        ("max_total", "the total", False),
        ("max_per_hour", "the hour's limit", True),
        ("max_per_day", "the day's limit", True),
    ],
)
def test_a_limit_of_a_sum_says_what_counts_already_and_what_is_left(rule: str, name: str, slides: bool) -> None:
    refusal = policy.exceeded(rule, limit=500_000, spent=420_000, amount_micros=90_000)
    assert refusal.facts == {"rule": rule, "limit": "0.50", "would_allow": "0.08", "spent": "0.42"}
    assert refusal.detail == f"0.09 USDC would pass {name} of 0.50; 0.08 is left."
    assert refusal.retryable is slides  # over a sliding time room comes by itself
    refusal = policy.exceeded(rule, limit=500_000, spent=600_000, amount_micros=90_000)
    assert refusal.facts == {"rule": rule, "limit": "0.50", "would_allow": "0.00", "spent": "0.60"}


def test_a_limit_of_a_number_of_payments_says_what_it_is() -> None:
    refusal = policy.exceeded("max_tx_per_minute", limit=60, spent=60, amount_micros=10_000)
    assert refusal.facts == {"rule": "max_tx_per_minute", "limit": 60, "would_allow": None}
    assert refusal.detail == "60 payments have been made within a minute."
    assert refusal.retryable is True


@pytest.mark.parametrize(
    "value",
    [[], "0.5", None, {}, ["0.5"] * 2, ["0.8", "0.5"], [0.5], [1], ["0"], ["1"], ["0.0"], ["1.0"], ["0.00005"], ["0.50000"],
     [".5"], ["0."], ["-0.5"], ["0.5 "], ["0,5"], ["5e-1"], ["0.５"], [True], [None], ["0.5", "0.50"],
     [f"0.{n:02d}" for n in range(1, 22)]],
    ids=ascii,
)  # fmt: skip
def test_checkpoints_are_ascending_decimal_strings_between_0_and_1(value: object) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        Policy.from_document({"checkpoint_at": value})
    assert caught.value.facts["field"] == "policy.checkpoint_at"


def test_checkpoints_are_written_in_one_form() -> None:
    read = Policy.from_document({"checkpoint_at": ["0.0001", "0.50", "0.9000"]})
    assert read.checkpoint_at == (1, 5000, 9000)
    assert read.to_document() == {"checkpoint_at": ["0.0001", "0.5", "0.9"]}


@given(limits=drawn.policies())
def test_every_policy_is_read_as_it_was_written(limits: Policy) -> None:
    document = limits.to_document()
    assert Policy.from_document(document) == limits
    assert Policy.from_document(json.loads(json.dumps(document))) == limits
    assert Policy.from_document(document).to_document() == document


@settings(max_examples=100, deadline=None)
@given(limits=drawn.policies(), to=drawn.agents, capability=st.none() | drawn.capabilities, now=drawn.moments)
def test_the_answer_is_the_same_all_the_time_that_it_is_said_to_hold(
    limits: Policy, to: str, capability: str | None, now: datetime
) -> None:
    since, until = policy.valid(limits, now)
    assert since is None or since <= now
    assert until is None or now < until

    def answer(at: datetime) -> object:
        try:
            policy.check(limits, to=to, capability=capability, now=at)
        except PolicyDenied as denial:
            return denial.facts, denial.detail, denial.retryable
        return None

    first = since or now - timedelta(days=1)
    last = until - timedelta(microseconds=1) if until else now + timedelta(days=1)
    assert answer(first) == answer(first + (last - first) / 2) == answer(last) == answer(now)


@pytest.mark.parametrize("value", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
def test_an_end_outside_of_the_calendar_is_refused(value: str) -> None:
    with pytest.raises(InvalidPolicy, match="must be a time with its zone"):
        Policy.from_document({"expires_at": value})


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
scalars |= st.sampled_from(
    ["1.00", "*.acme.dev", "code.lint", "mon", "09:00", "24:00", "UTC", "USDC", "2030-01-01T00:00:00Z"]
)
members = st.sampled_from(["days", "from", "to", "zone", "type", "max", "currency", "allowed", "not_after"])
anything = st.recursive(
    scalars, lambda below: st.lists(below, max_size=3) | st.dictionaries(members, below, max_size=4)
)
keys = st.sampled_from(
    [field.name for field in fields(Policy)] + [*ap2.ALIASES, ap2.LIST, "payment.reference"]
) | st.text(max_size=3)


@settings(max_examples=500)
@given(document=st.dictionaries(keys, anything, max_size=4))
def test_whatever_comes_is_read_or_refused_with_what_would_pass(document: dict[str, object]) -> None:
    try:
        read = Policy.from_document(document)
    except InvalidPolicy as refusal:
        assert set(refusal.facts) == {"field", "rule", "would_pass"}  # noqa: PT017 - refused or not, as it is drawn
        assert str(refusal.facts["field"]).startswith("policy.")  # noqa: PT017
    else:
        assert Policy.from_document(read.to_document()) == read
