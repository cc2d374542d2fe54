"""Both clients have types, and a type checker sees the right ones."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_mypy_agrees_with_what_is_written() -> None:
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "tests/sdk/typed.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
