"""Every reason that the contract can give is given in one of its own tests, and every verb is called there."""

from __future__ import annotations

import re

from escrow.chain.artifacts import CONTRACTS_ROOT, load_artifact

# OpenZeppelin's, which nothing can bring about: of a longer EIP-712 name, and of a call to an account without code.
UNREACHABLE = {"InvalidShortString", "StringTooLong", "AddressEmptyCode"}


def in_the_tests() -> str:
    return "\n".join(path.read_text() for path in sorted((CONTRACTS_ROOT / "test").glob("*.sol")))


def named(kind: str) -> set[str]:
    return {entry["name"] for entry in load_artifact("BudgetPool").abi if entry["type"] == kind}


def test_every_error_is_brought_about_by_name() -> None:
    text = in_the_tests()
    assert {name for name in named("error") if f".{name}.selector" not in text} == UNREACHABLE


def test_every_event_is_expected_word_for_word() -> None:
    text = in_the_tests()
    inherited = {"EIP712DomainChanged"}
    assert {name for name in named("event") if f"emit IBudgetPool.{name}(" not in text} == inherited


def test_every_function_is_called() -> None:
    text = in_the_tests()
    assert {name for name in named("function") if not re.search(rf"\bescrow\.{name}\b", text)} == set()
