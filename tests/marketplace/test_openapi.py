"""The OpenAPI document is valid, whole and says what the code does."""

import dataclasses
import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from drf_spectacular.validation import validate_schema
from hypothesis import given
from jsonschema import Draft202012Validator

from escrow import ap2
from escrow.policy import Policy
from marketplace.api import bodies, fields, problems
from marketplace.api.endpoint import rules_of
from marketplace.api.urls import endpoints, urlpatterns
from tests.escrow import drawn
from tests.marketplace.client import document, validator

OPERATIONS = [
    (path, method, operation) for path, methods in document()["paths"].items() for method, operation in methods.items()
]
DECLARED = {
    (re.sub(r"<\w+:(\w+)>", r"{\1}", f"/{pattern.pattern}"), method.lower()): rule
    for pattern in endpoints
    for method, rule in rules_of(pattern.callback.cls)  # type: ignore[union-attr]
}


def test_it_is_openapi_3_1_and_valid() -> None:
    assert document()["openapi"] == "3.1.1"
    validate_schema(document())
    for name, schema in document()["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object", name


def test_it_is_served_as_json(client: Client) -> None:
    answer = client.get("/v1/openapi.json")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.json() == document()


def test_swagger_ui_is_served_from_here(client: Client) -> None:
    page = client.get("/docs").content.decode()
    assert "/v1/openapi.json" in page
    assert "/static/drf_spectacular_sidecar/" in page
    assert "https://" not in page


def test_every_route_is_in_it_with_its_methods() -> None:
    assert {(path, method) for path, method, _ in OPERATIONS} == set(DECLARED)
    beside = {pattern.name for pattern in urlpatterns if pattern not in endpoints}
    assert beside == {"openapi", "error-index", "error-page", None}


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(names)) == len(names)
    assert all(operation["summary"] and operation["tags"] for _, _, operation in OPERATIONS)


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS, ids=[f"{m} {p}" for p, m, _ in OPERATIONS])
def test_an_operation_says_who_what_and_how_it_fails(path: str, method: str, operation: dict[str, Any]) -> None:
    rule = DECLARED[path, method]
    named = {
        place: [at["name"] for at in operation["parameters"] if at["in"] == place] for place in ("header", "query")
    }
    assert named["header"] == (["Idempotency-Key"] if rule.money or rule.reveals else [])
    assert all(at["required"] == rule.money for at in operation["parameters"] if at["in"] == "header")
    assert set(named["query"]) == set(rule.query.model_fields)
    assert operation["security"] == ([{"apiKey": []}] if rule.scopes else [])
    assert ("401" in operation["responses"]) == bool(rule.scopes)
    for status, response in operation["responses"].items():
        for content in response["content"].values():
            for name, example in content.get("examples", {}).items():
                value = document()["components"]["examples"][example["$ref"].split("/")[-1]]["value"]
                assert (value["code"], value["status"]) == (name, int(status))
                assert not list(validator(json.dumps(content["schema"])).iter_errors(value))


def test_every_code_is_documented_somewhere_and_has_a_page(client: Client) -> None:
    documented = {name for _, _, operation in OPERATIONS for response in operation["responses"].values()
                  for content in response["content"].values() for name in content.get("examples", {})}  # fmt: skip
    assert documented == set(problems.KINDS) - {"method_not_allowed"}
    for code, kind in problems.KINDS.items():
        page = client.get(f"/docs/errors/{code}")
        assert page.status_code == 200
        assert kind.title in html.unescape(page.content.decode())
    assert client.get("/docs/errors/unknown").status_code == 404


def test_examples_in_the_shapes_pass_their_own_schema() -> None:
    policy = document()["components"]["schemas"]["SessionIn"]["properties"]["policy"]["anyOf"][0]
    for example in policy["examples"]:
        assert not list(Draft202012Validator(policy).iter_errors(example))
        bodies.SessionIn.model_validate({"budget": "1.00", "policy": example})


@given(limits=drawn.policies())
def test_every_policy_passes_the_schema_in_which_it_is_shown(limits: Policy) -> None:
    assert not list(Draft202012Validator(fields.POLICY_SCHEMA).iter_errors(limits.to_document()))


def test_the_schema_of_a_policy_has_every_key_and_every_constraint_that_is_read() -> None:
    keys = {limit.name for limit in dataclasses.fields(Policy)}
    assert set(fields.POLICY_SCHEMA["properties"]) == keys
    assert set(fields.POLICY_IN_SCHEMA["properties"]) == keys | set(ap2.ALIASES) | {ap2.LIST}


def test_what_the_page_about_policies_shows_passes_the_schema_in_which_it_is_sent() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "policy.md").read_text(encoding="utf-8")
    for text in re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        assert not list(Draft202012Validator(fields.POLICY_IN_SCHEMA).iter_errors(json.loads(text)))
