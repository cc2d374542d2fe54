"""docs/PROMISES.md: what it says of each promise, and the lines that are made from the marks of the tests."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.promises.marks import ROOT

PAGE: Final = ROOT / "docs" / "PROMISES.md"
_PART: Final = re.compile(r"^\*\*(S\d+)\*\* (.+?)\n((?:- .+\n)+)", re.MULTILINE)
_PROVED: Final = re.compile(r"^- Proved by .+\n", re.MULTILINE)
_TEST: Final = re.compile(r"\[([\w:]+)\]\(\.\./([\w/.]+)\)")


@dataclass(frozen=True)
class Part:
    """What the page says of one promise."""

    number: str
    promise: str
    kept: str
    tests: tuple[str, ...]


def parts(text: str) -> list[Part]:
    """Return what a page says, in its order."""
    return [_part(*found) for found in _PART.findall(text)]


def _part(number: str, promise: str, lines: str) -> Part:
    kept = "".join(re.findall(r"^- Kept in (.+)\n", lines, re.MULTILINE))
    tests = [f"{file}::{name}" for line in _PROVED.findall(lines) for name, file in _TEST.findall(line)]
    return Part(number, promise, kept, tuple(tests))


def written(text: str, marked: dict[str, tuple[str, ...]]) -> str:
    """Return a page with the tests that are marked now."""

    def with_tests(found: re.Match[str]) -> str:
        number, promise, lines = found.groups()
        return (
            f"**{number}** {promise}\n{_PROVED.sub('', lines)}- Proved by {_links(marked[number]) or 'nothing yet'}\n"
        )

    return _PART.sub(with_tests, text)


def _links(tests: tuple[str, ...]) -> str:
    return ", ".join(f"[{name}](../{file})" for file, _, name in (test.partition("::") for test in tests))


def write(marked: dict[str, tuple[str, ...]], path: Path = PAGE) -> None:
    """Bring the page up to the marks."""
    path.write_text(written(path.read_text(encoding="utf-8"), marked), encoding="utf-8")
