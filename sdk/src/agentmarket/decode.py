"""JSON objects into frozen dataclasses: known fields are checked, new ones are kept in `extra` and never refused.

Which fields there are is said in `answers`; this module knows only how to read them.
"""

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from agentmarket.errors import InvalidReply, NextAction

Reader = Callable[[object], Any]
_KNOWN: "dict[type[Answer], dict[str, tuple[Reader, bool]]]" = {}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The base of every answer. `extra` holds fields that this version of the package does not know yet."""

    extra: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


A = TypeVar("A", bound=Answer)


class _Unreadable(Exception):
    """A value of another type than promised; the message says which was expected."""


def decode(kind: type[A], source: object) -> A:
    """Read one answer. Raises InvalidReply naming the field that is missing or of another type."""
    try:
        return _read(kind, source)
    except _Unreadable as unreadable:
        raise InvalidReply(f"The market's answer is not a {kind.__name__}: {unreadable}.") from None


def _read(kind: type[A], source: object) -> A:
    if not isinstance(source, Mapping):
        raise _Unreadable(f"expected an object, got {type(source).__name__}")
    readers = _readers(kind)
    known: dict[str, Any] = {}
    for name, (reader, required) in readers.items():
        if name in source:
            try:
                known[name] = reader(source[name])
            except _Unreadable as unreadable:
                raise _Unreadable(f"{name}: {unreadable}") from None
        elif required:
            raise _Unreadable(f"{name} is missing")
    return kind(**known, extra={name: value for name, value in source.items() if name not in readers})


def _readers(kind: type[Answer]) -> dict[str, tuple[Reader, bool]]:
    """How each field is read and if it must be there; worked out once for each kind."""
    if kind not in _KNOWN:
        _KNOWN[kind] = _find_readers(kind)
    return _KNOWN[kind]


def _find_readers(kind: type[Answer]) -> dict[str, tuple[Reader, bool]]:
    hints = get_type_hints(kind)
    return {
        item.name: (_reader(hints[item.name]), item.default is MISSING and item.default_factory is MISSING)
        for item in fields(kind)
        if item.name != "extra"
    }


def _reader(hint: Any) -> Reader:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is types.UnionType:
        return _optional(_reader(next(part for part in inner if part is not types.NoneType)))
    if origin is tuple:
        return _many(_reader(inner[0]))
    if origin is not None and issubclass(origin, Mapping):
        return _exactly(dict)
    if hint is Any:
        return lambda value: value
    if hint is datetime:
        return _moment
    if issubclass(hint, Answer):
        return lambda value: _read(hint, value)
    return _next_action if hint is NextAction else _exactly(hint)


def _exactly(kind: type) -> Reader:
    def read(value: object) -> object:
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise _Unreadable(f"expected {kind.__name__}, got {type(value).__name__}")
        return value

    return read


def _optional(reader: Reader) -> Reader:
    return lambda value: None if value is None else reader(value)


def _many(reader: Reader) -> Reader:
    def read(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _Unreadable(f"expected a list, got {type(value).__name__}")
        return tuple(reader(item) for item in value)

    return read


def _next_action(value: object) -> NextAction:
    if not isinstance(value, Mapping):
        raise _Unreadable(f"expected an object, got {type(value).__name__}")
    return NextAction.read(value)


def _moment(value: object) -> datetime:
    try:
        return datetime.fromisoformat(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise _Unreadable(f"expected an RFC 3339 time, got {value!r}") from None
