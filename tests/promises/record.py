"""What pytest writes down of a run of the promises, as a plugin: the outcome of every case, its seconds and its figures.

`pytest -p tests.promises.record --promises-report FILE`. What it means for a promise is `verdict`'s to say.
"""

import json
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--promises-report", default=None, help="where to write the outcome of every case, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--promises-report"):
        config.pluginmanager.register(Record(Path(str(config.getoption("--promises-report")))))


class Record:
    """Every phase of every case that ran, and every case that was chosen."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cases: dict[str, dict[str, Any]] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note what is to run: a case that is never reported did not pass."""
        for item in session.items:
            self._cases[item.nodeid] = {"outcome": "not run", "seconds": 0.0, "figures": {}}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a phase: a case has passed when its call has passed and neither its beginning nor its end failed."""
        case = self._cases[report.nodeid]
        case["seconds"] += report.duration
        if report.when == "call":
            case["figures"] = dict(report.user_properties)
            if report.passed and not hasattr(report, "wasxfail"):
                case["outcome"] = "passed"
        if not report.passed:
            case["outcome"] = report.outcome

    def pytest_sessionfinish(self) -> None:
        """Write it all."""
        self._path.write_text(json.dumps(self._cases), encoding="utf-8")
