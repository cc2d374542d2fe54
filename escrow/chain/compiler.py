"""Solidity to committed artifacts: ABI, bytecode, settings and a hash of every source that went in.

Lives here: compiling through py-solc-x and the wrapper in `contracts/solc`, and writing `contracts/artifacts`: what came
out, and for the contract that goes to public chains what went in, which a block explorer compiles again to verify it.
Not here: reading them (artifacts.py), deploying (deploy.py). Runs as `python -m escrow.chain.compiler [--check]`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import solcx

from escrow.chain.artifacts import CONTRACTS_ROOT, Artifact, artifact_path

SOURCES = {"BudgetPool": "src/BudgetPool.sol", "TestUSDC": "src/test/TestUSDC.sol"}
VERIFIED = "BudgetPool"  # the one that is deployed in public
DEPLOYED_SIZE_LIMIT = 24_576  # EIP-170

_IMPORT = re.compile(r'^import\s[^;]*?"([^"]+)";', re.MULTILINE)


class CompileError(Exception):
    """The sources do not compile, or a compiled contract cannot be deployed."""


def settings_from(root: Path) -> dict[str, Any]:
    """The compiler settings of `foundry.toml`, so that forge and we never compile two different things."""
    profile = tomllib.loads((root / "foundry.toml").read_text())["profile"]["default"]
    return {
        "evmVersion": profile["evm_version"],
        "viaIR": profile["via_ir"],
        "optimizer": {"enabled": profile["optimizer"], "runs": profile["optimizer_runs"]},
        "metadata": {"bytecodeHash": profile["bytecode_hash"], "appendCBOR": profile["cbor_metadata"]},
    }


def collect_sources(root: Path, entry: str) -> dict[str, str]:
    """`entry` and all it imports, by name: paths below `root`, or package names for dependencies."""
    found: dict[str, str] = {}
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        file = root.parent / "node_modules" / name if name.startswith("@") else root / name
        found[name] = file.read_text()
        waiting += [_resolve(name, target) for target in _IMPORT.findall(found[name])]
    return dict(sorted(found.items()))


def _resolve(importer: str, target: str) -> str:
    if not target.startswith("."):
        return target
    return os.path.normpath(PurePosixPath(importer).parent / target)


def source_hash(sources: dict[str, str]) -> str:
    """sha256 over the names and contents of all sources, in order of name."""
    digest = hashlib.sha256()
    for name, content in sorted(sources.items()):
        for part in (name.encode(), content.encode()):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def standard_input(name: str, root: Path = CONTRACTS_ROOT) -> dict[str, Any]:
    """All that the compiler is told about one of `SOURCES`, as solc's standard JSON."""
    entry = SOURCES[name]
    outputs = ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"]
    return {
        "language": "Solidity",
        "sources": {source: {"content": content} for source, content in collect_sources(root, entry).items()},
        "settings": settings_from(root) | {"outputSelection": {entry: {name: outputs}}},
    }


def compile_contract(name: str, root: Path = CONTRACTS_ROOT) -> Artifact:
    """Compile one of `SOURCES` as it is now; raises `CompileError` as `compile_input` does."""
    return compile_input(name, standard_input(name, root), root)


def compile_input(name: str, told: dict[str, Any], root: Path = CONTRACTS_ROOT) -> Artifact:
    """Compile a standard input; raises `CompileError` when it fails or what comes out is too large to deploy."""
    entry, binary = SOURCES[name], root / "solc"
    try:
        compiled = solcx.compile_standard(told, solc_binary=binary)
    except solcx.exceptions.SolcError as error:
        raise CompileError(str(error)) from error
    contract = compiled["contracts"][entry][name]
    deployed = bytes.fromhex(contract["evm"]["deployedBytecode"]["object"])
    if len(deployed) >= DEPLOYED_SIZE_LIMIT:
        raise CompileError(f"{name} is {len(deployed)} bytes, the limit is {DEPLOYED_SIZE_LIMIT}")
    return Artifact(
        name=name,
        source=entry,
        abi=contract["abi"],
        bytecode=bytes.fromhex(contract["evm"]["bytecode"]["object"]),
        deployed_bytecode=deployed,
        solc_version=str(solcx.wrapper.get_solc_version(binary)),
        settings={key: value for key, value in told["settings"].items() if key != "outputSelection"},
        source_hash=source_hash({source: file["content"] for source, file in told["sources"].items()}),
    )


def render(artifact: Artifact) -> str:
    """The artifact as committed."""
    fields = {
        "contract": artifact.name,
        "source": artifact.source,
        "source_hash": artifact.source_hash,
        "solc_version": artifact.solc_version,
        "settings": artifact.settings,
        "abi": artifact.abi,
        "bytecode": "0x" + artifact.bytecode.hex(),
        "deployed_bytecode": "0x" + artifact.deployed_bytecode.hex(),
    }
    return json.dumps(fields, indent=1) + "\n"


def render_input(told: dict[str, Any]) -> str:
    """The standard input as committed: what a block explorer takes, and compiles to the same bytes."""
    return json.dumps(told, indent=1) + "\n"


def input_path(name: str, root: Path = CONTRACTS_ROOT) -> Path:
    return root / "artifacts" / f"{name}.standard-input.json"


def fresh_files(root: Path = CONTRACTS_ROOT) -> Iterator[tuple[Path, str]]:
    """Every file of `artifacts/` and what belongs in it, compiled now."""
    for name in SOURCES:
        told = standard_input(name, root)
        yield artifact_path(name, root), render(compile_input(name, told, root))
        if name == VERIFIED:
            yield input_path(name, root), render_input(told)


def write_artifacts(root: Path = CONTRACTS_ROOT) -> list[Path]:
    """Compile everything in `SOURCES` and write it below `artifacts/`."""
    (root / "artifacts").mkdir(exist_ok=True)
    written = []
    for path, content in fresh_files(root):
        path.write_text(content)
        written.append(path)
    return written


def stale_artifacts(root: Path = CONTRACTS_ROOT) -> list[str]:
    """Names of the files that differ from what a fresh compilation writes."""
    return [path.name for path, content in fresh_files(root) if not path.exists() or path.read_text() != content]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="escrow.chain.compiler", description="Compile the contracts.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if an artifact is stale")
    if parser.parse_args(arguments).check:
        stale = stale_artifacts()
        sys.stdout.write(f"stale: {', '.join(stale)}\n" if stale else "artifacts are what the sources compile to\n")
        return 1 if stale else 0
    for path in write_artifacts():
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
