"""The admin's pages of the chain: what needs a person comes first, and a person mends it once, with a reason, on record."""

import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from escrow.models import Attempt, ChainAction, ChainCursor, Pulse, Remedy, Setback, SignerNonce, Transfer

pytestmark = pytest.mark.django_db
LIST = "admin:escrow_chainaction_changelist"
ADDRESS = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
PASSWORD = "a long enough word"
WHY = {"reason": "The node was down.", "seen": "0"}


@pytest.fixture
def boss(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("ada", password=PASSWORD))
    return client


def make(name: str, status: str, *, age: int = 0, outcome: str = "", **fields: Any) -> ChainAction:
    made = ChainAction.objects.create(
        kind="withdraw",
        status=status,
        dedupe_key=name,
        error=f"<{name}>",
        created_at=timezone.now() - timedelta(seconds=age),
        **fields,
    )
    if outcome:
        Attempt.objects.create(action=made, tx_hash=f"0x{name}", raw=b"", max_fee_wei=5, tip_wei=1, outcome=outcome)
    return made


def listed(client: Client, **query: str) -> list[str]:
    page = client.get(reverse(LIST), query).content.decode()
    return re.findall(r"&lt;(\w+)&gt;", page)


def page_of(subject: Any, kind: str) -> str:
    return reverse(f"admin:escrow_{subject._meta.model_name}_remedy", args=[subject.pk, kind])


def test_unknown_comes_first_then_parked_then_reverted_then_what_waits_longest(boss: Client) -> None:
    make("young", "planned", age=1)
    make("old", "broadcast", age=5_000, outcome="ok")
    make("reverted", "reverted", mined_at=timezone.now())
    make("longago", "reverted", mined_at=timezone.now() - timedelta(days=2))
    make("parked", "parked", age=9)
    make("ended", "final", age=9_999)
    make("lost", "broadcast", age=2, outcome="unknown")
    first = ["lost", "parked", "reverted", "old", "young"]
    assert listed(boss) == first
    assert listed(boss, show="unknown") == ["lost"]
    assert listed(boss, show="stuck") == ["old"]
    assert listed(boss, show="flying") == ["lost", "old"]
    assert listed(boss, older_than="300") == ["old"]
    assert listed(boss, older_than="nonsense") == first
    assert sorted(listed(boss, show="all")) == sorted([*first, "longago", "ended"])
    assert listed(boss, q="ended") == ["ended"]


def test_an_actions_page_has_its_attempts_with_outcomes_and_what_may_be_done(boss: Client) -> None:
    of = make("lost", "broadcast", outcome="underpriced")
    page = boss.get(reverse("admin:escrow_chainaction_change", args=[of.pk])).content.decode()
    assert "its fee is too low" in page
    for kind in ("rebroadcast", "bump", "release"):
        assert page_of(of, kind) in page
    assert page_of(of, "retry") not in page


def test_a_remedy_asks_why_acts_once_and_stays_on_record(boss: Client) -> None:
    of = make("stuck", "broadcast")
    address = page_of(of, "bump")
    assert 'name="seen" value="0"' in boss.get(address).content.decode()
    for reason in ("", "   ", "x" * 1_001):
        assert boss.post(address, {**WHY, "reason": reason}).status_code == 200
    assert not Remedy.objects.exists()
    assert boss.post(address, WHY).status_code == 302
    of.refresh_from_db()
    assert of.params == {"bump": True}
    done = Remedy.objects.get()
    assert (done.kind, done.by, done.reason, done.action) == ("bump", "ada", "The node was down.", of)
    again = boss.post(address, WHY)
    assert (again.status_code, "Already done by ada" in again.content.decode()) == (200, True)
    assert f'value="{done.pk}"' in boss.get(address).content.decode()
    assert "The node was down." in boss.get(reverse("admin:escrow_chainaction_change", args=[of.pk])).content.decode()
    assert (Remedy.objects.count(), Transfer.objects.count()) == (1, 0)


def test_what_is_not_open_to_a_row_is_refused_on_its_page(boss: Client) -> None:
    of = make("done", "final")
    answer = boss.post(page_of(of, "release"), WHY)
    assert (answer.status_code, "nothing of it waits for a block" in answer.content.decode()) == (200, True)
    assert boss.get(page_of(of, "explode")).status_code == 404
    of.refresh_from_db()
    assert (of.params, Remedy.objects.count()) == ({}, 0)


