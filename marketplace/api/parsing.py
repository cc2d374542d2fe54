"""Reading JSON. Lives here: a parser that refuses what other readers of the same bytes might read differently.

Python's own reader takes the last of two equal keys, NaN, 1e999 as infinity, integers of any length and half a
surrogate pair; PostgreSQL then fails on some of them, and a signature or a hash over the rest means two things at once.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, Never

from django.conf import settings
from rest_framework.parsers import BaseParser
from rest_framework.request import Request

from marketplace.api.errors import Problem, invalid

SAFE_INTEGER: Final = 2**53
"""Beyond it, readers that keep numbers as IEEE 754 doubles see another number (RFC 8259, section 6)."""

_MAX_DEPTH: Final = settings.API_MAX_JSON_DEPTH
_BRACKETS: Final = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
"""A whole string, ended or not, or one bracket. Possessive: no text makes it look at a character twice."""
_STEPS: Final = {"[": 1, "{": 1, "]": -1, "}": -1}


class StrictJSONParser(BaseParser):
    """The only parser of the API: one UTF-8 JSON object, bounded in size and depth."""

    media_type = "application/json"

    def parse(
        self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the body as a dict. Raises Problem."""
        if not is_utf8(media_type or ""):
            raise Problem("unsupported_media_type", "The body must be application/json in UTF-8.")
        declared = int((parser_context or {})["request"].META["CONTENT_LENGTH"])
        raw = stream.read(declared)
        if len(raw) != declared:
            raise invalid("Content-Length", f"is {declared}, but {len(raw)} bytes came", "the length of the body")
        return read(raw)


def check_length(request: Request) -> None:
    """Return when a body, if there is one, has a bearable length. Raises Problem before anything is read."""
    if "chunked" in request.META.get("HTTP_TRANSFER_ENCODING", "").lower():
        raise invalid("Content-Length", "is required: chunked bodies are not read here", "the length of the body")
    declared = request.META.get("CONTENT_LENGTH") or "0"
    if not (declared.isascii() and declared.isdigit()):
        raise invalid("Content-Length", "must be a number", "the length of the body")
    if int(declared[:12]) > settings.API_MAX_BODY_BYTES:
        raise Problem("payload_too_large", f"The body is larger than {settings.API_MAX_BODY_BYTES} bytes.")


def read(raw: bytes) -> dict[str, Any]:
    """Return the JSON object that the bytes hold. Raises Problem, naming what is wrong."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _invalid(f"byte {error.start} is not UTF-8") from None
    if text.startswith("\ufeff"):
        raise _invalid("it begins with a byte order mark")
    _check_depth(text)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _invalid(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    _check(value)
    if not isinstance(value, dict):
        raise _invalid("it must be an object")
    return value


def canonical(value: object) -> bytes:
    """Return JSON in one form whatever the order of keys and the spacing were: what a request hash is taken over."""
    return _ENCODER.encode(value).encode()


def _check_depth(text: str) -> None:
    """Refuse deep nesting before it is parsed.

    Parsing recurses in C. Python's own limit does not protect it: a library may have raised that (py_ecc, which comes with
    web3, does), and then a deep document ends the process.
    """
    if text.count("[") + text.count("{") <= _MAX_DEPTH:
        return
    depth = 0
    for mark in _BRACKETS.finditer(text):
        depth += _STEPS.get(mark[0], 0)
        if depth > _MAX_DEPTH:
            raise _too_deep()


def _check(value: object) -> None:
    level: list[object] = [value]
    depth = 0
    while level:
        depth += 1
        below: list[object] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, dict):
                below.extend(item)
                below.extend(item.values())
        if depth >= _MAX_DEPTH and any(isinstance(item, list | dict) for item in below):
            raise _too_deep()
        level = below


def _check_text(text: str) -> None:
    if "\x00" in text:
        raise _invalid("a string holds NUL")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _invalid("a string holds half a surrogate pair") from None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _invalid(f"the key {json.dumps(twice[:64])} comes twice in one object")
    return found


def _integer(digits: str) -> int:
    if len(digits) > 17 or abs(int(digits)) > SAFE_INTEGER:
        raise _invalid(f"the integer {digits[:20]}… is beyond 2^53; send it as a string")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise _invalid(f"the number {digits[:20]} is too large")
    return number


def _constant(name: str) -> Never:
    raise _invalid(f"{name} is not JSON")


def is_utf8(media_type: str) -> bool:
    """Return whether a Content-Type says UTF-8, or says nothing of it."""
    return _charset(media_type) in ("", "utf-8", "utf8")


def _charset(media_type: str) -> str:
    for parameter in media_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"').lower()
    return ""


def _too_deep() -> Problem:
    return _invalid(f"it is nested deeper than {_MAX_DEPTH} levels")


def _invalid(what: str) -> Problem:
    return Problem("invalid_json", f"The body is not acceptable JSON: {what}.")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_integer
)
_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
