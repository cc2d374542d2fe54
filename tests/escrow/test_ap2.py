"""`escrow.ap2`: the constraints of a mandate that mean a limit of ours, and those that are refused by name."""

from datetime import UTC, datetime

import pytest

from escrow import ap2
from escrow.errors import InvalidPolicy
from escrow.policy import Policy

BUDGET = {"max": "10.00", "currency": "USDC"}
CONSTRAINTS: dict[str, dict[str, object]] = {
    "payment.amount_range": {"max": "0.50", "currency": "USDC"},
    "payment.budget": BUDGET,
    "payment.allowed_payees": {"allowed": ["*.acme.dev", "agent://lint.example.dev"]},
    "payment.execution_date": {"not_after": "2030-01-01T01:00:00+01:00"},
}
SAME = Policy(
    max_per_tx=500_000,
    max_total=10_000_000,
    allowed_recipients=("*.acme.dev", "agent://lint.example.dev"),
    expires_at=datetime(2030, 1, 1, tzinfo=UTC),
)


def refused(document: dict[str, object]) -> dict[str, object]:
    with pytest.raises(InvalidPolicy) as caught:
        Policy.from_document(document)
    return caught.value.facts


def test_a_constraint_is_the_limit_that_it_means_and_is_written_as_ours() -> None:
    read = Policy.from_document(CONSTRAINTS)
    assert read == SAME
    assert read.to_document() == {
        "max_per_tx": "0.50",
        "max_total": "10.00",
        "allowed_recipients": ["*.acme.dev", "agent://lint.example.dev"],
        "expires_at": "2030-01-01T00:00:00Z",
    }


def test_the_list_of_a_mandate_is_read_like_keys() -> None:
    listed = [{"type": name, **value} for name, value in CONSTRAINTS.items()]
    assert Policy.from_document({"constraints": listed}) == SAME
    mixed = {"constraints": listed[:2], **dict(list(CONSTRAINTS.items())[2:])}
    assert Policy.from_document(mixed) == SAME


def test_our_keys_stand_beside_constraints_of_other_limits() -> None:
    read = Policy.from_document({"max_per_hour": "1.00", "payment.budget": BUDGET})
    assert read == Policy(max_per_hour=1_000_000, max_total=10_000_000)


@pytest.mark.parametrize(("name", "limit"), ap2.ALIASES.items())
def test_one_limit_is_said_once(name: str, limit: str) -> None:
    value = CONSTRAINTS[name]
    ours = SAME.to_document()[limit]
    entry = {"type": name, **value}
    assert refused({limit: ours, name: value}) == {
        "field": f"policy.{name}", "rule": f"says the same as {limit}", "would_pass": "one of the two",
    }  # fmt: skip
    assert refused({limit: ours, "constraints": [entry]})["rule"] == f"says the same as {limit}"
    assert refused({name: value, "constraints": [entry]})["rule"] == f"says the same as {name}"
    assert refused({"constraints": [entry, entry]}) == {
        "field": "policy.constraints[1]", "rule": f"says the same as {name}", "would_pass": "one of the two",
    }  # fmt: skip


@pytest.mark.parametrize("amount", [10, 10.0, 1000, True, None, ["10.00"], {"value": "10.00"}], ids=repr)
@pytest.mark.parametrize("name", ["payment.budget", "payment.amount_range"])
def test_an_amount_that_is_not_a_string_is_refused_because_it_has_two_meanings(name: str, amount: object) -> None:
    rule = "must be a decimal string: a number of the protocol is cents in one place and whole units in another"
    facts = {"field": f"policy.{name}.max", "rule": rule, "would_pass": '"10.00"'}
    assert refused({name: {"max": amount, "currency": "USDC"}}) == facts
    in_list = refused({"constraints": [{"type": name, "max": amount, "currency": "USDC"}]})
    assert in_list == facts | {"field": "policy.constraints[0].max"}


@pytest.mark.parametrize("amount", ["", "0", "-1", "1e3", "10,00", "1.0000001", " 1", "１"])
def test_an_amount_has_the_form_of_all_amounts(amount: str) -> None:
    assert refused({"payment.budget": {"max": amount, "currency": "USDC"}})["field"] == "policy.payment.budget.max"
    listed = [{"type": "payment.budget", "max": amount, "currency": "USDC"}]
    assert refused({"constraints": listed})["field"] == "policy.constraints[0].max"


