"""The pages of remedies: each for its own rows, with what to know first, and a refusal that says what would pass."""

import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from escrow import gas, outlook, remedies
from escrow.chain.outcomes import SendOutcome
from escrow.models import Attempt, Batch, ChainAction, ChainCursor, Pulse, Remedy, Setback, SignerNonce
from tests.escrow import books
from tests.escrow.books import unmoved
from tests.escrow.test_chain_admin import ADDRESS, LIST, WHY, boss, make, page_of

__all__ = ["boss"]

pytestmark = pytest.mark.django_db
BUTTON = '<input type="submit"'


def text(answer: Any) -> str:
    """What a page says, without its marks."""
    assert answer.status_code == 200
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", "", answer.content.decode())))


def signer(stopped: str = "Nonce 6 is foreign.") -> SignerNonce:
    return SignerNonce.objects.create(chain_id=31337, address=ADDRESS, next_nonce=7, stopped_reason=stopped)


def cursor(stopped: str = "Gone.") -> ChainCursor:
    now = timezone.now()
    block = {"block_number": 4, "block_hash": "0x2", "block_time": now, "read_at": now}
    return ChainCursor.objects.create(chain_id=31337, contract_address="0x1", stopped_reason=stopped, **block)


def setback() -> Setback:
    return Setback.objects.create(sweep="holds", subject="1", failures=12, error="boom", parked_at=timezone.now())


ROWS: dict[str, Callable[[], Any]] = {
    "chainaction": lambda: make("row", "broadcast"),
    "signernonce": signer,
    "chaincursor": cursor,
    "setback": setback,
}


def test_every_remedy_is_one_of_some_row() -> None:
    assert sorted(kind for kinds in remedies.OF.values() for kind in kinds) == sorted(Remedy.Kind)


@pytest.mark.parametrize("model", ROWS)
def test_a_row_has_pages_of_its_own_remedies_only(boss: Client, model: str) -> None:
    row = ROWS[model]()
    for kind in Remedy.Kind:
        there = 200 if kind in remedies.OF[type(row)] else 404
        assert (kind, boss.get(page_of(row, kind)).status_code) == (kind, there)
        if there == 404:
            with unmoved():
                assert boss.post(page_of(row, kind), WHY).status_code == 404
    assert not Remedy.objects.exists()


def test_a_remedy_that_is_not_open_says_how_the_row_stands_and_what_is_open(boss: Client) -> None:
    of = make("flying", "broadcast")
    for answer in (boss.get(page_of(of, "retry")), boss.post(page_of(of, "retry"), WHY)):
        assert "It is broadcast now; open to it: Rebroadcast, Bump, Release." in text(answer)
        assert BUTTON not in answer.content.decode()
        for kind in ("rebroadcast", "bump", "release"):
            assert f'href="{page_of(of, kind)}"' in answer.content.decode()
    of.refresh_from_db()
    assert (of.status, of.params, Remedy.objects.count()) == ("broadcast", {}, 0)


@pytest.mark.parametrize("kind", ["settle", "open_pool"])
def test_a_retry_of_what_was_never_parked_does_not_say_that_it_was(boss: Client, kind: str) -> None:
    of = make("done", "final")
    ChainAction.objects.filter(pk=of.pk).update(kind=kind)
    with unmoved():
        said = text(boss.post(page_of(of, "retry"), WHY))
    assert "is final: only one that is parked or has reverted is planned again" in said
    assert "It is final now; open to it: nothing." in said
    assert "given up" not in said
    assert not Remedy.objects.exists()


def test_a_signer_and_an_indexer_that_run_have_nothing_to_clear(boss: Client) -> None:
    for row, kind in ((signer(""), "clear_signer"), (cursor(""), "clear_cursor")):
        page = boss.get(page_of(row, kind))
        assert ("It is running now; open to it: nothing." in text(page), BUTTON in page.content.decode()) == (
            True,
            False,
        )


