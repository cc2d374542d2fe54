"""Policies, names and moments for tests that draw them. Few names and hours, so that what is drawn often meets."""

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from escrow.limits import AMOUNTS, Policy
from escrow.windows import Window

START = datetime(2026, 3, 23, tzinfo=UTC)
"""The week in which the clocks of Berlin jump."""
NAMES = ["acme.dev", "lint.acme.dev", "a.lint.acme.dev", "evilacme.dev", "test.example.dev"]
CAPABILITIES = ["code.lint", "code.test", "text.brief"]

names = st.sampled_from(NAMES)
agents = names.map("agent://{}".format)
patterns = st.tuples(st.sampled_from(["", "agent://"]), st.sampled_from(["", "*."]), names).map("".join)
capabilities = st.sampled_from(CAPABILITIES)
moments = st.integers(0, 14 * 24 * 60).map(lambda minutes: START + timedelta(minutes=minutes))


def lists(of: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, ...]]:
    """Return none, one, two or three of them, each once."""
    return st.lists(of, max_size=3, unique=True).map(tuple)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    start = draw(st.sampled_from([0, 150, 540, 720]))
    end = draw(st.sampled_from([end for end in (150, 720, 1020, 1440) if end > start]))
    days = draw(st.sets(st.integers(0, 6), min_size=1))
    return Window(tuple(sorted(days)), start, end, draw(st.sampled_from(["Europe/Berlin", "America/New_York"])))


@st.composite
def policies(draw: st.DrawFn, *, most: int = 10**18 - 1) -> Policy:
    """Any policy that a document can say, with amounts up to one."""
    of = st.integers(1, most)
    points = st.sets(st.integers(1, 9999), max_size=4).map(lambda some: tuple(sorted(some)))
    return Policy(
        **{name: draw(st.none() | of) for name in AMOUNTS},
        max_tx_per_minute=draw(st.none() | st.integers(1, 5)),
        allowed_recipients=draw(lists(patterns)),
        denied_recipients=draw(lists(patterns)),
        allowed_capabilities=draw(lists(capabilities)),
        windows=tuple(draw(st.lists(windows(), max_size=3))),
        checkpoint_at=draw(points),
        expires_at=draw(st.none() | moments),
    )
