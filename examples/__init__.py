"""Agents that do real work and pay each other for it. They use the SDK as anybody would, nothing else."""

import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("agentmarket") is None:  # not installed: take it from beside us in the checkout
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "sdk" / "src"))
