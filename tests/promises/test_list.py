"""docs/PROMISES.md and the marks of the tests say the same; and what a run says of a promise."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.promises import marks, page, verdict

TEXT = page.PAGE.read_text(encoding="utf-8")
PARTS = {part.number: part for part in page.parts(TEXT)}


def test_every_promise_is_on_the_page_in_order() -> None:
    assert tuple(part.number for part in page.parts(TEXT)) == marks.NUMBERS


@pytest.mark.parametrize("number", marks.NUMBERS)
def test_a_promise_has_a_test_and_the_page_names_just_its_tests(number: str) -> None:
    tests = marks.marked()[number]
    assert tests, f"no test is marked with {number}"
    assert PARTS[number].tests == tests, "run `make promises ARGS=--write`"
    assert PARTS[number].promise
    assert "](" in PARTS[number].kept, "where it is kept is a link"


def test_the_page_is_as_it_would_be_written() -> None:
    assert page.written(TEXT, marks.marked()) == TEXT


def test_every_test_that_is_named_is_there() -> None:
    for test in {test for tests in marks.marked().values() for test in tests}:
        path, *_, name = test.split("::")
        assert f"def {name}(" in (marks.ROOT / path).read_text(encoding="utf-8")


def case(outcome: str = "passed", **figures: float) -> dict[str, Any]:
    return {"outcome": outcome, "seconds": 0.5, "figures": figures}


@pytest.mark.parametrize(
    ("cases", "wrong"),
    [
        ({"t.py::a": case(), "t.py::b[1]": case(), "t.py::b[2]": case()}, ()),
        ({"t.py::a": case()}, ("t.py::b: not run",)),
        ({"t.py::a": case("skipped"), "t.py::b[1]": case()}, ("t.py::a: skipped",)),
        ({"t.py::a": case("failed"), "t.py::b": case("not run")}, ("t.py::a: failed", "t.py::b: not run")),
        ({"t.py::a": case(), "t.py::b[1]": case(), "t.py::b[2]": case("failed")}, ("t.py::b: failed",)),
        ({"t.py::a": case(), "t.py::bc": case()}, ("t.py::b: not run",)),
    ],
)
def test_a_promise_is_proved_when_every_case_of_its_tests_ran_and_passed(
    cases: dict[str, Any], wrong: tuple[str, ...]
) -> None:
    (outcome,) = verdict.of({"S9": ("t.py::a", "t.py::b")}, cases)
    assert (outcome.is_proved, outcome.wrong) == (not wrong, wrong)


def test_a_promise_without_tests_is_not_proved() -> None:
    (outcome,) = verdict.of({"S9": ()}, {})
    assert (outcome.is_proved, outcome.wrong) == (False, ("no test proves it",))


@pytest.mark.parametrize(
    ("number", "figures", "is_proved"),
    [
        ("S2", {"three_paid_calls_ms": 340.0}, True),
        ("S2", {"three_paid_calls_ms": 340.1}, False),
        ("S1", {"payments_per_hour": 10_000.0}, True),
        ("S1", {"payments_per_hour": 9_999.0}, False),
        ("S1", {}, False),
    ],
)
def test_a_figure_decides_in_a_run(number: str, figures: dict[str, float], is_proved: bool) -> None:
    (outcome,) = verdict.of({number: ("t.py::a",)}, {"t.py::a": case(**figures)})
    assert outcome.is_proved is is_proved


SAMPLE = """
import pytest

def test_passes(record_property):
    record_property("three_paid_calls_ms", 66.5)

def test_fails():
    assert False

def test_skips():
    pytest.skip("not here")

@pytest.mark.xfail(strict=False)
def test_is_expected_to_fail():
    assert False

@pytest.mark.xfail(strict=False)
def test_passes_though_it_is_expected_to_fail():
    pass

@pytest.fixture
def broken():
    yield
    raise OSError

def test_cannot_end(broken):
    pass

@pytest.fixture
def absent():
    raise OSError

def test_cannot_begin(absent):
    pass
"""


def test_only_a_case_that_passed_from_beginning_to_end_is_written_down_as_passed(tmp_path: Path) -> None:
    sample, report = tmp_path / "test_sample.py", tmp_path / "cases.json"
    sample.write_text(SAMPLE, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    options = ("-p", "tests.promises.record", "-p", "no:django", "--promises-report", report, "--rootdir", tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-c", tmp_path / "pytest.ini", *options, sample]
    subprocess.run(command, cwd=marks.ROOT, capture_output=True, check=False)
    cases = json.loads(report.read_text(encoding="utf-8"))
    assert {name.partition("::")[2]: case["outcome"] for name, case in cases.items()} == {
        "test_passes": "passed",
        "test_fails": "failed",
        "test_skips": "skipped",
        "test_is_expected_to_fail": "skipped",
        "test_passes_though_it_is_expected_to_fail": "not run",
        "test_cannot_end": "failed",
        "test_cannot_begin": "failed",
    }
    assert cases["test_sample.py::test_passes"]["figures"] == {"three_paid_calls_ms": 66.5}
