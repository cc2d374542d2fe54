"""`escrow.windows`: what the clock on the wall says, and the moment at which it says something else."""

import importlib.resources
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo
from zoneinfo._common import load_data

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escrow import windows, zones
from escrow.errors import InvalidPolicy
from escrow.windows import Window

BERLIN = {"days": ["mon", "tue"], "from": "09:00", "to": "17:00", "zone": "Europe/Berlin"}
TICK = timedelta(microseconds=1)
EVERY_DAY = (0, 1, 2, 3, 4, 5, 6)


def utc(*moment: int) -> datetime:
    return datetime(*moment, tzinfo=UTC)  # type: ignore[misc,arg-type]


def daily(start: str, end: str, zone: str = "Europe/Berlin", days: tuple[int, ...] = EVERY_DAY) -> Window:
    """A window in minutes, from times that are easy to read."""
    begin, close = (int(text[:2]) * 60 + int(text[3:]) for text in (start, end))
    return Window(days=days, start=begin, end=close, zone=zone)


def changes(of: tuple[Window, ...], since: datetime, until: datetime) -> list[datetime]:
    """Every change of the answer within a time, one after the other as `until` tells them."""
    found, at = [], since
    while (change := windows.until(of, at)) is not None and change < until:
        assert windows.inside(of, change) != windows.inside(of, change - TICK), (
            "an edge on both sides of which it is the same"
        )
        found.append(change)
        at = change
    return found


# --- The document ----------------------------------------------------------------------------------------------------
def test_a_window_is_read_and_written_alike() -> None:
    (window,) = windows.read([BERLIN], field="policy.windows")
    assert window == Window(days=(0, 1), start=540, end=1020, zone="Europe/Berlin")
    assert windows.written(window) == BERLIN


def test_days_are_written_in_the_order_of_the_week() -> None:
    (window,) = windows.read([{**BERLIN, "days": ["sun", "mon"], "from": "00:00", "to": "24:00"}], field="f")
    assert windows.written(window) == {"days": ["mon", "sun"], "from": "00:00", "to": "24:00", "zone": "Europe/Berlin"}


@pytest.mark.parametrize(
    ("change", "member", "rule"),
    [
        ({"days": []}, ".days", "must be a list of days, each at most once"),
        ({"days": "mon"}, ".days", "must be a list of days, each at most once"),
        ({"days": ["Mon"]}, ".days", "must be a list of days, each at most once"),
        ({"days": ["monday"]}, ".days", "must be a list of days, each at most once"),
        ({"days": ["mon", "mon"]}, ".days", "must be a list of days, each at most once"),
        ({"days": [0]}, ".days", "must be a list of days, each at most once"),
        ({"days": [["mon"]]}, ".days", "must be a list of days, each at most once"),
        ({"from": "9:00"}, ".from", "must be hours and minutes of the day, of two digits each"),
        ({"from": "09:00:00"}, ".from", "must be hours and minutes of the day, of two digits each"),
        ({"from": "24:00"}, ".from", "must be hours and minutes of the day, of two digits each"),
        ({"from": "09:60"}, ".from", "must be hours and minutes of the day, of two digits each"),
        ({"from": "٠٩:٠٠"}, ".from", "must be hours and minutes of the day, of two digits each"),
        ({"from": "09:00\n"}, ".from", "must be hours and minutes of the day, of two digits each"),
        ({"from": 9}, ".from", "must be hours and minutes of the day, of two digits each"),
        ({"to": "24:01"}, ".to", "must be hours and minutes of the day, of two digits each"),
        ({"to": "25:00"}, ".to", "must be hours and minutes of the day, of two digits each"),
        ({"to": None}, ".to", "must be hours and minutes of the day, of two digits each"),
        ({"to": "09:00"}, ".to", "must be later than its from; hours that run past midnight are two windows"),
        (
            {"from": "22:00", "to": "06:00"},
            ".to",
            "must be later than its from; hours that run past midnight are two windows",
        ),
        ({"to": "00:00"}, ".to", "must be later than its from; hours that run past midnight are two windows"),
        ({"until": "18:00"}, ".until", "is not a member of a window"),
    ],
    ids=ascii,
)
def test_a_window_of_another_form_is_refused_by_its_member(change: dict[str, object], member: str, rule: str) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        windows.read([BERLIN, BERLIN | change], field="policy.windows")
    assert (caught.value.facts["field"], caught.value.facts["rule"]) == (f"policy.windows[1]{member}", rule)
    assert caught.value.facts["would_pass"]


