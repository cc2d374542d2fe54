"""The page of threats names only tests that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/SECURITY.md").read_text(encoding="utf-8")


def named() -> set[tuple[str, str]]:
    """Each file and test: `file: test`, after which a further `test` of the same line is of the same file."""
    found = set[tuple[str, str]]()
    for line in PAGE.splitlines():
        place = ""
        for text in re.findall(r"`([^`]+)`", line):
            file, colon, test = text.rpartition(": ")
            place = file if colon else place
            if place and re.fullmatch(r"(test|invariant)_\w+", test):
                found.add((place, test))
    return found


def written(place: str) -> str:
    """The text of a file, which the page names from the folder of its tests."""
    folder = "contracts/test" if place.endswith(".sol") else "tests"
    return (ROOT / folder / place).read_text(encoding="utf-8")


def test_every_test_that_the_page_names_is_there() -> None:
    tests = named()
    assert {
        (place, test) for place, test in tests if not re.search(rf"(?:def|function) {test}\(", written(place))
    } == set()
    assert len(tests) >= 75
