"""The OpenAPI 3.1 document. Lives here: one operation from one declaration, so that the document cannot drift from the
code.

drf-spectacular walks the routes and assembles the document; shapes give their own JSON Schema.
"""

from typing import Any, Final

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ComponentRegistry, ResolvedComponent
from pydantic import BaseModel

from marketplace.api import auth, error_pages
from marketplace.api.endpoint import Rule
from marketplace.api.problems import KINDS, ProblemDocument

_REF: Final = "#/components/schemas/{model}"

_IDEMPOTENCY_KEY: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "description": "One for each effect, repeated when the request is repeated: 1 to 255 visible ASCII characters.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    "example": "0198c5f0-7a54-7c3e-9c5e-0c7c8f3f2a10",
}
_REQUEST_ID: Final[dict[str, Any]] = {
    "X-Request-Id": {"description": "Names this request in our log.", "schema": {"type": "string", "format": "uuid"}}
}
_REPLAYED: Final[dict[str, Any]] = {
    "Idempotent-Replayed": {
        "description": "`true` when this is the answer to an earlier request with the same key.",
        "schema": {"type": "string", "const": "true"},
    }
}
_QUOTA: Final[dict[str, Any]] = {
    "RateLimit-Policy": {
        "description": "The quota that this call counts towards (draft-ietf-httpapi-ratelimit-headers).",
        "schema": {"type": "string"},
        "example": '"calls";q=6000;w=60',
    },
    "RateLimit": {
        "description": "What is left of it, and in how many seconds it begins again.",
        "schema": {"type": "string"},
        "example": '"calls";r=5999;t=42',
    },
}
_RETRY_AFTER: Final[dict[str, Any]] = {
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
}
_PATH: Final[dict[str, dict[str, Any]]] = {
    "name": {
        "description": "The agent's name without agent://",
        "schema": {"type": "string"},
        "example": "lint.acme.dev",
    },
}
_UUID: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "uuid"}}


class Schema(AutoSchema):  # type: ignore[misc,unused-ignore]
    """Describes an operation from what `marketplace.api.endpoint.serves` was told."""

    def get_operation(
        self, path: str, path_regex: str, path_prefix: str, method: str, registry: ComponentRegistry
    ) -> dict[str, Any] | None:
        """Return the OpenAPI operation object of one method of an endpoint."""
        handler = getattr(self.view, method.lower(), None)
        rule: Rule | None = getattr(handler, "rule", None)
        if rule is None:
            return None
        self.registry = registry
        summary, _, rest = (handler.__doc__ or "").strip().partition("\n")
        operation: dict[str, Any] = {
            "operationId": _operation_id(path, method),
            "summary": summary.rstrip("."),
            "description": f"{_paragraphs(rest)}\n\n{_who(rule)}".strip(),
            "tags": [path.strip("/").removeprefix("v1/").split("/")[0]],
            "parameters": _path_parameters(path) + _query_parameters(rule) + _idempotency_key(rule),
            "security": [{"apiKey": []}] if rule.scopes else [],
            "responses": self._responses(rule, path, method),
        }
        if method == "POST":
            required = any(field.is_required() for field in rule.body.model_fields.values())
            content = {"application/json": {"schema": self._schema(rule.body, "validation")}}
            operation["requestBody"] = {"required": required, "content": content}
        return operation

    def _responses(self, rule: Rule, path: str, method: str) -> dict[str, Any]:
        common = {**_REQUEST_ID, **(_QUOTA if rule.scopes else {})}
        headers = {**common, **(_REPLAYED if rule.money or rule.reveals else {})}
        content = {"application/json": {"schema": self._schema(rule.answer, "serialization")}}
        if rule.csv:
            content["text/csv"] = {"schema": {"type": "string", "description": "Every line, after one with the names."}}
        responses: dict[str, Any] = {str(rule.status): {"description": "Done.", "headers": headers, "content": content}}
        if path == "/readyz":
            responses["503"] = {
                "description": "Not ready; `reason` says why.",
                "headers": _REQUEST_ID,
                "content": content,
            }
        problem = self._schema(ProblemDocument, "serialization")
        for status, codes in _problems(rule, path, method).items():
            responses.setdefault(
                str(status),
                {
                    "description": " · ".join(f"`{code}`: {KINDS[code].title}" for code in codes),
                    "headers": {**common, **(_RETRY_AFTER if status in (429, 503) else {})},
                    "content": {"application/problem+json": {"schema": problem, "examples": self._examples(codes)}},
                },
            )
        return dict(sorted(responses.items()))

    def _schema(self, shape: type[BaseModel], mode: Any) -> dict[str, str]:
        schema = shape.model_json_schema(ref_template=_REF, mode=mode)
        for name, part in schema.pop("$defs", {}).items():
            self._register(name, part)
        self._register(shape.__name__, schema)
        return {"$ref": _REF.format(model=shape.__name__)}

    def _examples(self, codes: list[str]) -> dict[str, Any]:
        for code in codes:
            self._register(code, {"value": error_pages.example(code)}, kind=ResolvedComponent.EXAMPLE)
        return {code: {"$ref": f"#/components/examples/{code}"} for code in codes}

    def _register(self, name: str, schema: dict[str, Any], *, kind: str = ResolvedComponent.SCHEMA) -> None:
        component = ResolvedComponent(name=name, type=kind, object=name, schema=schema)  # type: ignore[no-untyped-call]
        self.registry.register_on_missing(component)


