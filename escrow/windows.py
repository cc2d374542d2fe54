"""The hours in which a session pays. Lives here: a Window on a zone's clock, and when the answer to "is it open?" changes.

A window is what a clock on the wall says: a time that a zone skips never comes, an hour that it repeats counts both times.
What the clock of a zone says is `escrow.zones`'.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final, Self

from escrow import zones
from escrow.errors import InvalidPolicy

MAX_WINDOWS: Final = 20
"""Windows of one policy: almost three for each day of the week."""
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES: Final = 24 * 60
_DAY: Final = timedelta(days=1)
_TICK: Final = timedelta(microseconds=1)
_LAST: Final = datetime.max.replace(tzinfo=UTC)
_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_REACH: Final = 35
"""Days that are looked at for a change: more than the weeks that a daily or weekly window can fall into a zone's gap."""
_LOOKS: Final = 120
"""How often `until` looks on, eleven years in all: windows of several zones can leave gaps in a few weeks of a year only."""
_MAX_SPANS: Final = 20_000
"""Answers that a process keeps, some 300 bytes each."""


@dataclass(frozen=True, slots=True)
class Window:
    """Days of the week, and minutes of the day: from one, inclusive, to another, exclusive. Both in a zone's local time."""

    days: tuple[int, ...]
    """0 is Monday; ascending, each once."""
    start: int
    end: int
    zone: str

    def contains(self, local: datetime) -> bool:
        """Return whether a moment on the zone's own clock is inside."""
        return self.start <= local.hour * 60 + local.minute < self.end and local.weekday() in self.days

    def lies_within(self, other: Self) -> bool:
        """Return whether every moment inside is inside of the other one too, in the same zone by name."""
        return (
            self.zone == other.zone
            and other.start <= self.start
            and self.end <= other.end
            and set(self.days) <= set(other.days)
        )


def overlap(one: Window, other: Window) -> Window | None:
    """Return the window that two have in common; None for none, and for windows of zones of another name."""
    days = tuple(day for day in one.days if day in other.days)
    start, end = max(one.start, other.start), min(one.end, other.end)
    return Window(days, start, end, one.zone) if one.zone == other.zone and days and start < end else None


@dataclass(frozen=True, slots=True)
class Span:
    """A time within which the answer is known, and the same: from `since`, to `until` exclusively; None has no end."""

    since: datetime | None
    until: datetime | None
    is_inside: bool


Windows = tuple[Window, ...]
_spans: dict[int, tuple[Windows, Span]] = {}


def inside(windows: Windows, now: datetime) -> bool:
    """Return whether a moment is in one of the windows; without windows every moment is."""
    clocks: dict[str, datetime] = {}
    for window in windows:
        if window.zone not in clocks:
            clocks[window.zone] = zones.local(now, window.zone)
        if window.contains(clocks[window.zone]):
            return True
    return not windows


def until(windows: Windows, now: datetime) -> datetime | None:
    """Return the next moment at which the answer of `inside` is another one; None when none comes within ten years."""
    span = known(windows, now)
    for _ in range(_LOOKS):
        if span.until is None:
            return None
        if inside(windows, span.until) != span.is_inside:
            return span.until
        span = _find(windows, span.until)  # and the time around now stays the one that is kept
    return None


def next_opening(windows: Windows, now: datetime) -> datetime | None:
    """Return the first moment from now on that is inside; None when none comes within ten years."""
    return now if inside(windows, now) else until(windows, now)


def known(windows: Windows, now: datetime) -> Span:
    """Return the answer now, and a time around now within which it stays the same.

    The last answer is kept for each tuple of windows, by identity: payments ask for the same tuple again and again, and
    hashing it would take longer than the answer. The tuple is kept too, so that its identity is not given to another.
    """
    kept = _spans.get(id(windows))
    if kept is not None and kept[0] is windows:
        span = kept[1]
        if (span.since is None or span.since <= now) and (span.until is None or now < span.until):
            return span
    span = _find(windows, now)
    if len(_spans) >= _MAX_SPANS:
        _spans.clear()
    _spans[id(windows)] = (windows, span)
    return span


def _find(windows: Windows, now: datetime) -> Span:
    """Walk the candidates for a change away from now, both ways: between two of them the answer cannot change."""
    answer = inside(windows, now)
    if _is_always(windows):
        return Span(None, None, answer)
    if not 2 <= now.year <= 9998:  # the ends of the calendar have no days around them
        return Span(now, now + _TICK if now < _LAST else None, answer)
    now = now.astimezone(UTC)
    today = now.date()
    since = until = None
    for days in range(_REACH):
        earlier = [moment for moment in _candidates(windows, today - days * _DAY) if moment <= now]
        since = next((at for at in reversed(earlier) if inside(windows, at - _TICK) != answer), None)
        if since is not None:
            break
    for days in range(_REACH):
        later = [moment for moment in _candidates(windows, today + days * _DAY) if moment > now]
        until = next((at for at in later if inside(windows, at) != answer), None)
        if until is not None:
            break
    midnight = datetime(today.year, today.month, today.day, tzinfo=UTC)
    return Span(since or midnight - (_REACH - 1) * _DAY, until or midnight + _REACH * _DAY, answer)


