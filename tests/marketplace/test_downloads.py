"""A session's ledger as CSV: the lines of the JSON pages, all of them, and no formula among them."""

import csv
import io
import re

import pytest
from django.test import Client

from escrow import ledger
from escrow.ledger import Move
from escrow.models import Reason
from marketplace.api import downloads, sessions
from tests.marketplace.client import Answer, document
from tests.marketplace.conftest import World

pytestmark = pytest.mark.django_db

CSV = {"Accept": "text/csv"}


def path_of(world: World) -> str:
    return f"/v1/sessions/{world.a.session.pk}/ledger"


def lines(answer: Answer) -> list[list[str]]:
    """Return the cells, as a reader of CSV sees them."""
    return list(csv.reader(io.StringIO(answer.raw.decode(), newline="")))


def spend(world: World, times: int) -> None:
    """Post transfers from and to the session, as payments and refunds do."""
    own, owed = world.a.session.account, ledger.payable(world.a.pool, world.one.provider.party)
    for number in range(times):
        ledger.post([Move(own, owed, 1_000 + number, Reason.PAYMENT, f"p-{number}")])
    ledger.post([Move(owed, own, 1_000, Reason.REFUND, "p-0")])


def test_it_has_the_lines_and_the_columns_of_the_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "PAGE", 3)
    spend(world, 7)
    answer = world.a.by_session.get(path_of(world), **CSV)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/csv; charset=utf-8")
    assert answer.headers["Content-Disposition"] == f'attachment; filename="session-{world.a.session.pk}.csv"'
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["RateLimit-Policy"].startswith('"calls";')
    head, *rows = lines(answer)
    assert head == ["id", "at", "reason", "amount", "counterparty", "ref"]
    items = world.a.by_session.get(f"{path_of(world)}?limit=200").json["items"]
    assert rows == [[str(item[name]) for name in head] for item in items]
    assert [row[3] for row in rows] == ["0.001", *(f"-0.00100{n}" for n in (6, 5, 4, 3, 2, 1)), "-0.001", "25.00"]
    assert answer.raw.count(b"\r\n") == answer.raw.count(b"\n") == 10


def test_a_page_is_read_when_the_one_before_it_is_written(
    world: World, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries
) -> None:
    monkeypatch.setattr(sessions, "PAGE", 2)
    spend(world, 7)
    pages = sessions._all_lines(world.a.session)
    for held in (2, 2, 2, 2, 1):
        with django_assert_num_queries(2):
            assert len(list(next(pages))) == held
    assert next(pages, None) is None


@pytest.mark.parametrize("begin", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_text_that_a_spreadsheet_takes_for_a_formula_has_a_quote_before_it(world: World, begin: str) -> None:
    own, owed = world.a.session.account, ledger.payable(world.a.pool, world.one.provider.party)
    ledger.post([Move(own, owed, 12_000, Reason.PAYMENT, f'{begin},"x"')])
    row = lines(world.a.by_payer.get(path_of(world), **CSV))[1]
    assert row[5] == f'\'{begin},"x"'
    assert row[3] == "-0.012", "an amount is a number"


@pytest.mark.parametrize("query", ["limit=10", "cursor=AAAA", "limit=10&cursor=AAAA"])
def test_pages_do_not_go_with_it(world: World, query: str) -> None:
    answer = world.a.by_session.get(f"{path_of(world)}?{query}", **CSV)
    assert (answer.status, answer.json["errors"][0]["would_pass"]) == (400, "no parameters")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/csv", "text/csv"),
        ("text/*", "text/csv"),
        ("text/html, text/csv", "text/csv"),
        ("text/csv, */*;q=0.1", "text/csv"),
        ("*/*", "application/json"),
        ("application/json, text/csv", "application/json"),
        ("text/html", "application/problem+json"),
    ],
)
def test_who_accepts_what_gets_what(world: World, accept: str, kind: str) -> None:
    answer = world.a.by_session.get(path_of(world), Accept=accept)
    assert answer.headers["Content-Type"].partition(";")[0] == kind
    assert answer.status == (406 if "problem" in kind else 200)


def test_only_the_ledger_is_spoken_in_it(world: World) -> None:
    refused = world.a.by_session.get("/v1/me", **CSV)
    assert (refused.status, refused.json["code"]) == (406, "not_acceptable")
    offered = world.a.by_session.get(path_of(world), Accept="image/png").json["detail"]
    assert "application/json or text/csv" in offered
    spoken = {
        path
        for path, methods in document()["paths"].items()
        for operation in methods.values()
        for response in operation["responses"].values()
        if "text/csv" in response.get("content", {})
    }
    assert spoken == {"/v1/sessions/{session_id}/ledger"}


def test_it_is_the_callers_own(world: World) -> None:
    for stranger in (world.b.by_payer, world.b.by_session):
        assert stranger.get(path_of(world), **CSV).status == 404
    assert world.one.by_provider.get(path_of(world), **CSV).status == 403
    assert world.nobody.get(path_of(world), **CSV).status == 401


def test_so_many_are_written_at_once_and_room_is_made_however_one_ends(world: World, settings) -> None:
    headers = {"Authorization": f"Bearer {world.a.by_session.key}", **CSV}
    begun = [Client().get(path_of(world), headers=headers) for _ in range(settings.CSV_AT_ONCE)]
    refused = world.a.by_session.get(path_of(world), **CSV)
    assert (refused.status, refused.json["code"], refused.headers["Retry-After"]) == (503, "unavailable", "5")
    assert world.a.by_session.get(path_of(world)).status == 200
    for response in begun:
        assert re.match(rb"id,at,", b"".join(response.streaming_content))
    for _ in range(settings.CSV_AT_ONCE + 1):
        cut = downloads.Download("x", ["a"], [[["1"]]])
        assert next(cut) == b"a\r\n"
        cut.close()
        cut.close()
    for _ in range(settings.CSV_AT_ONCE + 1):
        assert world.a.by_session.get(path_of(world), **CSV).status == 200
    assert downloads._room._value == settings.CSV_AT_ONCE
