"""Answers as a terminal and a program read them: JSON as on the wire, short lines and tables for people. No I/O.

An API key or a secret is shown only where it is made: everything else that is printed goes through `hidden`.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from agentmarket.decode import Answer

#: an API key, of which the public part may be shown; and the secret of a webhook, of which nothing may
_KEY = re.compile(r"(am_(?:test|live)_[a-z2-7]{12}_)[a-z0-9]{8,}", re.IGNORECASE)
_SECRET = re.compile(r"(whsec_)[A-Za-z0-9+/=_-]{8,}")
#: fields of an answer that are the package's, not the market's
_OURS = frozenset({"extra", "owner"})
#: shown once, in the answer that makes them
_SECRETS = frozenset({"api_key", "secret"})
_WIDEST = 60

Document = dict[str, Any]


def document(answer: object) -> Any:
    """An answer as JSON has it: amounts stay strings, times are RFC 3339 in UTC, fields of a later market are kept."""
    if dataclasses.is_dataclass(answer) and not isinstance(answer, type):
        known = {
            item.name: document(getattr(answer, item.name))
            for item in dataclasses.fields(answer)
            if item.name not in _OURS and not (item.name in _SECRETS and getattr(answer, item.name) is None)
        }
        return {**known, **document(answer.extra)} if isinstance(answer, Answer) else known
    if isinstance(answer, datetime):
        return moment(answer)
    if isinstance(answer, Mapping):
        return {str(name): document(value) for name, value in answer.items()}
    if isinstance(answer, Decimal):
        return format(answer, "f")
    if isinstance(answer, list | tuple | set | frozenset):
        return [document(item) for item in answer]
    return answer


def moment(time: datetime) -> str:
    """A time as the market writes it."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def hidden(text: str) -> str:
    """Text without the secret part of any key in it."""
    return _SECRET.sub(r"\1…", _KEY.sub(r"\1…", text))


def plain(text: str) -> str:
    """Text that a terminal only shows: what others wrote may hold its commands."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)


def facts(shown: Mapping[str, Any], *names: str) -> list[str]:
    """A line for each named field that has a value."""
    found = [(name, cell(shown.get(name))) for name in names]
    width = max((len(name) for name, value in found if value), default=0)
    return [f"{name.replace('_', ' '):<{width}}  {value}" for name, value in found if value]


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """A header and a line for each row, in columns of equal width."""
    lines = [[name.replace("_", " ") for name in columns]]
    lines += [[_cut(cell(row.get(name))) for name in columns] for row in rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def cell(value: Any) -> str:
    """One value on one line."""
    if value is None or value in ("", [], {}):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={cell(inner)}" for name, inner in value.items() if inner is not None)
    if isinstance(value, str):
        return " ".join(value.split())
    return ", ".join(map(cell, value)) if isinstance(value, Iterable) else str(value)


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