@pytest.mark.parametrize("currency", ["USD", "usdc", "", None, 840])
def test_another_currency_is_refused(currency: object) -> None:
    assert refused({"payment.budget": {"max": "1.00", "currency": currency}}) == {
        "field": "policy.payment.budget.currency", "rule": "must be USDC", "would_pass": '"USDC"',
    }  # fmt: skip


@pytest.mark.parametrize(
    ("document", "field", "rule"),
    [
        ({"payment.budget": {"max": "1.00"}}, "payment.budget.currency", "is missing"),
        ({"payment.budget": {"currency": "USDC"}}, "payment.budget.max", "is missing"),
        ({"payment.budget": {**BUDGET, "spent": "1.00"}}, "payment.budget.spent", "is not a member that is read"),
        ({"payment.budget": {**BUDGET, "min": "1.00"}}, "payment.budget.min", "is not checked: a limit here is a most"),
        ({"payment.amount_range": {**BUDGET, "min": "0"}}, "payment.amount_range.min", "is not checked: a limit here"),
        ({"payment.budget": "10.00"}, "payment.budget", "must be an object, as the protocol has it"),
        ({"payment.budget": None}, "payment.budget", "must be an object, as the protocol has it"),
        ({"payment.allowed_payees": ["*.acme.dev"]}, "payment.allowed_payees", "must be an object"),
        ({"payment.allowed_payees": {}}, "payment.allowed_payees.allowed", "is missing"),
        ({"payment.allowed_payees": {"allowed": "*.acme.dev"}}, "payment.allowed_payees.allowed", "must be a list of"),
        ({"payment.allowed_payees": {"allowed": [{"id": "1"}]}}, "payment.allowed_payees.allowed", "must be a list of"),
        ({"payment.allowed_payees": {"allowed": []}}, "payment.allowed_payees.allowed", "must be a list of 1 to"),
        ({"payment.allowed_payees": {"allowed": ["*"]}}, "payment.allowed_payees.allowed", "must hold lower-case"),
        ({"payment.execution_date": {"not_before": 1}}, "payment.execution_date.not_before", "is not checked"),
        ({"payment.execution_date": {}}, "payment.execution_date.not_after", "is missing"),
        ({"payment.execution_date": {"not_after": "2030-01-01"}}, "payment.execution_date.not_after", "must be a time"),
        ({"constraints": {}}, "constraints", "must be a list of 1 to 20 constraints"),
        ({"constraints": []}, "constraints", "must be a list of 1 to 20 constraints"),
        ({"constraints": [BUDGET] * 21}, "constraints", "must be a list of 1 to 20 constraints"),
        ({"constraints": [BUDGET]}, "constraints[0]", "must be an object with its type"),
        ({"constraints": ["payment.budget"]}, "constraints[0]", "must be an object with its type"),
        ({"constraints": [{"type": ["payment.budget"]}]}, "constraints[0]", "must be an object with its type"),
        ({"constraints": [{"type": "max_total", **BUDGET}]}, "constraints[0]", "names max_total, a constraint"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_constraint_of_another_form_is_refused(document: dict[str, object], field: str, rule: str) -> None:
    facts = refused(document)
    assert facts["field"] == f"policy.{field}"
    assert str(facts["rule"]).startswith(rule)


@pytest.mark.parametrize(
    ("name", "would_pass"),
    [
        ("payment.agent_recurrence", "max_tx_per_minute, max_per_hour, max_per_day or windows"),
        ("payment.reference", "the metadata of each payment"),
        ("payment.allowed_payment_instruments", "nothing: a session pays from its own pool"),
        ("payment.allowed_pisps", "nothing: no other service starts a payment"),
        ("checkout.line_items", "allowed_capabilities"),
        ("checkout.allowed_merchants", "payment.allowed_payees or allowed_recipients"),
        (
            "payment.colour",
            "one of payment.amount_range, payment.budget, payment.allowed_payees, payment.execution_date",
        ),
        (
            "checkout.colour",
            "one of payment.amount_range, payment.budget, payment.allowed_payees, payment.execution_date",
        ),
    ],
)
def test_another_constraint_is_refused_by_name(name: str, would_pass: str) -> None:
    facts = {"rule": f"names {name}, a constraint that is not checked here", "would_pass": would_pass}
    assert refused({name: {}}) == facts | {"field": f"policy.{name}"}
    assert refused({"constraints": [{"type": name}]}) == facts | {"field": "policy.constraints[0]"}
