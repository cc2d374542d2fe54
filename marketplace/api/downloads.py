"""Lists as CSV, for spreadsheets. Lives here: the form of cells and lines, and how many are written at once.

Lines are read and written a page at a time, so a list of any length takes the memory of one page and holds no snapshot of the
database open.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from threading import BoundedSemaphore
from typing import Any, Final

from django.conf import settings
from django.http import StreamingHttpResponse
from rest_framework.renderers import BaseRenderer

from marketplace.api.errors import Problem

CSV: Final = "text/csv"
PAGE: Final = 1_000
"""Lines read at once: under a megabyte."""

_room = BoundedSemaphore(settings.CSV_AT_ONCE)
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


class CsvRenderer(BaseRenderer):
    """Lets ``Accept: text/csv`` be a choice; the operation writes the answer itself."""

    media_type = CSV
    format = "csv"

    def render(self, data: Any, *_: Any) -> Any:
        """Return what was written already."""
        return data


class Download(Iterator[bytes]):
    """A CSV document as it is written (RFC 4180). Raises Problem when as many are being written as may be."""

    def __init__(self, name: str, head: Sequence[str], pages: Iterable[Iterable[Sequence[str]]]) -> None:
        """``pages`` hold lines of cells as they are to be written; texts that are not ours pass `text` before."""
        if not _room.acquire(blocking=False):
            raise Problem(
                "unavailable",
                f"{settings.CSV_AT_ONCE} documents are being written; this one was not begun.",
                headers={"Retry-After": "5"},
                retryable=True,
                untouched=True,
            )
        self.name = name
        self._is_open = True
        self._parts = _written(head, pages)

    def __next__(self) -> bytes:
        return next(self._parts)

    def close(self) -> None:
        """Make room for another; the server calls it however the answer ended."""
        if self._is_open:
            self._is_open = False
            _room.release()

    def response(self, headers: dict[str, str]) -> StreamingHttpResponse:
        """Return it as an answer."""
        said = {**headers, "Content-Disposition": f'attachment; filename="{self.name}.csv"'}
        return StreamingHttpResponse(self, content_type=f"{CSV}; charset=utf-8", headers=said)


def text(value: str) -> str:
    """Return a text as a cell that no spreadsheet takes for a formula: one that begins like one gets a ' before it."""
    return f"'{value}" if value.startswith(_FORMULA) else value


def _written(head: Sequence[str], pages: Iterable[Iterable[Sequence[str]]]) -> Iterator[bytes]:
    yield _lines([head])
    for page in pages:
        yield _lines(page)


def _lines(rows: Iterable[Sequence[str]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue().encode()