def _candidates(windows: Windows, day: date) -> list[datetime]:
    """Return, in order, every moment of a day of UTC at which a window can begin or end."""
    found: set[datetime] = set()
    for window in windows:
        found.update(zones.jumps(window.zone, day))
        for ahead in range(-2, 2):  # no zone is a whole day away from UTC, and a window can end at the midnight after
            date_there = day + ahead * _DAY
            if date_there.weekday() in window.days:
                found.update(_instants(window, date_there))
    return sorted(moment for moment in found if moment.date() == day)


def _instants(window: Window, day: date) -> Iterator[datetime]:
    midnight = datetime(day.year, day.month, day.day, tzinfo=zones.rules(window.zone))
    for minutes in (window.start, window.end):
        shown = midnight + timedelta(minutes=minutes)
        for fold in (0, 1):  # an hour that comes twice
            yield shown.replace(fold=fold).astimezone(UTC)


def _is_always(windows: Windows) -> bool:
    """Return whether the windows of one zone fill its week: then no jump of its clock leaves them."""
    return not windows or any(
        all(_fills([w for w in windows if w.zone == zone and day in w.days]) for day in range(len(DAYS)))
        for zone in {window.zone for window in windows}
    )


def _fills(windows: list[Window]) -> bool:
    reached = 0
    for window in sorted(windows, key=lambda window: window.start):
        if window.start > reached:
            return False
        reached = max(reached, window.end)
    return reached == DAY_MINUTES


# --- As JSON ---------------------------------------------------------------------------------------------------------
_EXAMPLE: Final = '{"days": ["mon", "tue"], "from": "09:00", "to": "17:00", "zone": "Europe/Berlin"}'
_MEMBERS: Final = ("days", "from", "to", "zone")


def read(listed: object, *, field: str) -> Windows:
    """Return the windows of a JSON list. Raises InvalidPolicy with what is wrong and what would pass."""
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_WINDOWS:
        raise InvalidPolicy(field, f"must be a list of 1 to {MAX_WINDOWS} windows", f"[{_EXAMPLE}]")
    return _shared(tuple(_read(item, f"{field}[{place}]") for place, item in enumerate(listed)))


@lru_cache(maxsize=_MAX_SPANS)
def _shared(windows: Windows) -> Windows:
    """Return one tuple for all that are equal, so that sessions of the same hours share their answer."""
    return windows


def written(window: Window) -> dict[str, object]:
    """Return the JSON that `read` reads."""
    days = [DAYS[day] for day in window.days]
    return {"days": days, "from": _shown(window.start), "to": _shown(window.end), "zone": window.zone}


def _read(item: object, field: str) -> Window:
    if not isinstance(item, dict):
        raise InvalidPolicy(field, "must be an object", _EXAMPLE)
    for member in item:
        if member not in _MEMBERS:
            raise InvalidPolicy(f"{field}.{member}", "is not a member of a window", "one of " + ", ".join(_MEMBERS))
    for member in _MEMBERS:
        if member not in item:
            raise InvalidPolicy(f"{field}.{member}", "is missing", _EXAMPLE)
    start = _minutes(item["from"], f"{field}.from")
    end = DAY_MINUTES if item["to"] == "24:00" else _minutes(item["to"], f"{field}.to")
    if end <= start:
        rule = "must be later than its from; hours that run past midnight are two windows"
        raise InvalidPolicy(f"{field}.to", rule, 'one window to "24:00" and one from "00:00" on the days after')
    return Window(
        days=_days(item["days"], f"{field}.days"), start=start, end=end, zone=_zone(item["zone"], f"{field}.zone")
    )


def _minutes(value: object, field: str) -> int:
    shown = _TIME.fullmatch(value) if isinstance(value, str) else None
    if shown is None:
        rule = "must be hours and minutes of the day, of two digits each"
        raise InvalidPolicy(field, rule, '"09:00"; the end of a day is "24:00", as to only')
    return int(shown[1]) * 60 + int(shown[2])


def _shown(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _days(value: object, field: str) -> tuple[int, ...]:
    if (
        not isinstance(value, list)
        or not value
        or any(day not in DAYS for day in value)
        or len(set(value)) < len(value)
    ):
        raise InvalidPolicy(field, "must be a list of days, each at most once", "some of " + ", ".join(DAYS))
    return tuple(sorted(DAYS.index(day) for day in value))


def _zone(value: object, field: str) -> str:
    if isinstance(value, str) and value in zones.names():
        return value
    meant = next((name for name in sorted(zones.names()) if name.lower() == str(value).lower()), "Europe/Berlin")
    rule = "must be the name of a zone in the IANA time zone database, spelt as it is there, and not an offset"
    raise InvalidPolicy(field, rule, f'"{meant}"')
