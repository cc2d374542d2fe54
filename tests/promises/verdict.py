"""What a run says of each promise: it is proved when all of its tests ran, in every case, and passed, and its figure is good.

Two promises are about time. No test asserts one: tests record figures, and only here, in a run of `make promises`, a figure
decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

BAR_MS: Final = 340
PER_HOUR: Final = 10_000


@dataclass(frozen=True)
class Bar:
    """A figure that a test records, and from where on it is good."""

    figure: str
    limit: int
    is_at_least: bool
    text: str

    def met_by(self, value: float) -> bool:
        """Return whether a measured value is good enough."""
        return value >= self.limit if self.is_at_least else value <= self.limit

    def shown(self, value: float) -> str:
        """Return it beside its bar."""
        return self.text.format(value=value, limit=self.limit)


BARS: Final = {
    "S1": Bar(
        "payments_per_hour", PER_HOUR, True, "{value:,.0f} payments an hour, one after the other (bar: {limit:,})"
    ),
    "S2": Bar("three_paid_calls_ms", BAR_MS, False, "three paid calls in {value:,.0f} ms (bar: {limit:,} ms)"),
}


@dataclass(frozen=True)
class Outcome:
    """What became of one promise."""

    number: str
    is_proved: bool
    tests: tuple[str, ...]
    seconds: float
    wrong: tuple[str, ...]
    """Why it is not proved: the tests that did not pass, or a figure that is not good enough."""
    figure: str
    measured: float | None

    def to_document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        shown = {"proved": self.is_proved, "tests": list(self.tests), "seconds": round(self.seconds, 2)}
        return shown | ({"wrong": list(self.wrong)} if self.wrong else {}) | self._bar()

    def _bar(self) -> dict[str, Any]:
        bar = BARS.get(self.number)
        return {} if bar is None else {"figure": {"name": bar.figure, "measured": self.measured, "bar": bar.limit}}


def of(marked: Mapping[str, Sequence[str]], cases: Mapping[str, Mapping[str, Any]]) -> list[Outcome]:
    """Return what became of each promise, in their order."""
    return [_outcome(number, tuple(tests), cases) for number, tests in marked.items()]


def _outcome(number: str, tests: tuple[str, ...], cases: Mapping[str, Mapping[str, Any]]) -> Outcome:
    ran = {test: [case for name, case in cases.items() if name.split("[")[0] == test] for test in tests}
    wrong = [_fault(test, outcomes) for test, outcomes in ran.items()] or ["no test proves it"]
    figure, measured = "", None
    if bar := BARS.get(number):
        values = [
            case["figures"][bar.figure] for found in ran.values() for case in found if bar.figure in case["figures"]
        ]
        measured = values[0] if values else None
        figure = bar.shown(measured) if measured is not None else "not measured"
        wrong.append("" if measured is not None and bar.met_by(measured) else f"{bar.figure}: {figure}")
    faults = tuple(fault for fault in wrong if fault)
    seconds = sum(case["seconds"] for found in ran.values() for case in found)
    return Outcome(number, not faults, tests, seconds, faults, figure, measured)


def _fault(test: str, cases: Sequence[Mapping[str, Any]]) -> str:
    """Return what is wrong with a test; nothing when it ran in every case, and passed."""
    if not cases:
        return f"{test}: not run"
    outcomes = sorted({case["outcome"] for case in cases} - {"passed"})
    return f"{test}: {', '.join(outcomes)}" if outcomes else ""