@pytest.mark.parametrize("number", ["9999", "abc", "9" * 40])
def test_a_row_that_never_was_is_not_said_to_be_stuck_no_more(boss: Client, number: str) -> None:
    address = reverse("admin:escrow_chainaction_remedy", args=[number, "bump"])
    for answer in (boss.get(address, follow=True), boss.post(address, WHY, follow=True)):
        assert f"There is no chain action {number}." in text(answer)
        assert "not stuck" not in text(answer)
    back = reverse("admin:escrow_setback_remedy", args=[number, "try_again"])
    assert f"There is no setback {number}. A setback goes when a step" in text(boss.get(back, follow=True))
    assert not Remedy.objects.exists()


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"reason": ""}, "reason must say something: 1 to 1,000 characters that are not all blank."),
        ({"reason": "  \n "}, "reason must say something: 1 to 1,000 characters that are not all blank."),
        ({"reason": "x" * 1_001}, "reason may have at most 1000 characters, and this has 1001: say it in fewer."),
        ({"seen": "x1"}, "seen, which the page sends by itself, must be the number of the newest remedy"),
        ({"seen": ""}, "seen, which the page sends by itself, must be the number of the newest remedy"),
        ({"seen": "-1"}, "seen, which the page sends by itself, must be the number of the newest remedy"),
    ],
)
def test_a_form_that_is_refused_names_the_field_the_rule_and_what_would_pass(
    boss: Client, sent: dict[str, str], said: str
) -> None:
    of = make("flying", "broadcast")
    with unmoved():
        answer = boss.post(page_of(of, "bump"), WHY | sent)
    assert said in text(answer)
    assert 'name="seen" value="0"' in answer.content.decode()  # a spoilt one is mended: the same form passes now
    of.refresh_from_db()
    assert (of.params, Remedy.objects.count()) == ({}, 0)


def test_whoever_was_slower_is_told_and_can_open_the_page_anew(boss: Client) -> None:
    of = make("flying", "broadcast")
    boss.post(page_of(of, "bump"), WHY)
    told = boss.post(page_of(of, "bump"), WHY)
    assert re.search(r"Already done by ada at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ: One replacement", text(told))
    assert f'<a href="{page_of(of, "bump")}">Open this page anew</a>' in told.content.decode()
    assert Remedy.objects.count() == 1


def test_a_bump_is_decided_knowing_the_nonce_the_fees_and_what_waits(boss: Client, settings: Any) -> None:
    settings.CHAIN_ID = 31337
    now = timezone.now()
    Pulse.objects.create(worker="w1", at=now, chain_id=31337, gas_price_wei=3 * 10**9)
    of = make("low", "broadcast", signer_address=ADDRESS, nonce=7, gas_limit=100_000)
    behind = make("high", "broadcast", signer_address=ADDRESS, nonce=8)
    Attempt.objects.create(
        action=of, tx_hash="0xaa", raw=b"", max_fee_wei=2 * 10**9, tip_wei=10**9, outcome="ok", sent_at=now
    )
    page = boss.get(page_of(of, "bump"))
    for said in (
        f"7 of {ADDRESS}",
        "its nonce is the next one",
        f"1 chain action{behind}, nonce 8, broadcast",
        "0xaa, first sent",
        "2 gwei at most, of it 1 gwei as tip",
        "2.260000001 gwei at most, of it 1.130000001 gwei as tip, so up to 0.000226000 ETH for 100,000 gas",
        "3 gwei at most, as w1 saw it",
        "section ActionStuck",
    ):
        assert said in text(page)
    assert reverse("admin:escrow_chainaction_change", args=[behind.pk]) in page.content.decode()
    assert "for 21,000 gas" in text(boss.get(page_of(of, "release")))
    assert "1 chain action" in text(boss.get(page_of(behind, "bump")))  # what has to be mined before it


def test_the_least_that_is_offered_is_what_the_relay_offers_in_a_market_that_asks_for_less() -> None:
    last = Attempt(max_fee_wei=2_000, tip_wei=1_000)
    least = gas.least(last)
    assert (least.max_fee, least.tip) == (2_261, 1_131)


def test_a_stopped_signer_is_cleared_knowing_both_nonces_and_what_flies(boss: Client, settings: Any) -> None:
    settings.CHAIN_ID = 31337
    of = signer()
    assert "not known: no worker has looked" in text(boss.get(page_of(of, "clear_signer")))
    pulse = Pulse.objects.create(
        worker="w1", at=timezone.now(), chain_id=31337, signers={ADDRESS: {"balance_wei": "1", "nonce": 9}}
    )
    flying = make("flying", "mined", signer_address=ADDRESS, nonce=6)
    said = text(boss.get(page_of(of, "clear_signer")))
    for expected in (
        "Nonce 6 is foreign.",
        "9, 2 ahead of ours, as w1 saw it",
        f"{flying}, nonce 6, mined",
        "SignerStopped",
    ):
        assert expected in said
    assert "too long ago" not in said
    Pulse.objects.filter(pk=pulse.pk).update(at=timezone.now() - remedies.FRESH - timedelta(seconds=5))
    ChainAction.objects.update(status="final")
    said = text(boss.get(page_of(of, "clear_signer")))
    assert ("65 s ago, too long ago to be taken" in said, "the chain's nonce may be taken" in said) == (True, True)


def test_an_indexer_and_a_row_that_was_set_aside_show_why(boss: Client) -> None:
    for row, kind, expected in (
        (cursor(), "clear_cursor", ("Gone.", "block 4, 0x2", "IndexerStopped")),
        (setback(), "try_again", ("boom", "holds, 1", "12 times", "RowSetAside")),
    ):
        said = text(boss.get(page_of(row, kind)))
        assert [each for each in expected if each not in said] == []


