"""What the clock on the wall says. Lives here: the zones of the IANA database, and when the clock of one of them jumps.

The rules come from the pinned `tzdata` package and never from the machine, so that two machines never differ.
"""

import importlib.resources
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from typing import Final
from zoneinfo import ZoneInfo

_DAY: Final = timedelta(days=1)
_TICK: Final = timedelta(microseconds=1)


@cache
def names() -> frozenset[str]:
    """Return the names of all zones, as the database spells them."""
    listed = importlib.resources.files("tzdata").joinpath("zones").read_text(encoding="ascii").split()
    return frozenset(listed) - {"Factory"}  # the place of a clock that nobody has set


@lru_cache(maxsize=1024)
def rules(zone: str) -> ZoneInfo:
    """Return the rules of a zone, by its name."""
    with importlib.resources.files("tzdata").joinpath("zoneinfo", *zone.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=zone)


def local(moment: datetime, zone: str) -> datetime:
    """Return what the zone's clock shows; a moment that its calendar cannot show stays as it is."""
    try:
        return moment.astimezone(rules(zone))
    except OverflowError:
        return moment


@lru_cache(maxsize=10_000)
def jumps(zone: str, day: date) -> tuple[datetime, ...]:
    """Return the moment of a day of UTC at which a zone's clock jumps, if any: none jumps twice within six days."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    before, after = midnight - _TICK, midnight + _DAY - _TICK
    return () if _offset(zone, before) == _offset(zone, after) else (_jump(zone, before, after),)


def _jump(zone: str, before: datetime, after: datetime) -> datetime:
    """Return the first moment of the later one's offset."""
    while after - before > _TICK:
        middle = before + (after - before) // 2
        if _offset(zone, middle) == _offset(zone, before):
            before = middle
        else:
            after = middle
    return after


def _offset(zone: str, moment: datetime) -> timedelta | None:
    return moment.astimezone(rules(zone)).utcoffset()
