"""Odd and hostile requests at the lane's door: each ends as Django alone would end it, and what is refused moves no money."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from escrow.models import Payment
from tests.escrow.books import unmoved
from tests.lane.doors import PAY, Asked, Lane
from tests.marketplace.conftest import World
from tests.marketplace.test_hostile_input import BAD_AGENTS, BAD_AMOUNT_JSON, BAD_AMOUNTS, BAD_DOCUMENTS

pytestmark = pytest.mark.django_db(transaction=True)

Headers = Mapping[str, str | Sequence[str] | None]
RAW = json.dumps(PAY).encode()
BEARER = "Bearer KEY"
"""KEY stands for a key that may pay."""
REFUSED: dict[str, tuple[int, Headers]] = {
    "no key": (401, {"Authorization": None}),
    "an empty key": (401, {"Authorization": ""}),
    "no scheme": (401, {"Authorization": "KEY"}),
    "another scheme": (401, {"Authorization": "Basic KEY"}),
    "a tab after the scheme": (401, {"Authorization": "Bearer\tKEY"}),
    "two keys in one header": (401, {"Authorization": "Bearer KEY, Bearer KEY"}),
    "the key twice": (401, {"Authorization": [BEARER, BEARER]}),
    "a key and another": (401, {"Authorization": [BEARER, "Bearer x"]}),
    "a key in capitals": (401, {"Authorization": "Bearer AM_TEST_"}),
    "a key that is not ASCII": (401, {"Authorization": "Bearer KEYé"}),
    "no idempotency key": (400, {"Idempotency-Key": None}),
    "an empty idempotency key": (400, {"Idempotency-Key": ""}),
    "an idempotency key of 256": (400, {"Idempotency-Key": "k" * 256}),
    "an idempotency key that is not ASCII": (400, {"Idempotency-Key": "ké"}),
    "an idempotency key with a NUL": (400, {"Idempotency-Key": "k\0"}),
    "an idempotency key with DEL": (400, {"Idempotency-Key": "k\x7f"}),
    "no content type": (415, {"Content-Type": None}),
    "an empty content type": (415, {"Content-Type": ""}),
    "text": (415, {"Content-Type": "text/plain"}),
    "a form": (415, {"Content-Type": "application/x-www-form-urlencoded"}),
    "JSON of another kind": (415, {"Content-Type": "application/json5"}),
    "JSON in UTF-16": (415, {"Content-Type": "application/json; charset=utf-16"}),
    "JSON in Latin-1": (415, {"Content-Type": "application/json;charset=iso-8859-1"}),
    "only HTML wanted": (406, {"Accept": "text/html"}),
    "chunked": (400, {"Transfer-Encoding": "chunked"}),
    "chunked with a length": (400, {"Transfer-Encoding": "chunked", "Content-Length": str(len(RAW))}),
    "a host that is not ours": (400, {"Host": "evil.example"}),
    "a host that begins as ours": (400, {"Host": "127.0.0.1.evil.example"}),
    "a host with a user": (400, {"Host": "x@127.0.0.1"}),
    "a host with a path": (400, {"Host": "127.0.0.1/x"}),
    "too long a length": (400, {"Content-Length": str(len(RAW) + 1)}),
    "a length of hundreds of megabytes": (413, {"Content-Length": "999999999"}),
    "a length that is too much": (413, {"Content-Length": str(256 * 1024 + 1)}),
    "a negative length": (400, {"Content-Length": "-1"}),
    "a length with a sign": (400, {"Content-Length": f"+{len(RAW)}"}),
    "a length that is no number": (400, {"Content-Length": "x"}),
    "a length in other digits": (400, {"Content-Length": "²²"}),
}
ACCEPTED: dict[str, Headers] = {
    "as usual": {},
    "bearer in small letters": {"Authorization": "bearer KEY"},
    "bearer in capitals": {"Authorization": "BEARER KEY"},
    "white space around the key": {"Authorization": "Bearer   KEY "},
    "a charset": {"Content-Type": "application/json; charset=utf-8"},
    "a charset in capitals": {"Content-Type": "application/json; charset=UTF-8"},
    "a type in capitals": {"Content-Type": "Application/JSON"},
    "a charset in quotes": {"Content-Type": 'application/json; charset="utf-8"'},
    "another parameter": {"Content-Type": "application/json; indent=4"},
    "everything accepted": {"Accept": "*/*"},
    "much accepted": {"Accept": "text/html, application/json;q=0.9, */*;q=0.1"},
    "expect": {"Expect": "100-continue"},
    "an encoding that is none": {"Content-Encoding": "identity"},
    "a cookie": {"Cookie": "sessionid=x; csrftoken=y"},
    "another origin": {"Origin": "https://evil.example", "Referer": "https://evil.example/"},
    "another method": {"X-HTTP-Method-Override": "DELETE"},
    "an address of a proxy's": {"X-Forwarded-For": "10.0.0.1", "X-Forwarded-Host": "evil.example"},
    "a scheme of a proxy's": {"X-Forwarded-Proto": "https"},
    "a host by name": {"Host": "localhost"},
    "a host of six": {"Host": "[::1]:8000"},
    "a host in capitals": {"Host": "LOCALHOST:1"},
    "no host": {"Host": None},
    "a length with zeros": {"Content-Length": f"000{len(RAW)}"},
    "an idempotency key of 255": {"Idempotency-Key": "k" * 255},
    "an idempotency key with commas": {"Idempotency-Key": 'a,"b";\\c{d}%s'},
    "a request's id": {"X-Request-Id": "mine"},
}


def with_key(headers: Headers, key: str) -> Headers:
    """Put a key where the case wants it."""

    def filled(value: str | Sequence[str] | None) -> str | Sequence[str] | None:
        if isinstance(value, str):
            return value.replace("KEY", key)
        return [one.replace("KEY", key) for one in value] if value else value

    return {name: filled(value) for name, value in headers.items()}


def refused_alike(lane: Lane, asked: Asked) -> tuple[int, Any]:
    """Send a request through both doors, see one refusal of it and that nothing was paid; return status and document."""
    before = Payment.objects.count()
    with unmoved():
        ours, theirs = lane.ask(asked), lane.ask_django(asked)
    assert Payment.objects.count() == before
    documents = [answer.json and {**answer.json, "request_id": ""} for answer in (ours, theirs)]
    assert (ours.status, documents[0]) == (theirs.status, documents[1])
    return ours.status, ours.json


@pytest.mark.parametrize("name", REFUSED)
def test_odd_headers_are_refused_as_django_refuses_them(market: World, lane: Lane, name: str) -> None:
    status, headers = REFUSED[name]
    key = str(market.a.by_session.key)
    assert refused_alike(lane, Asked(key, RAW, "k-1", with_key(headers, key)))[0] == status


def test_odd_headers_that_django_takes_pay_once_whichever_door_they_come_to(market: World, lane: Lane) -> None:
    key = str(market.a.by_session.key)
    for number, (name, headers) in enumerate(ACCEPTED.items()):
        asked = Asked(key, RAW, f"k-{number}", with_key(headers, key))
        doors = [lane.ask, lane.ask_django] if number % 2 else [lane.ask_django, lane.ask]
        first, again = (door(asked) for door in doors)
        assert (first.status, again.status, again.json) == (201, 201, first.json), name
        assert again.headers["Idempotent-Replayed"] == "true", name
    assert Payment.objects.count() == len(ACCEPTED)


def test_a_query_is_refused_as_django_refuses_it(market: World, lane: Lane) -> None:
    for query in (b"x=1", b"amount=1.00", b"session_id=", b"%00", b"a=1&a=2"):
        asked = Asked(market.a.by_session.key, RAW, query=query)
        assert refused_alike(lane, asked)[0] == 400, query


def test_documents_that_are_not_one_json_object_are_refused(market: World, lane: Lane) -> None:
    for name, raw in BAD_DOCUMENTS.items():
        status, document = refused_alike(lane, Asked(market.a.by_session.key, raw))
        assert (status, document["code"]) == (400, "invalid_json"), name
    status, _ = refused_alike(lane, Asked(market.a.by_session.key, b""))
    assert status == 400
    long = json.dumps({**PAY, "metadata": {"x": "a" * 256 * 1024}}).encode()
    assert refused_alike(lane, Asked(market.a.by_session.key, long))[0] == 413


def test_values_that_are_none_are_refused_by_field(market: World, lane: Lane) -> None:
    key = market.a.by_session.key
    amounts = [json.dumps(amount) for amount in BAD_AMOUNTS] + BAD_AMOUNT_JSON + ['"1099511.627776"']
    for amount in amounts:
        raw = b'{"to": "agent://lint.acme.dev", "amount": %s}' % amount.encode()
        status, document = refused_alike(lane, Asked(key, raw))
        assert (status, document["outcome"]) == (400, "not_charged"), amount
    for agent in BAD_AGENTS:
        status, document = refused_alike(lane, Asked(key, {**PAY, "to": agent}))
        assert (status, document["errors"][0]["field"]) == (400, "to"), agent
    for change in ({"currency": "EUR"}, {"metadata": []}, {"session_id": "x"}, {"remaining": "1.00"}, {"to": None}):
        assert refused_alike(lane, Asked(key, {**PAY, **change}))[0] == 400, change


def test_metadata_is_answered_and_kept_alike_whatever_is_in_it(market: World, lane: Lane) -> None:
    deep: Any = "x"
    for _ in range(30):
        deep = {"a": deep}
    documents: list[dict[str, Any]] = [
        {}, {"": ""}, {"b": 1, "a": 2}, {"x": [1.0, -0.0, 1e2, 1e-7, 1e22, 2**53, -(2**53), 0.1]}, {"d": deep},
        {"text": '"\\/\b\f\n\r\t\u007f\u0080\u2028\U0001f600 {} %s %(id)s NULL'}, {"a" * 300: None, "t": [True, False]},
        {"quotes": '{"a","b"}', "slashes": "\\\\\\", "é": ["ü"] * 50},
    ]  # fmt: skip
    for number, metadata in enumerate(documents):
        asked = Asked(market.a.by_session.key, {**PAY, "metadata": metadata}, f"k-{number}")
        first = lane.ask(asked)
        assert lane.django.handed == number
        assert (first.status, first.json["metadata"]) == (201, metadata)
        assert (
            lane.ask_django(replace(asked, body=json.dumps(asked.body, ensure_ascii=False).encode())).json == first.json
        )
        assert Payment.objects.get(pk=first.json["id"]).metadata == metadata


def test_nothing_else_is_the_lane_s(market: World, lane: Lane) -> None:
    key = str(market.a.by_session.key)
    for method, path, status in (
        ("GET", "/v1/payments", 200), ("PUT", "/v1/payments", 405), ("DELETE", "/v1/payments", 405),
        ("POST", "/v1/payments/", 404), ("POST", "/V1/payments", 404), ("POST", "//v1/payments", 404),
    ):  # fmt: skip
        before = lane.django.handed
        with unmoved():
            answer = lane.ask(Asked(key, RAW, method=method, path=path))
        assert (answer.status, lane.django.handed) == (status, before + 1), (method, path)


def test_a_header_with_an_underscore_is_nobody_s(market: World, lane: Lane) -> None:
    key = str(market.a.by_session.key)
    with unmoved():
        unnamed = lane.ask(Asked(key, RAW, headers={"Idempotency-Key": None, "Idempotency_Key": "k"}))
    assert (unnamed.status, unnamed.json["code"]) == (400, "idempotency_key_required")
    both = {"Idempotency_Key": "other", "Expect": "100-continue"}
    assert lane.ask(Asked(key, RAW, "k-1", both)).status == 201
    assert [payment.idempotency_key for payment in Payment.objects.all()] == ["k-1"]
