"""A self-contained copy of contracts/, libraries inside it, for tools that must not meet the one people work in.

Inside, because slither reads a source that forge names in two ways as two sources, and then misses most of the contract.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = ROOT / "contracts"
PROOFS = ROOT / ".venv-proofs"


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def forge() -> Path:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return ROOT / "node_modules/@foundry-rs" / f"forge-{platform.system().lower()}-{machine}" / "bin/forge"


def environment(**changes: str) -> dict[str, str]:
    path = os.pathsep.join((str(forge().parent), os.environ.get("PATH", "")))
    return os.environ | {"PATH": path, "SOLC_NODE_MODULES": str(ROOT / "node_modules")} | changes


def copy_to(folder: Path, *, tests: bool) -> Path:
    """`folder`, made a Foundry root with the sources as they are now."""
    names = ["src", "artifacts", *(["test"] if tests else [])]
    for name in names:
        shutil.copytree(CONTRACTS / name, folder / name, dirs_exist_ok=True)
    shutil.copy(CONTRACTS / "solc", folder / "solc")
    shutil.copytree(ROOT / "node_modules/@openzeppelin", folder / "lib/@openzeppelin", dirs_exist_ok=True)
    settings = (CONTRACTS / "foundry.toml").read_text(encoding="utf-8")
    (folder / "foundry.toml").write_text(settings.replace("../node_modules", "lib"), encoding="utf-8")
    return folder
