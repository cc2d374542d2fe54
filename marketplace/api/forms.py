"""What is wrong with the form of what came in: the field, the rule in our words, and an example that passes.

Lives here: reading pydantic's errors and a shape's own schema. Rules of content are said by whoever has them (`fields.wrong`).
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from pydantic import ValidationError

from marketplace.api.fields import Shape

_RULES: Final[Mapping[str, str]] = {
    "missing": "is required",
    "string_type": "must be a string",
    "string_unicode": "must be text in UTF-8",
    "string_too_short": "must have {min_length} or more characters",
    "string_too_long": "must have {max_length} or fewer characters",
    "string_pattern_mismatch": "must match {pattern}",
    "bool_type": "must be true or false",
    "int_type": "must be an integer",
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
    "literal_error": "must be {expected}",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "list_type": "must be a list",
    "too_short": "must have {min_length} or more items",
    "too_long": "must have {max_length} or fewer items",
}
"""By pydantic's name of the error; the braces are what it says of it."""
_PASSES: Final[Mapping[str, str]] = {
    "string_too_long": "{max_length} characters or fewer",
    "greater_than_equal": "{ge}",
    "less_than_equal": "{le}",
    "too_long": "{max_length} items or fewer",
}
"""Where what would pass is nearer to what came in than an example is."""
_FORMATS: Final[Mapping[str, str]] = {
    "uuid": "0198c5f0-7a54-7c3e-9c5e-0c7c8f3f2a10",
    "date-time": "2030-01-01T00:00:00Z",
}


def errors_of(error: ValidationError, shape: type[Shape]) -> list[dict[str, str]]:
    """Return every field that is wrong."""
    return [_error(dict(found), shape) for found in error.errors(include_url=False, include_input=False)]


def _error(found: Mapping[str, Any], shape: type[Shape]) -> dict[str, str]:
    where, kind, context = tuple(found["loc"]), str(found["type"]), found.get("ctx", {})
    field = ".".join(str(part) for part in where) or "body"
    if kind == "extra_forbidden":
        known = ", ".join(_members(shape, where[:-1])) or "no field at all"
        rule, would_pass = "is not a field here", f"one of: {known}"
    elif kind == "wrong":
        rule, would_pass = str(context["rule"]), str(context["would_pass"])
        field += f".{context['within']}" if context["within"] else ""
    else:
        text = str(found["msg"]).replace("Input should", "must", 1)
        rule = _RULES.get(kind, text[:1].lower() + text[1:].replace("{", "{{").replace("}", "}}")).format_map(context)
        would_pass = _PASSES[kind].format_map(context) if kind in _PASSES else example(shape, where)
    return {"field": field, "rule": rule, "message": f"{field} {rule}.", "would_pass": would_pass}


def example(shape: type[Shape], where: Sequence[str | int]) -> str:
    """Return a value that passes at a place of a shape, as JSON."""
    document = _schema(shape)
    return json.dumps(_value(_at(document, where), document), ensure_ascii=False)


def _members(shape: type[Shape], where: Sequence[str | int]) -> list[str]:
    return list(_at(_schema(shape), where).get("properties", {}))


@lru_cache(maxsize=256)
def _schema(shape: type[Shape]) -> dict[str, Any]:
    return shape.model_json_schema(mode="validation")


def _at(document: dict[str, Any], where: Sequence[str | int]) -> dict[str, Any]:
    """Return the schema of a place; where it is not described, anything is."""
    schema = _plain(document, document)
    for part in where:
        inner = schema.get("items", {}) if isinstance(part, int) else schema.get("properties", {}).get(part, {})
        schema = _plain(inner, document)
    return schema


def _plain(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """Follow references, and leave out that something may be null."""
    if "$ref" in schema:
        return _plain(document["$defs"][schema["$ref"].rpartition("/")[2]], document) | _but_ref(schema)
    for choice in schema.get("anyOf", ()):
        if choice.get("type") != "null":
            return _plain(choice, document) | {name: said for name, said in schema.items() if name != "anyOf"}
    return schema


def _but_ref(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: said for name, said in schema.items() if name != "$ref"}


def _value(schema: dict[str, Any], document: dict[str, Any]) -> Any:
    if "examples" in schema:
        return schema["examples"][0]
    for name in ("const", "default"):
        if schema.get(name) not in (None, ""):
            return schema[name]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    if kind == "object":
        required = schema.get("required", ())
        return {
            name: _value(_at(schema | {"$defs": document.get("$defs", {})}, (name,)), document) for name in required
        }
    if kind == "array":
        return [_value(_plain(schema["items"], document), document)] if schema.get("minItems") else []
    if kind == "integer":
        return schema.get("minimum", 1)
    return True if kind == "boolean" else _FORMATS.get(schema.get("format", ""), "text")
