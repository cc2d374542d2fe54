"""A caller of the API for the tests. Every answer is checked against the OpenAPI document: nothing else passes."""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from uuid import uuid4

from django.test import Client
from django.urls import Resolver404, resolve
from jsonschema import Draft202012Validator, FormatChecker

from marketplace.api.docs import openapi
from marketplace.api.problems import KINDS

FORMATS = FormatChecker(formats=["uuid"])


@FORMATS.checks("date-time", raises=ValueError)
def _is_utc(value: object) -> bool:
    return not isinstance(value, str) or (value.endswith("Z") and bool(datetime.fromisoformat(value)))


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    json: Any
    headers: dict[str, str]
    raw: bytes


class Caller:
    """Calls the API with one key, and makes an Idempotency-Key for each POST unless told otherwise."""

    def __init__(self, key: str | None) -> None:
        self.key = key
        self.http = Client(raise_request_exception=False)

    def get(self, path: str, **headers: str) -> Answer:
        """GET a path."""
        return self.send("GET", path, headers=headers)

    def post(self, path: str, body: Any = None, *, idempotency_key: str | None = "new", **headers: str) -> Answer:
        """POST a JSON body; ``idempotency_key=None`` leaves the header out."""
        raw = b"" if body is None else json.dumps(body).encode()
        return self.send("POST", path, raw, idempotency_key=idempotency_key, headers=headers)

    def delete(self, path: str) -> Answer:
        """DELETE a path."""
        return self.send("DELETE", path)

    def send(
        self,
        method: str,
        path: str,
        raw: bytes = b"",
        *,
        idempotency_key: str | None = None,
        content_type: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send these very bytes."""
        sent = dict(headers or {})
        if self.key is not None:
            sent.setdefault("Authorization", f"Bearer {self.key}")
        if idempotency_key is not None:
            sent["Idempotency-Key"] = str(uuid4()) if idempotency_key == "new" else idempotency_key
        response = self.http.generic(method, path, raw, content_type=content_type, headers=sent)
        raw = b"".join(response.streaming_content) if response.streaming else response.content
        body = json.loads(raw) if raw and "json" in response.headers["Content-Type"] else None
        answer = Answer(response.status_code, body, dict(response.headers), raw)
        check_documented(method, path, answer)
        return answer


def check_documented(method: str, path: str, answer: Answer) -> None:
    """Assert that the document knows the answer: its status, its media type and every member of its body."""
    assert "X-Request-Id" in answer.headers
    kind = answer.headers["Content-Type"].partition(";")[0]
    template = template_of(path)
    if template is None or method.lower() not in document()["paths"][template]:
        assert kind == "application/problem+json", kind
        schema = {"$ref": "#/components/schemas/ProblemDocument"}
    else:
        responses = document()["paths"][template][method.lower()]["responses"]
        assert str(answer.status) in responses, f"{method} {template} answered {answer.status}: {answer.json}"
        content = responses[str(answer.status)]["content"]
        assert kind in content, f"{method} {template} answered {kind}"
        schema = content[kind]["schema"]
    if kind == "text/csv":
        return
    check_actions(answer.json)
    errors = list(validator(json.dumps(schema)).iter_errors(answer.json))
    assert not errors, f"{method} {path} {answer.status}: {errors[0].message} at {errors[0].json_path}"
    if kind == "application/problem+json":
        assert answer.json["status"] == answer.status
        assert answer.json["request_id"] == answer.headers["X-Request-Id"]


def check_actions(value: Any) -> None:
    """Assert that every next action in an answer can be sent: its path, method, body and headers are what the document says."""
    if isinstance(value, list):
        for item in value:
            check_actions(item)
    if not isinstance(value, dict):
        return
    for action in value.get("next_actions") or ():
        check_action(action)
    for name, member in value.items():
        if name not in ("metadata", "brief", "deliverable", "payload", "body"):  # what callers say, in whatever form
            check_actions(member)


def check_action(action: dict[str, Any]) -> None:
    """Assert that a next action can be sent as it is, but for the members that it says are the caller's to know."""
    path, _, query = action["path"].partition("?")
    if path.startswith("/docs/errors/"):
        assert (action["method"], path.removeprefix("/docs/errors/") in KINDS) == ("GET", True), action
        return
    template = template_of(path)
    assert template is not None, action
    operation = document()["paths"][template].get(action["method"].lower())
    assert operation is not None, action
    said = {at["name"]: at for at in operation["parameters"]}
    assert {part.partition("=")[0] for part in query.split("&") if part} <= set(said), action
    required = [at["name"] for at in operation["parameters"] if at["in"] == "header" and at["required"]]
    assert action.get("headers", []) == required, action
    if action["method"] != "POST":
        assert not {"body", "needs"} & set(action), action
        return
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    if action.get("needs") == ["the same body"]:
        return
    if "needs" in action:
        shape = document()["components"]["schemas"][schema["$ref"].split("/")[-1]]
        assert "body" not in action, action
        assert set(shape.get("required", ())) <= set(action["needs"]) <= set(shape["properties"]), action
        return
    errors = list(validator(json.dumps(schema)).iter_errors(action["body"]))
    assert not errors, f"{action}: {errors[0].message}"


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    return dict(json.loads(openapi()))


@cache
def validator(schema: str) -> Draft202012Validator:
    """Return a validator of a schema that may refer to the document's components."""
    whole = {**json.loads(schema), "components": document()["components"]}
    return Draft202012Validator(whole, format_checker=FORMATS)


def template_of(path: str) -> str | None:
    """Return the document's template of a path, or None when the path is none of its."""
    try:
        route = resolve(path.split("?", maxsplit=1)[0]).route
    except Resolver404:
        return None
    template = "/" + re.sub(r"<\w+:(\w+)>", r"{\1}", route)
    return template if template in document()["paths"] else None