@pytest.mark.parametrize("member", ["days", "from", "to", "zone"])
def test_a_member_that_is_missing_is_named(member: str) -> None:
    with pytest.raises(InvalidPolicy, match=rf"policy.windows\[0\].{member} is missing"):
        windows.read([{name: value for name, value in BERLIN.items() if name != member}], field="policy.windows")


@pytest.mark.parametrize(
    "zone",
    [
        "Berlin", "Europe/Berlin ", "CEST", "+01:00", "UTC+1", "localtime", "posixrules", "posix/Europe/Berlin",
        "right/Europe/Berlin", "/usr/share/zoneinfo/UTC", "../UTC", "Europe/../UTC", "Europe", "", ".", "Factory", "zone.tab",
        "tzdata.zi", "Europe/Berlin\x00", "Europe/Berl\u0131n", None, 1, ["UTC"],
    ],
    ids=ascii,
)  # fmt: skip
def test_a_zone_has_a_name_in_the_iana_database(zone: object) -> None:
    with pytest.raises(InvalidPolicy, match=r"policy.windows\[0\].zone must be the name of a zone"):
        windows.read([BERLIN | {"zone": zone}], field="policy.windows")


@pytest.mark.parametrize(
    ("zone", "meant"), [("europe/berlin", "Europe/Berlin"), ("utc", "UTC"), ("Mars/Olympus", "Europe/Berlin")]
)
def test_a_name_that_is_spelt_otherwise_is_shown_as_it_is_spelt(zone: str, meant: str) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        windows.read([BERLIN | {"zone": zone}], field="policy.windows")
    assert caught.value.facts["would_pass"] == f'"{meant}"'


@pytest.mark.parametrize("listed", [[], {}, None, "mon", BERLIN, [BERLIN] * 21], ids=type)
def test_a_policy_has_one_to_twenty_windows(listed: object) -> None:
    with pytest.raises(InvalidPolicy, match="must be a list of 1 to 20 windows"):
        windows.read(listed, field="policy.windows")


@pytest.mark.parametrize("item", [None, "mon", 1, []], ids=repr)
def test_a_window_is_an_object(item: object) -> None:
    with pytest.raises(InvalidPolicy, match=r"policy.windows\[0\] must be an object"):
        windows.read([item], field="policy.windows")


# --- The clock on the wall -------------------------------------------------------------------------------------------
def test_without_windows_it_is_always_open() -> None:
    assert windows.inside((), utc(2026, 3, 29))
    assert windows.until((), utc(2026, 3, 29)) is None
    assert windows.next_opening((), utc(2026, 3, 29)) == utc(2026, 3, 29)


@pytest.mark.promise("S9")
def test_the_beginning_is_inside_and_the_end_is_not() -> None:
    office = (daily("09:00", "17:00", days=(0,)),)
    opens, closes = utc(2026, 6, 1, 7), utc(2026, 6, 1, 15)
    assert [windows.inside(office, at) for at in (opens - TICK, opens, closes - TICK, closes)] == [
        False,
        True,
        True,
        False,
    ]
    assert [windows.until(office, at) for at in (opens - TICK, opens, closes - TICK)] == [opens, closes, closes]
    assert windows.until(office, closes) == opens + timedelta(days=7)
    assert windows.next_opening(office, closes) == opens + timedelta(days=7)
    assert windows.next_opening(office, opens) == opens


