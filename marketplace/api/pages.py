"""Pages of a list. Lives here: reading one page by its cursor, at a cost that does not grow with the page's number, and what
a list is narrowed to.

The cursor holds where the page before ended. It is no secret and gives nothing: it only narrows what the caller may
see.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet

from marketplace.api.errors import Problem, invalid
from marketplace.api.queries import PageQuery


def page(
    rows: "QuerySet[Any]",
    query: PageQuery,
    show: Callable[[list[Any]], list[Any]],
    *,
    by: Sequence[str] = ("id",),
    beside: "QuerySet[Any] | None" = None,
) -> dict[str, Any]:
    """Return the members of a page, newest first: the rows after the cursor, shown, and the cursor of the next page.

    ``by`` names the columns that order the rows; together they are unique. An id of version 7 orders by age alone. Other
    rows of the same table ``beside`` them are merged: two walks along two indexes, where one condition on both has none.
    """
    found: list[Any] = []
    for part in (rows, beside) if beside is not None else (rows,):
        ordered = part.order_by(*(f"-{name}" for name in by))
        if query.cursor is not None:
            ordered = ordered.filter(_after(by, _read(query.cursor, part, by)))
        found += ordered[: query.limit + 1]
    if beside is not None:
        found.sort(key=attrgetter(*by), reverse=True)
        found = found[: query.limit + 1]
    more = len(found) > query.limit
    found = found[: query.limit]
    return {"items": show(found), "next": _write(found[-1], by) if more else None}


def matching(rows: "QuerySet[Any]", query: PageQuery, *names: str) -> "QuerySet[Any]":
    """Return the rows whose columns of these names are what the query's parameters of the same names say, if they say it."""
    wanted = {name: value for name in names if (value := getattr(query, name)) is not None}
    return rows.filter(**wanted)


def _after(by: Sequence[str], values: Sequence[Any]) -> Q:
    """Return the condition of coming after the values in descending order, column by column."""
    condition = Q()
    for position, name in enumerate(by):
        equal = {by[i]: values[i] for i in range(position)}
        condition |= Q(**equal, **{f"{name}__lt": values[position]})
    # Said apart, because an index walk can begin at it, and not at an alternative.
    return Q(**{f"{by[0]}__lte": values[0]}) & condition


def _write(row: Any, by: Sequence[str]) -> str:
    text = "|".join(row._meta.get_field(name).value_to_string(row) for name in by)  # noqa: SLF001 - Django documents it
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read(cursor: str, rows: "QuerySet[Any]", by: Sequence[str]) -> list[Any]:
    try:
        raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        parts = raw.decode("ascii").split("|")
        if len(parts) != len(by) or not all(part.isprintable() and len(part) <= 40 for part in parts):
            raise _no_cursor()
        fields = [rows.model._meta.get_field(name) for name in by]  # noqa: SLF001 - Django documents it
        values = [field.to_python(part) for field, part in zip(fields, parts, strict=True)]
    except (binascii.Error, UnicodeError, ValueError, ValidationError, OverflowError):
        raise _no_cursor() from None
    if any(isinstance(value, datetime) and value.tzinfo is None for value in values):
        raise _no_cursor()
    return values


def _no_cursor() -> Problem:
    return invalid("cursor", "is not the next of a page of this list", "the next of the page before, or none")
