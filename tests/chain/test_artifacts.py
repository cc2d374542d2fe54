"""The committed artifacts are what the sources compile to, and can be deployed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from escrow.chain import compiler
from escrow.chain.artifacts import CONTRACTS_ROOT, artifact_path, load_artifact

from .world import ROOT


def test_what_an_explorer_is_given_is_what_is_compiled() -> None:
    committed = compiler.input_path("BudgetPool").read_text()
    assert committed == compiler.render_input(compiler.standard_input("BudgetPool"))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", sorted(compiler.SOURCES))
def test_the_committed_artifact_is_a_fresh_compilation(name: str) -> None:
    # Of the committed input where there is one: so it is also seen to give the committed bytecode, byte for byte.
    committed = compiler.input_path(name)
    told = json.loads(committed.read_text()) if committed.exists() else compiler.standard_input(name)
    fresh = compiler.render(compiler.compile_input(name, told))
    assert artifact_path(name).read_text() == fresh, "run `python -m escrow.chain.compiler`"


def test_settings_are_those_of_foundry() -> None:
    settings = load_artifact("BudgetPool").settings
    assert settings == compiler.settings_from(CONTRACTS_ROOT)
    assert (settings["evmVersion"], settings["viaIR"]) == ("prague", True)
    assert load_artifact("BudgetPool").solc_version == "0.8.37"


def test_the_pool_leaves_room_below_the_size_limit() -> None:
    assert len(load_artifact("BudgetPool").deployed_bytecode) < compiler.DEPLOYED_SIZE_LIMIT


def test_a_changed_source_changes_the_hash() -> None:
    sources = compiler.collect_sources(CONTRACTS_ROOT, "src/BudgetPool.sol")
    assert compiler.source_hash(sources) == load_artifact("BudgetPool").source_hash
    assert {"src/BudgetPool.sol", "src/BatchWire.sol", "src/interfaces/IBudgetPool.sol"} <= sources.keys()
    assert any(name.startswith("@openzeppelin/contracts/") for name in sources)
    changed = sources | {"src/BatchWire.sol": sources["src/BatchWire.sol"] + " "}
    assert compiler.source_hash(changed) != compiler.source_hash(sources)


def test_what_does_not_compile_is_an_error(tmp_path: Path) -> None:
    root = tmp_path / "contracts"
    (root / "src").mkdir(parents=True)
    (root / "solc").symlink_to(CONTRACTS_ROOT / "solc")
    (root / "foundry.toml").write_text((CONTRACTS_ROOT / "foundry.toml").read_text())
    (root / "src" / "BudgetPool.sol").write_text("pragma solidity 0.8.37; contract BudgetPool { uint x = ; }")
    with pytest.raises(compiler.CompileError, match="Expected primary expression"):
        compiler.compile_contract("BudgetPool", root)


def test_the_lock_serves_every_platform_and_names_no_registry() -> None:
    text = (ROOT / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    for tool in ("anvil", "forge"):
        entries = {name: entry for name, entry in packages.items() if f"/@foundry-rs/{tool}-" in name}
        wanted = packages[f"node_modules/@foundry-rs/{tool}"]["optionalDependencies"]
        assert {name.removeprefix("node_modules/") for name in entries} == set(wanted)
        assert {(entry["os"][0], entry["cpu"][0]) for entry in entries.values()} == {
            ("darwin", "arm64"),
            ("darwin", "x64"),
            ("linux", "arm64"),
            ("linux", "x64"),
            ("win32", "x64"),
        }
        assert all(
            entry["optional"] and entry["version"] == wanted[name.removeprefix("node_modules/")]
            for name, entry in entries.items()
        )
    assert "resolved" not in text
    assert "registry." not in text
