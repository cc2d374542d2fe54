"""What others have built, measured beside us in the same run. Their packages live in `.venv-peers`, never in ours.

Lives here: the modules that start them; the programs that import their packages are in `reference/`.
"""

from pathlib import Path
from typing import Final

from marketplace.management.stack.supervisor import StackError

ROOT: Final = Path(__file__).resolve().parents[2]
_PYTHON: Final = ROOT / ".venv-peers" / "bin" / "python"


def program(name: str) -> list[str | Path]:
    """Return how to start a program that imports their packages. Raises StackError when they are not installed."""
    if not _PYTHON.exists():
        raise StackError("The packages to compare with are missing: run `make .venv-peers/.ready`, or `make bench`.")
    return [_PYTHON, Path(__file__).with_name("reference") / f"{name}.py"]
