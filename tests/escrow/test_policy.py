"""`escrow.policy`: what a document may say, whom a pattern means, and the facts of each refusal."""

from datetime import UTC, datetime, timedelta

import pytest

from escrow import policy
from escrow.errors import InvalidPolicy, PolicyDenied
from escrow.policy import Policy
from tests.escrow.books import LINT, NOW


@pytest.mark.parametrize("agent", ["agent://lint.acme.dev", "agent://a.b.acme.dev", "agent://xn--bcher-kva.acme.dev"])
def test_a_wildcard_means_the_labels_below(agent: str) -> None:
    assert policy.matches("*.acme.dev", agent)
    assert policy.matches("agent://*.acme.dev", agent)


@pytest.mark.parametrize(
    "agent",
    [
        "agent://acme.dev",
        "agent://evilacme.dev",
        "agent://acme.dev.evil",
        "agent://lint.acme.dev.evil",
        "agent://lint.acme.dev.",
        "agent://Lint.acme.dev",
        "agent://lint.ACME.dev",
        "AGENT://lint.acme.dev",
        "agent://.acme.dev",
        "agent://*.acme.dev",
        "agent://lint..acme.dev",
        "agent://-lint.acme.dev",
        "agent://lint.acme.dev/x",
        "agent://lint.acme.dev:80",
        "agent://user@lint.acme.dev",
        "agent://lint.acme.dev\n",
        "agent://lınt.acme.dev",
        "agent://lint.аcme.dev",
        "https://lint.acme.dev",
        "lint.acme.dev",
        "agent://agent://lint.acme.dev",
        f"agent://{'a' * 64}.acme.dev",
        f"agent://{'a.' * 130}acme.dev",
        "",
    ],
)
def test_a_wildcard_means_nothing_else(agent: str) -> None:
    assert not policy.matches("*.acme.dev", agent)


@pytest.mark.parametrize("pattern", ["lint.acme.dev", "agent://lint.acme.dev"])
def test_a_name_means_itself(pattern: str) -> None:
    assert policy.matches(pattern, "agent://lint.acme.dev")
    assert not policy.matches(pattern, "agent://a.lint.acme.dev")
    assert not policy.matches(pattern, "agent://acme.dev")
    assert not policy.matches(pattern, "agent://evillint.acme.dev")


def test_punycode_is_compared_as_it_is_written() -> None:
    assert policy.matches("xn--bcher-kva.dev", "agent://xn--bcher-kva.dev")
    assert not policy.matches("xn--bcher-kva.dev", "agent://bücher.dev")


@pytest.mark.parametrize(
    "pattern",
    [
        "*", "*.*", "*.*.dev", "lint.*.dev", "*acme.dev", "l*.acme.dev", "acme.dev*", "*.", "*.dev.", "dev", "*.dev",
        "Acme.dev", "ACME.DEV", "acme.dev.", ".acme.dev", "acme..dev", "https://acme.dev", "agent://", "acme.dev/x",
        "bücher.dev", "acme.dev\n", "", 1, None, ["acme.dev"], {"host": "acme.dev"},
    ],
    ids=repr,
)  # fmt: skip
def test_patterns_of_another_form_are_refused(pattern: object) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        Policy.from_document({"allowed_recipients": [pattern]})
    assert caught.value.facts["field"] == "policy.allowed_recipients"


@pytest.mark.parametrize("listed", [[], "acme.dev", None, {}, [f"a{n}.acme.dev" for n in range(101)]], ids=type)
def test_a_list_of_recipients_has_one_to_a_hundred(listed: object) -> None:
    with pytest.raises(InvalidPolicy, match="must be a list of 1 to 100 patterns"):
        Policy.from_document({"denied_recipients": listed})


@pytest.mark.parametrize("key", ["max_per_week", "MAX_PER_TX", "maxPerTx", "", "max_per_tx "])
def test_an_unknown_key_is_named_with_the_known_ones(key: str) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        Policy.from_document({key: "1.00"})
    assert caught.value.facts == {
        "field": f"policy.{key}",
        "rule": "is not a policy key",
        "would_pass": "one of allowed_recipients, denied_recipients, expires_at, max_per_day, max_per_hour, max_per_tx, "
        "max_total, max_tx_per_minute",
    }


@pytest.mark.parametrize("value", [1, 0.5, None, "1e3", "-1", "0", True], ids=repr)
@pytest.mark.parametrize("key", policy.AMOUNTS)
def test_an_amount_in_a_policy_is_a_decimal_string(key: str, value: object) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        Policy.from_document({key: value})
    assert caught.value.facts["field"] == f"policy.{key}"


@pytest.mark.parametrize(
    "value", ["2030-01-01", "2030-01-01T00:00:00", "soon", 1893456000, None, "２030-01-01T00:00:00Z"]
)
def test_an_end_has_a_zone(value: object) -> None:
    with pytest.raises(InvalidPolicy, match="must be a time with its zone"):
        Policy.from_document({"expires_at": value})


def test_a_document_is_read_and_written_alike() -> None:
    document = {
        "max_per_tx": "0.05",
        "max_total": "20.00",
        "max_per_hour": "5.00",
        "max_per_day": "10.00",
        "max_tx_per_minute": 60,
        "allowed_recipients": ["*.acme.dev", "agent://lint.example.dev"],
        "denied_recipients": ["bad.acme.dev"],
        "expires_at": "2030-01-01T00:00:00Z",
    }
    read = Policy.from_document(document)
    assert read.max_per_tx == 50_000
    assert read.expires_at == datetime(2030, 1, 1, tzinfo=UTC)
    assert read.to_document() == document
    assert Policy.from_document({}).to_document() == {}


def check(limits: Policy, *, to: str = LINT, now: datetime = NOW) -> None:
    policy.check(limits, to=to, now=now)


def test_allowed_recipients() -> None:
    check(Policy(allowed_recipients=("*.acme.dev",)))
    with pytest.raises(PolicyDenied) as caught:
        check(Policy(allowed_recipients=("*.acme.dev",)), to="agent://lint.evilacme.dev")
    assert caught.value.facts == {
        "rule": "allowed_recipients", "limit": ["*.acme.dev"], "would_allow": ["*.acme.dev"],
    }  # fmt: skip


def test_denied_recipients_win_over_allowed_ones() -> None:
    with pytest.raises(PolicyDenied) as caught:
        check(Policy(allowed_recipients=("*.acme.dev",), denied_recipients=("lint.acme.dev",)))
    assert caught.value.facts == {"rule": "denied_recipients", "limit": ["lint.acme.dev"], "would_allow": None}


def test_the_end_of_a_policy() -> None:
    limits = Policy(expires_at=NOW)
    check(limits, now=NOW - timedelta(microseconds=1))
    with pytest.raises(PolicyDenied) as caught:
        check(limits, now=NOW)
    assert caught.value.facts == {"rule": "expires_at", "limit": "2026-11-24T12:00:00Z", "would_allow": None}
