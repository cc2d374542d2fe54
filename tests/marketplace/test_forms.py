"""What is said of a field of the wrong form: the rule in plain words, and an example that passes."""

import json
from typing import Any

import pytest

from marketplace.api import forms
from marketplace.api.endpoint import read
from marketplace.api.fields import Shape
from tests.marketplace.conftest import World
from tests.marketplace.test_isolation import ROUTES

pytestmark = pytest.mark.django_db

BODIES = {rule.body.__name__: rule.body for _, _, rule in ROUTES if rule.body.model_fields}
EITHER = {"DisputeIn": "invoice_id"}
"""Members in whose place another one may stand."""


def wrong(answer: Any) -> tuple[str, str, str]:
    """The field, the rule, and what would pass, of the one field that is wrong."""
    (error,) = answer.json["errors"]
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")
    assert error["message"] == f"{error['field']} {error['rule']}." == answer.json["detail"]
    return error["field"], error["rule"], error["would_pass"]


@pytest.mark.parametrize(
    ("query", "rule", "would_pass"),
    [
        ("limit=100000", "must be 200 or less", "200"),
        ("limit=0", "must be 1 or more", "1"),
        ("cursor=" + "x" * 201, "must have 200 or fewer characters", "200 characters or fewer"),
    ],
)
def test_a_limit_is_said_with_the_number_that_passes(world: World, query: str, rule: str, would_pass: str) -> None:
    name = query.partition("=")[0]
    assert wrong(world.a.by_payer.get(f"/v1/payments?{query}")) == (name, rule, would_pass)
    if would_pass.isdigit():
        assert world.a.by_payer.get(f"/v1/payments?{name}={would_pass}").status == 200


def test_a_word_that_is_none_of_a_list_is_said_with_the_list(world: World) -> None:
    field, rule, would_pass = wrong(world.a.by_payer.get("/v1/sessions?status=gone"))
    assert (field, rule, would_pass) == ("status", "must be 'open', 'paused' or 'closed'", '"open"')


@pytest.mark.parametrize(
    ("body", "field", "rule", "would_pass"),
    [
        ({}, "deposit", "is required", '"25.00"'),
        ({"deposit": "25.00", "providers": "x"}, "providers", "must be a list", "[]"),
        ({"deposit": "25.00", "expires_in_hours": "x"}, "expires_in_hours", "must be an integer", "1"),
        ({"deposit": "25.00", "expires_in_hours": 10**6}, "expires_in_hours", "must be 8760 or less", "8760"),
        ({"deposit": "25.00", "currency": "EUR"}, "currency", "must be 'USDC'", '"USDC"'),
    ],
)
def test_a_field_that_is_wrong_is_said_with_an_example_and_opens_no_pool(
    world: World, unmoved: Any, body: dict[str, Any], field: str, rule: str, would_pass: str
) -> None:
    with unmoved():
        assert wrong(world.a.by_payer.post("/v1/pools", body)) == (field, rule, would_pass)


def test_a_member_within_a_member_has_an_example_of_its_own(world: World) -> None:
    body = {"deliverable": {}, "invoice": {"amount": "0.01"}}
    answer = world.one.by_provider.post("/v1/tasks/0198c5f0-7a54-7c3e-9c5e-0c7c8f3f2a10/submit", body)
    assert wrong(answer) == ("invoice.number", "is required", '"INV-1"')
    answer = world.one.by_provider.post("/v1/tasks/0198c5f0-7a54-7c3e-9c5e-0c7c8f3f2a10/submit", {"deliverable": {}} | {
        "invoice": {"amount": "0.01", "number": "A", "extra": 1}
    })  # fmt: skip
    assert wrong(answer)[2].startswith("one of: amount, number")


@pytest.mark.parametrize("shape", BODIES.values(), ids=BODIES)
def test_what_is_said_to_pass_passes(shape: type[Shape]) -> None:
    members = [name for name in shape.model_fields if name != EITHER.get(shape.__name__)]
    assert read(shape, {name: json.loads(forms.example(shape, (name,))) for name in members})


@pytest.mark.parametrize("shape", BODIES.values(), ids=BODIES)
def test_nothing_is_said_in_the_words_of_a_library(shape: type[Shape]) -> None:
    for value in (None, 1, -1, 2**70, "", "x" * 5_000, "\ud800", [], {}, True, 0.5):
        try:
            shape.model_validate(dict.fromkeys(shape.model_fields, value))
        except ValueError as error:
            for found in forms.errors_of(error, shape):  # type: ignore[arg-type]
                assert found["rule"].startswith(("must ", "is ", "names ", "has ")), found
                assert "nput should" not in str(found), found
