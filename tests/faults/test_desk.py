"""Row 41: the ruling desk, pressed twice, by two people, and again from the browser's history. One ruling comes of it."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from escrow import disputes, invoices, ledger
from escrow.models import Dispute, Event, Transfer
from tests.escrow import books
from tests.marketplace.conftest import World, make_world

pytestmark = pytest.mark.django_db(transaction=True)

AMOUNT = 2_400_000
PATIENCE = 30


@pytest.fixture
def world(transactional_db: None) -> World:
    return make_world()


@pytest.fixture
def dispute(world: World) -> Dispute:
    """A rejected invoice of 2.40 that both sides have spoken on."""
    now = timezone.now()
    held = books.hold(world.a.session, world.one.provider.party, AMOUNT)
    invoice = books.invoice(held, AMOUNT)
    invoices.reject(invoice=invoice, reason="It is empty.", now=now)
    invoice.refresh_from_db()
    opened = disputes.open_for_invoice(invoice=invoice, reason="It is empty.", now=now)
    return disputes.answer(dispute=opened, answer="It was asked for.", now=now)


class Browser:
    """A person who is signed in and looks at the desk: what is sent is the form of the page that was loaded then."""

    def __init__(self, name: str, dispute: Dispute) -> None:
        self.client = Client(enforce_csrf_checks=True)
        self.client.force_login(User.objects.create_superuser(name, password="a long enough word"))
        self.address = reverse("admin:escrow_dispute_change", args=[dispute.pk])
        page = self.client.get(self.address).content.decode()
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
        assert found is not None
        self.token = found[1]

    def press(self, percent: str) -> tuple[int, str]:
        """Press "Rule" on the page that is open; return the status, and what the page says."""
        form = {"csrfmiddlewaretoken": self.token, "to_provider_percent": percent, "reason": f"{percent} were there."}
        answer = self.client.post(self.address, form)
        return answer.status_code, answer.content.decode()


def at_once(*presses: tuple[Browser, str]) -> list[tuple[int, str]]:
    gate = threading.Barrier(len(presses))

    def press(one: tuple[Browser, str]) -> tuple[int, str]:
        browser, percent = one
        try:
            gate.wait(PATIENCE)
            return browser.press(percent)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(presses)) as threads:
        return list(threads.map(press, presses))


def check_ruled_once(dispute: Dispute, **expected: Any) -> None:
    dispute.refresh_from_db()
    assert {name: getattr(dispute, name) for name in expected} == expected
    assert (dispute.status, ledger.balance(dispute.account)) == ("ruled", 0)
    moved = Transfer.objects.filter(sender=dispute.account).values_list("amount_micros", flat=True)
    share = dispute.to_provider_micros or 0
    assert sorted(moved) == sorted(part for part in (share, AMOUNT - share) if part)
    told = Event.objects.filter(type="dispute.ruled", subject_id=dispute.pk)  # one event, for both sides
    assert told.count() == 1
    books.check_conservation()


@pytest.mark.parametrize("times", [2, 5])
def test_a_button_that_is_pressed_twice_rules_once(dispute: Dispute, times: int) -> None:
    ada = Browser("ada", dispute)
    answers = at_once(*[(ada, "70")] * times)
    assert sorted(status for status, _ in answers) == [200] * (times - 1) + [302]
    assert all("cannot become" in page for status, page in answers if status == 200)
    check_ruled_once(dispute, to_provider_micros=1_680_000, ruled_by="ada", ruling_reason="70 were there.")


def test_two_people_who_rule_at_once_are_one_ruling_and_the_second_is_told(dispute: Dispute) -> None:
    ada, bob = Browser("ada", dispute), Browser("bob", dispute)
    answers = at_once((ada, "70"), (bob, "20"))
    assert sorted(status for status, _ in answers) == [200, 302]
    winner, percent, micros = ("ada", "70", 1_680_000) if answers[0][0] == 302 else ("bob", "20", 480_000)
    assert "cannot become" in next(page for status, page in answers if status == 200)
    check_ruled_once(dispute, to_provider_micros=micros, ruled_by=winner, ruling_reason=f"{percent} were there.")


def test_a_form_from_the_browser_s_history_rules_nothing_again(dispute: Dispute) -> None:
    ada, bob = Browser("ada", dispute), Browser("bob", dispute)
    assert ada.press("70")[0] == 302
    with books.unmoved():
        for late, percent in ((ada, "70"), (ada, "0"), (bob, "100")):
            status, page = late.press(percent)
            assert (status, "cannot become" in page) == (200, True)
        fresh = ada.client.get(ada.address).content.decode()
        assert "Rule, finally" not in fresh  # the page of today offers nothing to press
    check_ruled_once(dispute, to_provider_micros=1_680_000, ruled_by="ada", ruling_reason="70 were there.")
