"""Which tests prove which promise, read from the sources of the tests. Nothing is imported and nothing runs."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
NUMBERS: Final = tuple(f"S{number}" for number in range(1, 34))
"""Every promise; `@pytest.mark.promise("S4", …)` on a test says that it fails when one of these is broken."""


@cache
def marked() -> dict[str, tuple[str, ...]]:
    """Return the tests of each promise as pytest names them, without parameters. Raises ValueError for another number."""
    found: dict[str, list[str]] = {number: [] for number in NUMBERS}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "mark.promise" not in text:
            continue
        for test, numbers in _marks(ast.parse(text).body, path.relative_to(ROOT).as_posix()):
            for number in numbers:
                if number not in found:
                    raise ValueError(f"{test} is marked with {number!r}, which is no promise.")
                found[number].append(test)
    return {number: tuple(tests) for number, tests in found.items()}


def _marks(body: list[ast.stmt], place: str) -> Iterator[tuple[str, list[str]]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _marks(node.body, f"{place}::{node.name}")
        elif isinstance(node, ast.FunctionDef):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.promise":
                    yield f"{place}::{node.name}", [str(ast.literal_eval(number)) for number in mark.args]