def test_midnight_at_the_end_of_a_day_runs_into_the_next_day() -> None:
    nights = (daily("22:00", "24:00"), daily("00:00", "06:00"))
    assert changes(nights, utc(2026, 6, 1, 12), utc(2026, 6, 2, 21)) == [
        utc(2026, 6, 1, 20),
        utc(2026, 6, 2, 4),
        utc(2026, 6, 2, 20),
    ]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Africa/Casablanca", "Pacific/Apia", "UTC"])
def test_windows_that_fill_the_week_never_close(zone: str) -> None:
    halves = (daily("00:00", "12:00", zone), daily("11:00", "24:00", zone))
    assert windows.until(halves, utc(2026, 3, 1)) is None
    assert windows.known(halves, utc(2026, 3, 1)) == windows.Span(None, None, is_inside=True)


def test_in_spring_the_missing_hour_never_comes() -> None:
    """Berlin, 29 March 2026: after 01:59:59.999999 comes 03:00."""
    jump = utc(2026, 3, 29, 1)
    missing, across, before, after = (
        (daily(*hours, days=(6,)),)
        for hours in (("02:00", "03:00"), ("01:30", "03:30"), ("01:00", "02:30"), ("02:30", "04:00"))
    )
    day = utc(2026, 3, 28, 23), utc(2026, 3, 29, 22)
    assert changes(missing, *day) == []
    assert windows.until(missing, day[0]) == utc(2026, 4, 5, 0)
    assert changes(across, *day) == [utc(2026, 3, 29, 0, 30), utc(2026, 3, 29, 1, 30)]
    assert changes(before, *day) == [utc(2026, 3, 29, 0), jump]
    assert changes(after, *day) == [jump, utc(2026, 3, 29, 2)]
    assert [windows.inside(before, at) for at in (jump - TICK, jump)] == [True, False]
    assert [windows.inside(after, at) for at in (jump - TICK, jump)] == [False, True]


def test_in_autumn_the_repeated_hour_counts_both_times() -> None:
    """Berlin, 25 October 2026: after 02:59:59.999999 comes 02:00 once more."""
    day = utc(2026, 10, 24, 22), utc(2026, 10, 25, 23)
    inner, hour, across = (
        (daily(*hours, days=(6,)),) for hours in (("02:15", "02:45"), ("02:00", "03:00"), ("01:30", "02:30"))
    )
    assert changes(inner, *day) == [utc(2026, 10, 25, hour, minute) for hour in (0, 1) for minute in (15, 45)]
    assert changes(hour, *day) == [utc(2026, 10, 25, 0), utc(2026, 10, 25, 2)]
    assert changes(across, *day) == [
        utc(2026, 10, 24, 23, 30),
        *(utc(2026, 10, 25, hour, minute) for hour, minute in ((0, 30), (1, 0), (1, 30))),
    ]
    assert [windows.inside(across, at) for at in (utc(2026, 10, 25, 1) - TICK, utc(2026, 10, 25, 1))] == [False, True]


def test_a_clock_that_jumps_by_half_an_hour() -> None:
    """Lord Howe, 4 October 2026: 02:00 is 02:30. 5 April 2026: 02:00 is 01:30 once more."""
    spring, autumn = utc(2026, 10, 3, 15, 30), utc(2026, 4, 4, 15)
    early = (daily("02:00", "02:15", "Australia/Lord_Howe"),)
    late = (daily("01:45", "02:00", "Australia/Lord_Howe"),)
    assert changes(early, spring - timedelta(hours=1), spring + timedelta(hours=1)) == []
    assert changes(late, spring - timedelta(hours=1), spring + timedelta(hours=1)) == [
        spring - timedelta(minutes=15),
        spring,
    ]
    assert changes(late, autumn - timedelta(hours=1), autumn + timedelta(hours=1)) == [
        autumn + timedelta(minutes=minutes) for minutes in (-15, 0, 15, 30)
    ]


