"""What docs/api.md says is what the API does."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from marketplace.api.problems import KINDS
from marketplace.api.queries import TaskStatus
from marketplace.models import Scope
from tests.marketplace.conftest import World

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text(encoding="utf-8")


def rows_under(title: str) -> list[list[str]]:
    """Return the cells of the table under a heading, without its head."""
    section = PAGE.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    table = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in table[2:]]


def test_the_table_of_codes_has_each_under_its_status() -> None:
    listed: dict[str, set[int]] = {}
    for statuses, codes in rows_under("Refusals"):
        names = re.sub(r"\(.*?\)", "", codes)
        for code in re.findall(r"`(\w+)`", names):
            listed[code] = {int(status) for status in statuses.split(", ")}
    assert set(listed) == set(KINDS)
    assert all(kind.status in listed[code] for code, kind in KINDS.items())


def test_the_table_of_task_statuses_is_whole() -> None:
    listed = {row[0].strip("`") for row in rows_under("A task and its money")}
    assert listed == set(get_args(TaskStatus)) - {"cancelled", "expired"}


def test_the_table_of_scopes_is_whole() -> None:
    assert {row[0].strip("`") for row in rows_under("Keys")} == set(Scope)


@pytest.mark.django_db
def test_the_first_example_pays(world: World) -> None:
    found = re.search(r"-d '(.*?)'", PAGE)
    assert found is not None
    paid = world.a.by_session.post("/v1/payments", json.loads(found[1]))
    assert (paid.status, paid.json["remaining"], paid.json["status"]) == (201, "24.988", "payable")


@pytest.mark.django_db
def test_the_example_of_a_refusal_is_a_real_one(world: World) -> None:
    opened = world.a.by_payer.post("/v1/sessions", {"budget": "1.00", "policy": {"max_per_tx": "0.50"}}).json
    caller = type(world.nobody)(opened["api_key"])
    refused = caller.post("/v1/payments", {"to": "agent://lint.acme.dev", "amount": "0.51"}).json
    for member in ("title", "detail", "code", "rule", "limit", "would_allow", "retryable", "outcome"):
        assert f'"{member}": {json.dumps(refused[member])}' in PAGE
    assert refused["next_actions"][0]["why"] in PAGE
