"""The page about policies is true: its documents are read, its refusal is the one that comes, its tables leave nothing out."""

import json
import re
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import pytest

from escrow import ap2, policy, recipients
from escrow.errors import InvalidPolicy, PolicyDenied
from escrow.policy import Policy

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "policy.md").read_text(encoding="utf-8")
DOCUMENTS = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def rows(heading: str) -> list[list[str]]:
    """The rows of the first table under a heading, without its head."""
    table = re.search(r"^\|.*?(?=^$)", PAGE[PAGE.index(f"## {heading}\n") :], re.MULTILINE | re.DOTALL)
    assert table is not None
    lines = [line.strip("| ").split(" | ") for line in table[0].splitlines()]
    return [[cell.strip() for cell in cells] for cells in lines[2:]]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_page_has_documents() -> None:
    assert len(DOCUMENTS) == 6


@pytest.mark.parametrize("text", DOCUMENTS)
def test_each_document_of_the_page_is_read(text: str) -> None:
    read = Policy.from_document(json.loads(text))
    assert read != Policy()
    assert Policy.from_document(read.to_document()) == read


def test_the_documents_show_every_key() -> None:
    shown: set[str] = set()
    for text in DOCUMENTS:
        shown |= Policy.from_document(json.loads(text)).to_document().keys()
    assert shown == {field.name for field in fields(Policy)}


def test_the_table_has_every_key_once() -> None:
    listed = [name for row in rows("The keys") for name in names(row[0])]
    assert sorted(listed) == sorted(field.name for field in fields(Policy))


def test_the_rules_are_listed_in_their_order() -> None:
    listed = [name for row in rows("What is checked where") for name in names(row[0])]
    assert sorted(listed) == sorted(field.name for field in fields(Policy) if field.name != "checkpoint_at")


def test_the_patterns_mean_what_the_table_says() -> None:
    for pattern, means, means_not in rows("Recipients and wildcards"):
        assert all(recipients.matches(names(pattern)[0], agent) for agent in names(means))
        assert not any(recipients.matches(names(pattern)[0], agent) for agent in names(means_not))


def test_the_refusal_is_the_one_that_comes() -> None:
    (text,) = re.findall(r"^```json refusal\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    shown = json.loads(text)
    limits = Policy.from_document({"windows": shown["limit"]})
    with pytest.raises(PolicyDenied) as caught:
        policy.check(limits, to="agent://lint.acme.dev", capability=None, now=datetime(2026, 3, 29, 1, tzinfo=UTC))
    assert caught.value.facts == shown
    assert caught.value.retryable


def test_the_constraints_are_listed_with_our_keys() -> None:
    assert {names(row[0])[0]: names(row[1])[0] for row in rows("In the words of AP2")} == ap2.ALIASES


def test_every_constraint_that_is_refused_by_name_is_listed() -> None:
    listed = set(names(PAGE[PAGE.index("every other constraint is refused") :]))
    assert listed == set(ap2._REFUSED)
    for name in listed:
        with pytest.raises(InvalidPolicy, match=f"names {name}, a constraint that is not checked here"):
            Policy.from_document({name: {}})
