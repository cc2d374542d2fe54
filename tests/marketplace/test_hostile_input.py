"""Malformed input over every endpoint that takes any: refused with what is wrong, never a fault, nothing changed."""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import pytest

from escrow.models import Session
from marketplace.api import parsing
from marketplace.api.endpoint import rules_of
from marketplace.api.errors import Problem
from marketplace.api.fields import AMOUNT_PATTERN
from marketplace.api.urls import endpoints
from marketplace.models import Agent, ApiKey, Task
from tests.marketplace.client import document
from tests.marketplace.conftest import World
from tests.marketplace.test_isolation import fill

pytestmark = pytest.mark.django_db

BAD_AMOUNTS = [
    "-0", "0", "0.0", "0.000000", "-1", "1e3", "1E-6", "1e-7", "NaN", "Infinity", "sNaN", "1_000", "１２", "٣", "+5",
    " 7 ", "7\n", "\t7", ".5", "1.", "00012", "01", "1,5", "0x10", "1" + "0" * 30, "1" * 1001, "0.0000001", "1.0000000",
    "", " ", "−1", "1.5.1", "1/2", "½", "1'000", "0b1", "$1", "1 USDC", "1\u0000", "１.５", "1e400",
    "10^30", "0.30000000000000004", "true", "null", "[]", "{}", "1" + "\u200b", "1\u00a0",
]  # fmt: skip
BAD_AMOUNT_JSON = [
    "0.1", "0.30000000000000004", "1", "0", "-1", "true", "false", "null", "[]", "{}",
    '["1.00"]', '{"value": "1.00"}', "1e2",
]  # fmt: skip
DEEP = 100_000
BAD_DOCUMENTS: dict[str, bytes] = {
    "an array": b"[]",
    "null": b"null",
    "a string": b'"x"',
    "a number": b"1",
    "white space": b"   ",
    "half an object": b'{"to": "agent://lint.acme.dev"',
    "two objects": b"{}{}",
    "single quotes": b"{'to': 1}",
    "a comment": b"{/* */}",
    "a trailing comma": b'{"amount": "1.00",}',
    "duplicate keys": b'{"amount": "0.01", "amount": "9.00", "to": "agent://lint.acme.dev"}',
    "duplicate keys inside": b'{"to": "agent://lint.acme.dev", "amount": "1.00", "metadata": {"a": {"b": 1, "b": 2}}}',
    "NaN": b'{"metadata": {"x": NaN}}',
    "Infinity": b'{"metadata": {"x": Infinity}}',
    "-Infinity": b'{"metadata": {"x": -Infinity}}',
    "1e999": b'{"metadata": {"x": 1e999}}',
    "-1e999": b'{"metadata": {"x": -1e999}}',
    "2^53 + 1": b'{"metadata": {"x": 9007199254740993}}',
    "5,000 digits": b'{"metadata": {"x": ' + b"9" * 5000 + b"}}",
    "NUL in a value": b'{"metadata": {"x": "a\\u0000b"}}',
    "NUL in a key": b'{"metadata": {"a\\u0000b": 1}}',
    "a raw NUL": b'{"metadata": {"x": "a\x00b"}}',
    "half a surrogate pair": b'{"metadata": {"x": "\\ud800"}}',
    "the other half": b'{"metadata": {"x": "\\udc00 "}}',
    "half a pair in a key": b'{"metadata": {"\\ud800": 1}}',
    "bad UTF-8": b'{"metadata": {"x": "\xff"}}',
    "overlong UTF-8": b'{"metadata": {"x": "\xc0\xaf"}}',
    "a surrogate in UTF-8": b'{"metadata": {"x": "\xed\xa0\x80"}}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"to": "x"}'.encode("utf-16"),
    "UTF-32": '{"to": "x"}'.encode("utf-32"),
    "33 levels": b'{"metadata": ' + b"[" * 32 + b"]" * 32 + b"}",
    "900 levels": b'{"metadata": ' + b"[" * 900 + b"]" * 900 + b"}",
    "3,000 levels": b'{"metadata": ' + b"[" * 3000 + b"]" * 3000 + b"}",
    "100,000 open brackets": b'{"metadata": ' + b"[" * DEEP,
    "100,000 levels of objects": b'{"a":' * 40_000 + b"1" + b"}" * 40_000,
}
BAD_AGENTS = [
    "lint.acme.dev", "agent:lint.acme.dev", "AGENT://lint.acme.dev", "agent://LINT.acme.dev", "agent://lint.acme.dev.",
    "agent://*.acme.dev", "agent://*.*", "agent://acme", "agent://", "agent://lint.acme.dev/", "agent://lint.acme.dev:80",
    "agent://u@lint.acme.dev", "agent://xn--lnt-tma.acme.dev", "agent://lïnt.acme.dev", "agent://lint..dev",
    "agent://-lint.acme.dev", "agent://lint-.acme.dev", "agent://lint.acme.dev?x=1", " agent://lint.acme.dev",
    "agent://lint.acme.dev\n", "agent://" + "a" * 64 + ".acme.dev", "agent://" + "a." * 127 + "dev", "agent://127.0.0.1/x",
    "",
]  # fmt: skip
ROUTES = [
    ("/" + str(pattern.pattern), rule)
    for pattern in endpoints
    for method, rule in rules_of(pattern.callback.cls)  # type: ignore[union-attr]
    if method == "POST"
]
PATHS = ["/" + str(pattern.pattern) for pattern in endpoints]
READS = [
    ("/" + str(pattern.pattern), rule)
    for pattern in endpoints
    for method, rule in rules_of(pattern.callback.cls)  # type: ignore[union-attr]
    if method == "GET"
]
NOTHING = "0198c5f0-7a54-7c3e-9c5e-0c7c8f3f2a10"
PAY = {"to": "agent://lint.acme.dev", "amount": "0.01"}


