"""The page of faults has every row of the matrix, and every test that it names is there."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/RELIABILITY.md").read_text(encoding="utf-8")
ROWS = [*range(1, 43), *range(50, 53)]


def rows() -> dict[int, str]:
    """The table: of each row, its line."""
    found = re.findall(r"^\| (\d+) \|(.*)\|$", PAGE, re.MULTILINE)
    assert len(found) == len({number for number, _ in found}), "a row is there twice"
    return {int(number): line for number, line in found}


def named(line: str) -> set[tuple[str, str]]:
    """The tests that a line names: each a path and a function."""
    return set(re.findall(r"`((?:tests|contracts/test)/[\w./]+)::(\w+)`", line))


@cache
def written(path: str) -> set[str]:
    """The tests that a file has, read and not run."""
    source = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".sol"):
        return set(re.findall(r"function (\w+)\(", source))
    return {one.name for one in ast.walk(ast.parse(source)) if isinstance(one, ast.FunctionDef)}


def test_every_row_of_the_matrix_is_there_and_names_a_test() -> None:
    assert sorted(rows()) == ROWS
    assert [number for number, line in rows().items() if not named(line)] == []


def test_every_test_that_the_page_names_is_there() -> None:
    tests = named(PAGE)
    assert {path for path, _ in tests if not (ROOT / path).exists()} == set()
    assert {f"{path}::{name}" for path, name in tests if name not in written(path)} == set()
    assert all(name.startswith("test_") for _, name in tests)
    assert len(tests) >= 80
