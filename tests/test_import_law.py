"""The house keeps its shape: rooms know only the rooms below, and files and functions stay small enough to read."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LONGEST_FILE, LONGEST_FUNCTION = 300, 60
LONGER = {"marketplace/settings.py": 480}  # one settings file is worth more than short files
FOLDERS = ("escrow", "marketplace", "sdk", "examples")
FILES = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py")) if "migrations" not in file.parts]


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_the_import_law_holds() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def law(name: str, member: str) -> list[str]:
    """What a contract of the import law says, by its name in pyproject.toml."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    return next(list(found[member]) for found in contracts if found["name"] == name)


def layers() -> list[tuple[int, str]]:
    """The rooms of escrow, each with the number of its layer, 1 the highest."""
    return [
        (number, room)
        for number, layer in enumerate(law("Rooms of escrow", "layers"), 1)
        for room in layer.split(" | ")
    ]


def test_the_page_has_each_room_of_escrow_at_its_layer() -> None:
    page = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| (\d+) \| `(\w+)/?` \| .+ \|$", page, re.MULTILINE)
    assert [(int(number), room) for number, room in shown] == layers()


def test_every_room_of_escrow_but_the_chain_is_kept_from_web3() -> None:
    kept = law("Only the chain room speaks web3", "source_modules")
    assert sorted(kept) == sorted(["marketplace", *(f"escrow.{room}" for _, room in layers() if room != "chain")])


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_can_be_read_in_one_sitting(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert text.count("\n") <= LONGER.get(str(file.relative_to(ROOT)), LONGEST_FILE)
    assert ast.get_docstring(tree) or not text.strip(), "the module does not say what lives here"
    assert [f"{f.name}: {f.end_lineno}" for f in functions(tree) if _lines(f) > LONGEST_FUNCTION] == []


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1
