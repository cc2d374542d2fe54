"""Which files of a code base are reviewed: the same ones each time, spread over all of it."""

from importlib.util import find_spec
from pathlib import Path

from examples.findings import SourceFile

#: bytes: smaller files have nothing to find, larger ones are data
SMALLEST, LARGEST = 1_000, 60_000
_SKIPPED_FOLDERS = frozenset({"migrations", "locale", "tests", "node_modules", "__pycache__", "venv"})

UNPARSABLE = """# This file is unparsable on purpose: a review of it must be refused, and its payment refunded.
def broken(:
    return
"""


def default_path() -> Path:
    """Django's installed source: a real code base that is on every machine that runs the market."""
    found = find_spec("django")
    if found is None or not found.submodule_search_locations:
        raise ValueError("Django is not installed here: name a code base with --path.")
    return Path(next(iter(found.submodule_search_locations)))


def choose(path: Path, count: int) -> list[Path]:
    """`count` files evenly over the sorted list, or all there are. Raises ValueError when there are none."""
    if count < 1:
        raise ValueError(f"{count} files cannot be reviewed: ask for 1 at least.")
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder.")
    found = [file for file in sorted(path.rglob("*.py")) if _is_worth_it(file, path)]
    if not found:
        raise ValueError(f"{path} has no Python files of {SMALLEST} to {LARGEST} bytes.")
    count = min(count, len(found))
    return [found[place * len(found) // count] for place in range(count)]


def read(file: Path, root: Path) -> SourceFile:
    """The name is relative to the folder that holds the code base: django/utils/text.py."""
    return SourceFile(str(file.relative_to(root.parent)), file.read_text(encoding="utf-8"))


def unparsable_file(folder: Path) -> SourceFile:
    """Make one file that no parser takes, and that says why it is there."""
    file = folder / "generated" / "unparsable_on_purpose.py"
    file.parent.mkdir()
    file.write_text(UNPARSABLE, encoding="utf-8")
    return read(file, file.parent)


def _is_worth_it(file: Path, root: Path) -> bool:
    inside = file.relative_to(root).parts
    if _SKIPPED_FOLDERS.intersection(inside) or any(part.startswith(".") for part in inside):
        return False
    try:
        return SMALLEST <= file.stat().st_size <= LARGEST and bool(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return False