def owner(world: World, rule) -> object:
    """Return a caller that may use an operation."""
    if "payer" in rule.scopes:
        return world.a.by_payer
    return world.a.by_session if "session" in rule.scopes else world.one.by_provider


@pytest.fixture
def paths(world: World) -> dict[str, str]:
    """Return ids for the routes: the session and the pool are there, the rest is not."""
    names = {name for path in PATHS for name in re.findall(r"<uuid:(\w+)>", path)}
    found = {"session_id": str(world.a.session.pk), "pool_id": str(world.a.pool.pk), "name": "lint.acme.dev"}
    return {**dict.fromkeys(names, NOTHING), **found}


def amounts(schema: dict[str, Any], where: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Return where a body has amounts, as the document says it."""
    parts = document()["components"]["schemas"]
    found = parts[schema["$ref"].split("/")[-1]] if "$ref" in schema else schema
    if found.get("pattern") == AMOUNT_PATTERN:
        yield where
    for option in found.get("anyOf", ()):
        yield from amounts(option, where)
    for name, part in found.get("properties", {}).items():
        yield from amounts(part, (*where, name))
    if "items" in found:
        yield from amounts(found["items"], (*where, 0))


def body_with(where: Sequence[str | int], value: object) -> Any:
    """Return a body with nothing but a value at a place."""
    for step in reversed(where):
        beside = {"currency": "USDC"} if step == "max" else {}  # of another protocol's constraint, which names it
        value = [value] if step == 0 else {step: value, **beside}
    return value


AMOUNTS = [
    (path, rule, where)
    for path, rule in ROUTES
    for where in amounts(rule.body.model_json_schema(mode="validation", ref_template="#/components/schemas/{model}"))
]
"""Every amount that any operation takes."""


def test_amounts_are_found_wherever_one_is_taken() -> None:
    found = {(path, where[-1]) for path, _, where in AMOUNTS}
    assert {
        ("/v1/payments", "amount"),
        ("/v1/sessions", "budget"),
        ("/v1/sessions", "max_per_tx"),
        ("/v1/pools", "deposit"),
        ("/v1/tasks/<uuid:task_id>/submit", "amount"),
        ("/v1/agents", "price"),
    } <= found


@pytest.mark.parametrize(
    ("path", "rule", "where"), AMOUNTS, ids=[f"{path} {'.'.join(map(str, where))}" for path, _, where in AMOUNTS]
)
def test_an_amount_that_is_no_amount_is_refused_wherever_one_is_taken(
    world: World, paths: dict[str, str], unmoved, path: str, rule, where: tuple[str | int, ...]
) -> None:
    target, caller = fill(path, paths), owner(world, rule)
    bad = [*BAD_AMOUNTS, *(json.loads(text) for text in BAD_AMOUNT_JSON if text != "null")]
    before = (Agent.objects.count(), Session.objects.count(), Task.objects.count())
    with unmoved():
        for amount in bad:
            answer = caller.post(target, body_with(where, amount))
            assert (answer.status, answer.json["code"] in ("invalid_request", "invalid_json")) == (400, True), amount
            assert answer.json.get("outcome", "not_charged") == "not_charged"
            if answer.json["code"] == "invalid_request":
                fields = [error["field"] for error in answer.json["errors"]]
                named = {".".join(map(str, where[: end + 1])) for end in range(len(where))}
                assert named & set(fields), (amount, fields)
    assert (Agent.objects.count(), Session.objects.count(), Task.objects.count()) == before


@pytest.mark.parametrize("amount", BAD_AMOUNT_JSON)
def test_an_amount_that_is_no_string_is_refused(world: World, unmoved, amount: str) -> None:
    raw = f'{{"to": "agent://lint.acme.dev", "amount": {amount}}}'.encode()
    with unmoved():
        answer = world.a.by_session.send("POST", "/v1/payments", raw, idempotency_key="new")
    assert (answer.status, answer.json["errors"][0]["field"]) == (400, "amount")
    assert answer.json["errors"][0]["would_pass"] == 'a string such as "0.008"'


@pytest.mark.parametrize(("path", "rule"), ROUTES, ids=[path for path, _ in ROUTES])
def test_no_document_that_is_not_one_json_object_passes(
    world: World, paths: dict[str, str], unmoved, path: str, rule
) -> None:
    target, caller = fill(path, paths), owner(world, rule)
    before = (Agent.objects.count(), ApiKey.objects.count(), Task.objects.count())
    with unmoved():
        for name, raw in BAD_DOCUMENTS.items():
            answer = caller.send("POST", target, raw, idempotency_key="new")
            assert (answer.status, answer.json["code"]) == (400, "invalid_json"), name
            assert answer.json["detail"].startswith("The body is not acceptable JSON: "), name
    assert (Agent.objects.count(), ApiKey.objects.count(), Task.objects.count()) == before


@pytest.mark.parametrize(("path", "rule"), ROUTES, ids=[path for path, _ in ROUTES])
def test_unknown_fields_are_refused_by_name(world: World, paths: dict[str, str], unmoved, path: str, rule) -> None:
    with unmoved():
        for name in ("status", "payer_id", "amount_micros", "pool", "__proto__", "remaining"):
            answer = owner(world, rule).post(fill(path, paths), {name: "1.00"})
            assert answer.status == 400
            assert name in [error["field"] for error in answer.json["errors"]]


@pytest.mark.parametrize(("path", "rule"), ROUTES, ids=[path for path, _ in ROUTES])
def test_only_json_in_utf8_of_a_bounded_size_is_read(
    world: World, paths: dict[str, str], unmoved, path: str, rule
) -> None:
    target, caller = fill(path, paths), owner(world, rule)
    with unmoved():
        for kind in ("text/plain", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data", "x",
                     "application/json; charset=utf-16", "application/json; charset=x"):  # fmt: skip
            answer = caller.send("POST", target, b"{}", content_type=kind, idempotency_key="new")
            assert (answer.status, answer.json["code"]) == (415, "unsupported_media_type"), kind
        large = b'{"metadata": "' + b"x" * 3_000_000 + b'"}'
        answer = caller.send("POST", target, large, idempotency_key="new")
        assert (answer.status, answer.json["code"]) == (413, "payload_too_large")


@pytest.mark.parametrize("agent", BAD_AGENTS, ids=lambda agent: ascii(agent)[:30])
def test_a_name_that_is_no_agents_name_is_refused(world: World, unmoved, agent: str) -> None:
    with unmoved():
        paid = world.a.by_session.post("/v1/payments", {**PAY, "to": agent})
        made = world.one.by_provider.post("/v1/agents", {"uri": agent, "name": "n"})
    assert (paid.status, paid.json["errors"][0]["field"]) == (400, "to")
    assert (made.status, made.json["errors"][0]["field"]) == (400, "uri")
    assert Agent.objects.count() == 2


@pytest.mark.parametrize("key", ["", " ", "a b", "é", "a" * 256, "a\tb", "\x7f"], ids=ascii)
def test_an_idempotency_key_of_the_wrong_form_is_refused(world: World, unmoved, key: str) -> None:
    with unmoved():
        answer = world.a.by_session.send("POST", "/v1/payments", json.dumps(PAY).encode(), idempotency_key=key)
    assert answer.status == 400


def test_an_idempotency_key_of_255_characters_is_taken(world: World) -> None:
    assert world.a.by_session.post("/v1/payments", PAY, idempotency_key="~" * 255).status == 201


@pytest.mark.parametrize(
    "path",
    ["/v1/payments/٣", "/v1/payments/1", "/v1/payments/99999999999999999999", "/v1/payments/%00", "/v1/payments/../me",
     "/v1/payments/0198C5F0-7A54-7C3E-9C5E-0C7C8F3F2A10", "/v1/payments/0198c5f0-7a54-7c3e-9c5e-0c7c8f3f2a10%0a",
     "/v1/payments/0198c5f07a547c3e9c5e0c7c8f3f2a10", "/v1/agents/LINT.acme.dev", "/v1/agents/l%C3%AFnt.acme.dev",
     "/v1/agents/%2e%2e", "/v1/nothing", "/v1/", "/v1", "/v1/payments/", "/v1/%ff", "/v1/%0a"],
)  # fmt: skip
def test_an_address_that_is_none_is_not_found(world: World, path: str) -> None:
    for method in ("GET", "POST", "PUT", "DELETE"):
        answer = world.a.by_session.send(method, path, b"{}")
        assert answer.status in (404, 405), (method, answer.json)


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=201", "limit=-1", "limit=1.0", "limit=٣", "limit=", "limit=1_0", "limit=9" * 30, "limit=x",
     "limit=1&limit=2", "cursor=x", "cursor=%00", "cursor=", "cursor=AAAA", "cursor=%F0%9F%92%A9", "status=open;drop",
     "status=", "status=PAYABLE", "unknown=1", "session_id=1", "session_id=%00", "Limit=1"],
)  # fmt: skip
def test_a_parameter_of_the_wrong_form_is_refused(world: World, query: str) -> None:
    answer = world.a.by_session.get(f"/v1/payments?{query}")
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(("path", "rule"), READS, ids=[path for path, _ in READS])
def test_no_read_takes_a_parameter_that_it_does_not_know(world: World, paths: dict[str, str], path: str, rule) -> None:
    target, caller = fill(path, paths), owner(world, rule) if rule.scopes else world.nobody
    wrong = ["unknown=1", "__proto__=1", "%00=1", "Limit=1", "limit=1;drop=1"]
    for name in rule.query.model_fields:
        wrong += [f"{name}=%00", f"{name}=a&{name}=b", f"{name}=%F0%9F%92%A9" + "x" * 300]
    if "limit" in rule.query.model_fields:
        wrong += [f"limit={text}" for text in ("0", "-1", "1.0", "٣", "", "1_0", "9" * 30, "true", "1e3", "+1")]
    for query in wrong:
        answer = caller.get(f"{target}?{query}")
        assert (answer.status, answer.json["code"]) == (400, "invalid_request"), query


BAD_IDS = [
    "1", "٣", "%00", "9" * 40, "..", NOTHING.upper(), NOTHING.replace("-", ""), f"{NOTHING}%0a", "%ff", "%2e%2e%2f", "null",
]  # fmt: skip


def test_what_is_no_id_is_not_found_anywhere(world: World, unmoved) -> None:
    with unmoved():
        for path, id, method in product(
            [path for path in PATHS if "<uuid:" in path], BAD_IDS, ("GET", "POST", "DELETE")
        ):
            target = re.sub(r"<uuid:\w+>", id, path)
            answer = world.a.by_payer.send(method, target, b"{}", idempotency_key="new")
            assert answer.status in (404, 405), (method, target, answer.json)


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic eDp5", "bearer", "Bearer a b", "Bearer \u00e9", "Bearer x, Bearer y", "am_test_x"],
)
def test_a_header_that_is_no_key_opens_nothing(world: World, unmoved, header: str) -> None:
    with unmoved():
        answer = world.nobody.send(
            "POST", "/v1/payments", json.dumps(PAY).encode(), idempotency_key="new", headers={"Authorization": header}
        )
    assert (answer.status, answer.json["code"]) == (401, "unauthenticated")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "moment",
    ["2030-01-01", "2030-01-01T00:00:00", "2030-13-01T00:00:00Z", "2030-01-01T24:00:00Z", "2030-01-01 00:00:00Z",
    "٢030-01-01T00:00:00Z",
     "2030-02-30T00:00:00Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "2030-01-01T00:00:60Z",
     "tomorrow", "", 1, None],
)  # fmt: skip
def test_a_time_without_its_zone_or_out_of_the_calendar_is_refused(world: World, unmoved, moment: object) -> None:
    body = {"budget": "1.00", "expires_at": moment}
    if moment is None:
        assert world.a.by_payer.post("/v1/sessions", body).status == 201
        return
    with unmoved():
        answer = world.a.by_payer.post("/v1/sessions", body)
    assert (answer.status, answer.json["errors"][0]["field"]) == (400, "expires_at")


def test_strings_are_not_taken_for_numbers_nor_numbers_for_strings(world: World, unmoved) -> None:
    task = {"title": "t", "capability": "review", "budget": "1.00"}
    with unmoved():
        for field, value in (
            ("due_in_seconds", "60"), ("due_in_seconds", 60.0), ("due_in_seconds", True), ("due_in_seconds", 0),
            ("due_in_seconds", -1), ("due_in_seconds", 2**53), ("title", 1), ("title", ""), ("title", " "), ("title",
            "a\nb"), ("title", "x" * 201), ("brief", []), ("brief", "x"), ("capability", "Code Lint"),
            ("capability", "a" * 65),
            ("capability", "lint\n"), ("currency", "EUR"), ("currency", "usdc"), ("agent", {}), ("session_id", 1),
        ):  # fmt: skip
            answer = world.a.by_session.post("/v1/tasks", {**task, field: value})
            assert (answer.status, answer.json["errors"][0]["field"]) == (400, field), (field, value)


def test_what_is_unusual_but_right_is_kept_as_it_came(world: World) -> None:
    metadata = {
        "": "empty key",
        "emoji": "🦆",
        "pair": "\ud83e\udd86",
        "int": 2**53,
        "float": 1.5,
        "null": None,
        "line": "\u2028",
    }
    deep: dict[str, object] = {}
    for _ in range(29):
        deep = {"d": deep}
    paid = world.a.by_session.send(
        "POST",
        "/v1/payments",
        json.dumps({**PAY, "metadata": {**metadata, "deep": deep}}).encode(),
        idempotency_key="new",
    )
    assert paid.status == 201
    assert world.a.by_session.get(f"/v1/payments/{paid.json['id']}").json["metadata"] == paid.json["metadata"]
    assert paid.json["metadata"]["emoji"] == paid.json["metadata"]["pair"] == "🦆"
    assert paid.json["metadata"]["int"] == 2**53


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_deep_nesting_is_refused_even_where_a_library_has_lifted_pythons_own_limit(opening: bytes) -> None:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)
    try:
        with pytest.raises(Problem, match="nested deeper than 32 levels"):
            parsing.read(b'{"metadata": ' + opening * 40_000)
    finally:
        sys.setrecursionlimit(before)


def test_brackets_inside_strings_are_no_nesting() -> None:
    text = "[{" * 5_000 + '"' + "\\"
    assert parsing.read(json.dumps({"metadata": {text: text}}).encode()) == {"metadata": {text: text}}


@pytest.mark.parametrize("tail", ["", '"', "\\", '\\"', '"' * 1_000, '\\"' * 1_000, "\\" * 1_001, '"[' * 600])
def test_no_text_is_looked_at_twice_for_its_depth(tail: str) -> None:
    text = '{"a": ' + '"' + "[" * 40 + tail
    with pytest.raises(Problem):
        parsing.read(text.encode())
    # A quote or bracket that is in no match was the start of one, up to the end of the text, that was given up.
    assert not set(parsing._BRACKETS.sub("", text)) & set('"[]{}')
