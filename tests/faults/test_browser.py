"""Row 41 with a real browser, where there is one: a double click, two people, and the way back. `test_desk` needs none."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from escrow.models import Dispute
from tests.escrow import books
from tests.faults import chromium
from tests.faults.chromium import Chromium, Page
from tests.faults.test_desk import check_ruled_once, dispute, world
from tests.lane.servers import Server, serving

__all__ = ["dispute", "world"]

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        chromium.PROGRAM is None or not os.environ.get("FULL"),
        reason="needs Chromium, and FULL=1: it takes long to start",
    ),
    pytest.mark.timeout(300),
]
BUTTON = "input[value='Rule, finally']"


@pytest.fixture
def server(dispute: Dispute) -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    with Chromium(tmp_path / "profile") as running:
        yield running


def at_the_desk(name: str, browser: Chromium, server: Server, dispute: Dispute) -> Page:
    """A person who has signed in, with the dispute before her and her ruling written down."""
    client = Client()
    client.force_login(User.objects.create_superuser(name, password="a long enough word"))
    address = reverse("admin:escrow_dispute_change", args=[dispute.pk])
    page = browser.page(f"http://127.0.0.1:{server.port}{address}", sessionid=client.cookies["sessionid"].value)
    page.fill(to_provider_percent="70", reason=f"{name} says so.")
    return page


def test_in_a_browser_a_double_click_is_one_ruling_and_the_way_back_leads_to_no_other(
    dispute: Dispute, server: Server, browser: Chromium
) -> None:
    ada = at_the_desk("ada", browser, server, dispute)
    bob = at_the_desk("bob", browser, server, dispute)
    ada.click(BUTTON, times=2)
    ada.until(f"document.readyState == 'complete' && !document.querySelector({BUTTON!r})")
    check_ruled_once(dispute, to_provider_micros=1_680_000, ruled_by="ada", ruling_reason="ada says so.")
    with books.unmoved():
        bob.click(BUTTON)
        bob.until("document.body.innerText.includes('cannot become')")
        ada.back()
        if ada.run(f"!!document.querySelector({BUTTON!r})"):
            ada.fill(to_provider_percent="10", reason="After all not.")
            ada.click(BUTTON)
            ada.until("document.body.innerText.includes('cannot become')")
    check_ruled_once(dispute, to_provider_micros=1_680_000, ruled_by="ada", ruling_reason="ada says so.")
