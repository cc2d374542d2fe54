"""What importing the chain room costs and what it may not bring along."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .world import ROOT

MODULES = sorted(path.stem for path in (ROOT / "escrow" / "chain").glob("*.py") if path.stem != "__init__")


def loaded_by(module: str) -> set[str]:
    """Top-level packages in a fresh interpreter after importing one module of the room."""
    code = f"import escrow.chain.{module}, sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


@pytest.mark.parametrize("module", MODULES)
def test_no_module_brings_the_web_along(module: str) -> None:
    loaded = loaded_by(module)
    assert not loaded & {"django", "celery", "rest_framework", "marketplace"}
    if module not in ("client", "create2", "custody", "deploy", "nodes", "rollout"):
        assert "web3" not in loaded
    if module != "compiler":
        assert "solcx" not in loaded


@pytest.mark.parametrize(
    "module",
    [
        "wire",
        "merkle",
        "words",
        "abi",
        "events",
        "answers",
        "contract",
        "outcomes",
        "errors",
        "domain",
        "terms",
        "typed",
    ],
)
def test_pure_modules_bring_neither_keys_nor_sockets(module: str) -> None:
    assert not loaded_by(module) & {"eth_account", "web3", "requests", "aiohttp"}
