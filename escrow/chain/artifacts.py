"""The committed artifacts, read. Needs no compiler and no `node_modules`; writing them is compiler.py's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

CONTRACTS_ROOT = Path(__file__).resolve().parents[2] / "contracts"


@dataclass(frozen=True)
class Artifact:
    """One compiled contract. `bytecode` is the creation code without constructor arguments."""

    name: str
    source: str
    abi: list[dict[str, Any]]
    bytecode: bytes
    deployed_bytecode: bytes
    solc_version: str
    settings: dict[str, Any]
    source_hash: str


def artifact_path(name: str, root: Path = CONTRACTS_ROOT) -> Path:
    return root / "artifacts" / f"{name}.json"


@cache
def load_artifact(name: str, root: Path = CONTRACTS_ROOT) -> Artifact:
    """The committed artifact; needs no compiler and no `node_modules`."""
    fields = json.loads(artifact_path(name, root).read_text())
    return Artifact(
        name=fields["contract"],
        source=fields["source"],
        abi=fields["abi"],
        bytecode=bytes.fromhex(fields["bytecode"].removeprefix("0x")),
        deployed_bytecode=bytes.fromhex(fields["deployed_bytecode"].removeprefix("0x")),
        solc_version=fields["solc_version"],
        settings=fields["settings"],
        source_hash=fields["source_hash"],
    )