def test_a_day_that_a_zone_skips_never_comes() -> None:
    """Apia, 2011: after Thursday 29 December comes Saturday the 31st."""
    friday = (daily("00:00", "24:00", "Pacific/Apia", days=(4,)),)
    both = (daily("00:00", "24:00", "Pacific/Apia", days=(3, 5)),)
    jump = utc(2011, 12, 30, 10)
    assert changes(friday, utc(2011, 12, 28), utc(2012, 1, 4)) == []
    assert windows.until(friday, jump) == utc(2012, 1, 5, 10)
    assert changes(both, utc(2011, 12, 28), utc(2012, 1, 4)) == [utc(2011, 12, 29, 10), utc(2011, 12, 31, 10)]
    assert windows.inside(both, jump - TICK)
    assert windows.inside(both, jump)


def test_a_clock_that_is_put_back_for_a_month_and_forward_again() -> None:
    """Casablanca is an hour behind its own time in Ramadan: in 2026 from 15 February to 22 March."""
    noon = (daily("12:00", "13:00", "Africa/Casablanca"),)
    assert windows.next_opening(noon, utc(2026, 2, 14)) == utc(2026, 2, 14, 11)
    assert windows.next_opening(noon, utc(2026, 2, 16)) == utc(2026, 2, 16, 12)
    assert windows.next_opening(noon, utc(2026, 3, 23)) == utc(2026, 3, 23, 11)


def test_a_gap_between_the_windows_of_two_zones_is_found_months_ahead() -> None:
    """18:00 in New York is midnight in Berlin, but 23:00 between the ends of summer there and here."""
    of = (daily("00:00", "14:00"), daily("07:30", "18:00", "America/New_York"))
    assert windows.until(of, utc(2026, 4, 1, 21)) == utc(2026, 10, 25, 22)
    assert windows.until(of, utc(2026, 10, 25, 22)) == utc(2026, 10, 25, 23)
    kept = windows.known(of, utc(2026, 4, 1, 21))
    assert kept.until is not None
    assert utc(2026, 5, 1) < kept.until < utc(2026, 10, 25, 22)
    assert windows.until((*of, daily("12:30", "24:00")), utc(2026, 4, 1)) is None


def test_any_zone_of_the_moment_gives_the_same_answer() -> None:
    office = (daily("09:00", "17:00"),)
    for zone in (UTC, timezone(timedelta(hours=-11)), ZoneInfo("Asia/Tokyo")):
        at = utc(2026, 6, 1, 7).astimezone(zone)
        assert windows.inside(office, at)
        assert windows.until(office, at) == utc(2026, 6, 1, 15)


@pytest.mark.parametrize("moment", [utc(1, 1, 1), utc(9999, 12, 31, 23, 59, 59, 999_999)], ids=["first", "last"])
@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York", "UTC"])
def test_the_ends_of_the_calendar_have_an_answer_too(moment: datetime, zone: str) -> None:
    of = (daily("09:00", "17:00", zone),)
    assert windows.known(of, moment).is_inside == windows.inside(of, moment)
    assert windows.until(of, moment) is None


def test_sessions_of_the_same_hours_share_their_answer() -> None:
    one, other = (windows.read([BERLIN], field="f") for _ in range(2))
    assert one is other
    assert windows.known(one, utc(2026, 6, 1)) is windows.known(other, utc(2026, 6, 1, 1))


def test_looking_ahead_keeps_the_answer_for_now() -> None:
    office = (daily("09:00", "17:00"),)
    kept = windows.known(office, utc(2026, 6, 1))
    assert windows.next_opening(office, utc(2026, 6, 1)) == utc(2026, 6, 1, 7)
    assert windows.known(office, utc(2026, 6, 1, 1)) is kept


def test_no_clock_jumps_twice_within_six_days() -> None:
    """On that the search for jumps relies, which looks at the two ends of a day."""
    for name in zones.names():
        with (importlib.resources.files("tzdata") / "zoneinfo" / name).open("rb") as file:
            indexes, times, offsets, *_ = load_data(file)
        shown = [(at, offsets[index]) for at, index in zip(times, indexes, strict=True)]
        jumps = [at for (_, before), (at, after) in pairwise(shown) if before != after]
        assert all(later - earlier > 6 * 86_400 for earlier, later in pairwise(jumps)), name