def test_signers_cursors_and_setbacks_have_their_remedies(boss: Client, settings: Any) -> None:
    settings.CHAIN_ID = 31337
    now = timezone.now()
    signer = SignerNonce.objects.create(chain_id=31337, address=ADDRESS, next_nonce=3, stopped_reason="Foreign.")
    signers = {ADDRESS: {"balance_wei": str(15 * 10**17), "nonce": 5}}
    Pulse.objects.create(worker="w", at=now, chain_id=31337, signers=signers)
    page = boss.get(reverse("admin:escrow_signernonce_changelist")).content.decode()
    for text in ("Foreign.", "1.500000000", ">5<", ADDRESS):
        assert text in page
    assert boss.post(page_of(signer, "clear_signer"), {**WHY, "adopt_nonce": "on"}).status_code == 302
    signer.refresh_from_db()
    assert (signer.stopped_reason, signer.next_nonce) == ("", 5)
    cursor = ChainCursor.objects.create(
        chain_id=31337,
        contract_address="0x1",
        block_number=4,
        block_hash="0x2",
        block_time=now,
        read_at=now,
        stopped_reason="Gone.",
    )
    assert boss.post(page_of(cursor, "clear_cursor"), WHY).status_code == 302
    cursor.refresh_from_db()
    assert cursor.stopped_reason == ""
    back = Setback.objects.create(sweep="holds", subject="1", failures=12, error="boom", parked_at=now)
    assert boss.post(page_of(back, "try_again"), WHY).status_code == 302
    back.refresh_from_db()
    assert back.parked_at is None
    back.delete()
    assert boss.post(page_of(Setback(pk=back.pk), "try_again"), WHY).status_code == 302
    assert [of.kind for of in Remedy.objects.order_by("pk")] == ["clear_signer", "clear_cursor", "try_again"]


def test_who_may_only_look_does_nothing(client: Client) -> None:
    clerk = User.objects.create_user("bob", password=PASSWORD, is_staff=True)
    client.force_login(clerk)
    of = make("stuck", "broadcast")
    address = page_of(of, "bump")
    assert (client.get(address).status_code, client.post(address, WHY).status_code) == (403, 403)
    clerk.user_permissions.add(Permission.objects.get(codename="view_chainaction"))
    assert "not do anything about it" in client.get(address).content.decode()
    assert client.post(address, WHY).status_code == 403
    clerk.user_permissions.add(Permission.objects.get(codename="change_chainaction"))
    assert client.post(reverse("admin:escrow_chainaction_change", args=[of.pk]), {"status": "final"}).status_code == 403
    of.refresh_from_db()
    assert (of.status, of.params, Remedy.objects.count()) == ("broadcast", {}, 0)
    assert client.post(address, WHY).status_code == 302
    assert Remedy.objects.get().by == "bob"


def test_nobody_outside_sees_it(client: Client) -> None:
    of = make("stuck", "broadcast")
    assert client.post(page_of(of, "bump"), WHY).status_code == 302
    assert not Remedy.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_two_people_at_once_have_one_outcome() -> None:
    of = make("stuck", "broadcast")
    people = []
    for name in ("ada", "bob"):
        people.append(Client())
        people[-1].force_login(User.objects.create_superuser(name, password=PASSWORD))
    together = Barrier(2)

    def click(person: Client) -> int:
        try:
            together.wait(10)
            return person.post(page_of(of, "bump"), WHY).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as both:
        assert sorted(both.map(click, people)) == [200, 302]
    assert Remedy.objects.count() == 1


@pytest.fixture
def browser() -> Iterator[Any]:
    """A real browser; where there is none, the tests above say the same of the requests that it would send."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("needs Chromium")
    before = os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"  # its loop runs in this thread
    try:
        with playwright.sync_playwright() as driver:
            opened = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
            yield opened
            opened.close()
    finally:
        os.environ.pop("DJANGO_ALLOW_ASYNC_UNSAFE")
        if before is not None:
            os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = before


def sign_in(browser: Any, url: str, name: str) -> Any:
    User.objects.create_superuser(name, password=PASSWORD)
    page = browser.new_context().new_page()
    page.goto(f"{url}/admin/login/")
    page.fill("#id_username", name)
    page.fill("#id_password", PASSWORD)
    page.click("input[type=submit]")
    return page


@pytest.mark.django_db(transaction=True)
def test_a_double_click_and_a_second_window_and_the_back_button_in_a_browser(live_server: Any, browser: Any) -> None:
    of = make("stuck", "broadcast")
    ada, bob = (sign_in(browser, live_server.url, name) for name in ("ada", "bob"))
    for page in (ada, bob):
        page.goto(live_server.url + page_of(of, "bump"))
        page.fill("#id_reason", "The fee is too low.")
    ada.dblclick("input[value=Bump]")
    ada.wait_for_selector("text=/Already done by ada|One replacement/")
    assert Remedy.objects.count() == 1
    bob.click("input[value=Bump]")
    bob.wait_for_selector(".errorlist")
    assert "Already done by ada" in bob.content()
    ada.goto(live_server.url + page_of(of, "bump"))
    ada.go_back()
    ada.go_forward()
    assert "Last done by ada" in ada.content()
    assert Remedy.objects.count() == 1