def test_what_would_end_for_good_says_so_before_it_is_done(boss: Client) -> None:
    of = make("opening", "planned")
    assert "until a person has it planned again" in text(boss.get(page_of(of, "park")))
    ChainAction.objects.filter(pk=of.pk).update(kind="open_pool")
    assert "tells whoever asked for it that it failed, for good" in text(boss.get(page_of(of, "park")))
    ChainAction.objects.filter(pk=of.pk).update(kind="settle")
    assert "batches that it carries wait for another" in text(boss.get(page_of(of, "park")))
    ChainAction.objects.filter(pk=of.pk).update(kind="open_pool", status="parked")
    assert "Ends it. Nothing of it is planned again" in text(boss.get(page_of(of, "release")))


@pytest.mark.parametrize("kind", ["withdraw", "open_pool", "settle"])
@pytest.mark.parametrize("status", ChainAction.Status.values)
def test_every_status_says_what_comes_next_and_where_to_read_on(boss: Client, kind: str, status: str) -> None:
    of = make("row", status)
    ChainAction.objects.filter(pk=of.pk).update(kind=kind)
    page = boss.get(reverse("admin:escrow_chainaction_change", args=[of.pk])).content.decode()
    assert ">nothing<" not in page
    told = outlook.of(ChainAction.objects.get(), timezone.now())
    assert len(told.says) > 30
    runbook = (Path(__file__).parents[2] / outlook.RUNBOOK).read_text()
    assert f"\n## {told.section}\n" in runbook if told.section else status == "final"
    assert told.section in page


@pytest.mark.parametrize("row", [signer, cursor, setback, lambda: signer(""), lambda: cursor("")])
def test_every_other_row_does_so_too(row: Callable[[], Any]) -> None:
    told = outlook.of(row(), timezone.now())
    assert f"\n## {told.section}\n" in (Path(__file__).parents[2] / outlook.RUNBOOK).read_text()


def test_what_reverted_leads_to_what_took_its_place(boss: Client) -> None:
    of, after = make("payout", "reverted"), make("payout#1", "planned")
    page = boss.get(reverse("admin:escrow_chainaction_change", args=[of.pk])).content.decode()
    assert f'<a href="{reverse("admin:escrow_chainaction_change", args=[after.pk])}">{after}</a>' in page
    assert f"In its place: {after}, which is planned." in unescape(page)


def test_a_settlement_leads_to_what_carries_its_first_batch_now(boss: Client) -> None:
    pool = books.pool()
    account = books.session(pool).account
    batch = Batch.objects.create(
        pool=pool, account=account, first_seq=1, packed=b"", root="0x", signature=b"", deadline=timezone.now(), turns=2
    )
    of = make(f"settle:{batch.pk}:{uuid4()}", "dropped")
    ChainAction.objects.filter(pk=of.pk).update(kind="settle")
    page = boss.get(reverse("admin:escrow_chainaction_change", args=[of.pk])).content.decode()
    assert reverse("admin:escrow_batch_change", args=[batch.pk]) in page
    assert "in no chain action, turned down 2 times" in page
    after = make("settle:2", "broadcast")
    Batch.objects.update(action=after)
    page = boss.get(reverse("admin:escrow_chainaction_change", args=[of.pk])).content.decode()
    assert reverse("admin:escrow_chainaction_change", args=[after.pk]) in page
    assert f"In its place: {after}, which is broadcast." in page


def test_each_outcome_of_an_attempt_is_told_in_words() -> None:
    assert {"", Attempt.REPLACED, *(outcome.value for outcome in SendOutcome)} == set(outlook.OUTCOMES)


def test_the_list_shows_error_and_age_before_a_short_hash_and_times_to_the_second(boss: Client) -> None:
    tx = "0x" + "ab" * 32
    of = make("row", "broadcast", age=7_300, outcome="already_known", tx_hash=tx)
    ChainAction.objects.filter(pk=of.pk).update(error="e" * 500)
    page = boss.get(reverse(LIST)).content.decode()
    columns = re.findall(r'<t[dh][^>]*class="[^"]*field-(\w+)', page)
    assert columns[:5] == ["id", "kind", "status", "last_outcome", "why"]
    assert columns.index("age") < columns.index("attempts") < columns.index("hash")
    said = text(boss.get(reverse(LIST)))
    assert ("a node has it already" in said, "already_known" in said, "2 h" in said) == (True, False, True)
    assert (f'<span title="{tx}">{tx[:10]}…</span>' in page, tx in said, "e" * 161 in said) == (True, False, False)
    assert re.search(r"field-created_at[^>]*>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ<", page)
    assert tx in text(boss.get(reverse("admin:escrow_chainaction_change", args=[of.pk])))