# --- Against a clock that is read minute by minute ------------------------------------------------------------------
WEEKS = [
    ("Europe/Berlin", utc(2026, 3, 25)), ("Europe/Berlin", utc(2026, 10, 21)), ("America/New_York", utc(2026, 3, 4)),
    ("America/New_York", utc(2026, 10, 28)), ("Australia/Lord_Howe", utc(2026, 4, 1)),
    ("Australia/Lord_Howe", utc(2026, 10, 1)),
    ("Africa/Casablanca", utc(2026, 2, 12)), ("Africa/Casablanca", utc(2026, 3, 19)), ("Pacific/Apia", utc(2011, 12, 27)),
    ("America/St_Johns", utc(2010, 11, 4)), ("Africa/Cairo", utc(2026, 4, 21)), ("Asia/Kathmandu", utc(2026, 6, 1)),
    ("America/Nuuk", utc(2026, 3, 25)), ("Pacific/Chatham", utc(2026, 9, 24)), ("Asia/Kolkata", utc(2026, 6, 1)),
]  # fmt: skip


@st.composite
def week_with_windows(draw: st.DrawFn) -> tuple[tuple[Window, ...], datetime]:
    """Windows in the zones of two weeks in which a clock jumps, and the beginning of one of the weeks."""
    (here, begin), (there, _) = draw(st.tuples(st.sampled_from(WEEKS), st.sampled_from(WEEKS)))
    drawn = []
    for _ in range(draw(st.integers(1, 4))):
        ends = (120, 150, 180, 1440)
        start = draw(st.one_of(st.sampled_from([0, 60, 90, 120, 150, 180]), st.integers(0, 1439)))
        end = draw(
            st.one_of(
                st.sampled_from([minute for minute in ends if minute > start]),
                st.integers(start + 1, 1440),
            )
        )
        days = draw(st.sets(st.integers(0, 6), min_size=1))
        drawn.append(Window(days=tuple(sorted(days)), start=start, end=end, zone=draw(st.sampled_from([here, there]))))
    return tuple(drawn), begin


@cache
def zone_of(name: str) -> ZoneInfo:
    """A zone of the pinned package: a machine's own zones can be older, and then differ."""
    with (importlib.resources.files("tzdata") / "zoneinfo" / name).open("rb") as file:
        return ZoneInfo.from_file(file)


def on_the_wall(of: tuple[Window, ...], moment: datetime) -> bool:
    """The same by the standard library alone."""
    for window in of:
        shown = moment.astimezone(zone_of(window.zone))
        if shown.weekday() in window.days and window.start <= shown.hour * 60 + shown.minute < window.end:
            return True
    return False


@settings(max_examples=60, deadline=None)
@given(drawn=week_with_windows())
def test_the_changes_are_those_that_one_sees_minute_by_minute(drawn: tuple[tuple[Window, ...], datetime]) -> None:
    of, begin = drawn
    minutes = [begin + timedelta(minutes=minute) for minute in range(7 * 24 * 60)]
    answers = [on_the_wall(of, at) for at in minutes]
    seen = [at for at, before, after in zip(minutes[1:], answers, answers[1:], strict=False) if before != after]
    assert changes(of, begin, minutes[-1]) == [at for at in seen if at < minutes[-1]]


@settings(max_examples=100, deadline=None)
@given(drawn=week_with_windows(), offset=st.integers(0, 7 * 24 * 3600 * 10**6))
def test_an_answer_that_is_kept_is_the_answer_at_both_ends_of_its_time(
    drawn: tuple[tuple[Window, ...], datetime], offset: int
) -> None:
    of, begin = drawn
    now = begin + timedelta(microseconds=offset)
    span = windows.known(of, now)
    assert span.is_inside == on_the_wall(of, now)
    if span.since is not None and span.until is not None:
        assert span.since <= now < span.until
        assert on_the_wall(of, span.since) == on_the_wall(of, span.until - TICK) == span.is_inside
        assert windows.until(of, span.since) == windows.until(of, now)