def _problems(rule: Rule, path: str, method: str) -> dict[int, list[str]]:
    codes = ["invalid_request", "not_acceptable", "internal", "unavailable"]
    if rule.scopes:
        codes += ["unauthenticated", "forbidden", "rate_limited"]
    if "{" in path or method == "POST" or path in ("/v1/reserves", "/v1/reserves/proof"):
        codes.append("not_found")
    if method == "POST":
        codes += ["invalid_json", "conflict", "payload_too_large", "unsupported_media_type"]
    if rule.money:
        codes += ["idempotency_key_required", "idempotency_conflict", "insufficient_funds", "policy_denied"]
        codes += ["approval_required", "pool_opening", "settlement_paused"]
    elif rule.reveals:
        codes.append("idempotency_conflict")
    if path == "/v1/keys" and method == "POST":  # of a key with a ceiling
        codes += ["idempotency_key_required", "insufficient_funds", "policy_denied"]
    if path.endswith("/receipt"):
        codes += ["not_settled_yet", "conflict"]
    if path.endswith("/redeem"):
        codes.append("already_redeemed")
    if path.endswith(("/submit", "/v1/invoices")) and method == "POST":
        codes.append("duplicate_invoice")
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(KINDS[code].status, []).append(code)
    return by_status


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = [part.split("}")[0] for part in path.split("{")[1:]]
    return [{"name": name, "in": "path", "required": True, **_PATH.get(name, _UUID)} for name in names]


def _idempotency_key(rule: Rule) -> list[dict[str, Any]]:
    if not rule.money and not rule.reveals:
        return []
    return [{**_IDEMPOTENCY_KEY, "required": rule.money}]


def _query_parameters(rule: Rule) -> list[dict[str, Any]]:
    schema = rule.query.model_json_schema(mode="validation")
    parameters = []
    for name, found in schema.get("properties", {}).items():
        kinds = [kind for kind in found.get("anyOf", [found]) if kind.get("type") != "null"]
        described = {key: value for key, value in kinds[0].items() if key not in ("title", "description")}
        if found.get("default") is not None:
            described["default"] = found["default"]
        parameter = {"name": name, "in": "query", "required": False, "schema": described}
        if "description" in found:
            parameter["description"] = found["description"]
        parameters.append(parameter)
    return parameters


def _operation_id(path: str, method: str) -> str:
    parts = [part for part in path.strip("/").removeprefix("v1/").split("/") if not part.startswith("{")]
    name = "_".join(parts).replace("-", "_")
    one = path.endswith("}")
    verb = {"GET": "read" if one or len(parts) > 1 else "list", "DELETE": "revoke"}.get(method, "create")
    return f"{name}_{'post' if len(parts) > 1 and method == 'POST' else verb}"


def _who(rule: Rule) -> str:
    if not rule.scopes:
        return "Needs no key."
    names = [scope for scope in ("payer", "session", "provider") if scope in rule.scopes]
    return f"Keys of scope: {', '.join(names)}." if rule.scopes != auth.ANYONE else "Keys of any scope."


def _paragraphs(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())
