"""`escrow.events`: recorded with the change, told in one order."""

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from django.db import connection, transaction

from escrow import events
from escrow.models import Event, EventMark
from tests.escrow import books

pytestmark = pytest.mark.django_db


def positions(**of: UUID) -> list[int]:
    return [event.pk for event in events.feed(**of, after=0, limit=1_000)]


def test_positions_are_in_the_order_of_recording() -> None:
    spending, to = books.session(), books.party()
    for _ in range(3):
        books.pay(spending, to, 1)
        events.publish_due()
    assert positions(party_id=to.pk) == sorted(Event.objects.filter(party_id=to.pk).values_list("pk", flat=True))
    assert len(positions(party_id=to.pk)) == 3
    assert events.publish_due() == events.publish_due()


def test_a_payment_is_told_to_both_sides_and_to_nobody_else() -> None:
    spending, to, other = books.session(), books.party(), books.party()
    payment = books.pay(spending, to, 8_000)
    events.publish_due()
    told = {
        (owner, event.type, event.subject_id, event.payload["amount"])
        for owner, key in (("payer_id", spending.pool.payer_id), ("party_id", to.pk))
        for event in events.feed(**{owner: key}, after=0, limit=9)
        if event.subject_type == "payment"
    }
    assert told == {(owner, "payment.created", payment.pk, "0.008") for owner in ("payer_id", "party_id")}
    assert not events.feed(party_id=other.pk, after=0, limit=9)


def test_a_reader_goes_on_from_where_it_was() -> None:
    spending, to = books.session(), books.party()
    made = [books.pay(spending, to, 1).pk for _ in range(5)]
    events.publish_due()
    seen, after = [], 0
    while page := list(events.feed(party_id=to.pk, after=after, limit=2)):
        seen += [event.subject_id for event in page]
        after = page[-1].pk
    assert seen == made


def test_what_is_not_published_is_not_told() -> None:
    to = books.party()
    books.pay(books.session(), to, 1)
    assert not events.feed(party_id=to.pk, after=0, limit=9)


@pytest.mark.django_db(transaction=True)
def test_a_reader_never_passes_over_a_slow_database_transaction() -> None:
    slow, quick, to = books.session(), books.session(), books.party()
    drawn, told = threading.Event(), threading.Event()

    def pay_slowly() -> None:
        try:
            with transaction.atomic():
                books.pay(slow, to, 1)
                drawn.set()
                assert told.wait(30)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as threads:
        paying = threads.submit(pay_slowly)
        assert drawn.wait(30)
        books.pay(quick, to, 2)
        for _ in range(3):
            events.publish_due()
        assert positions(party_id=to.pk) == []
        told.set()
        paying.result()
    events.publish_due()
    assert positions(party_id=to.pk) == list(
        Event.objects.filter(party_id=to.pk).order_by("pk").values_list("pk", flat=True)
    )
    assert len(positions(party_id=to.pk)) == 2


@pytest.mark.django_db(transaction=True)
def test_a_reader_beside_many_writers_sees_every_event_once_and_in_order() -> None:
    sessions, to = [books.session() for _ in range(4)], books.party()
    over = threading.Event()

    def pay(number: int) -> None:
        try:
            books.pay(sessions[number % 4], to, 1)
        finally:
            connection.close()

    def read() -> list[int]:
        seen: list[int] = []
        try:
            while True:
                is_last = over.is_set()
                events.publish_due()
                page = events.feed(party_id=to.pk, after=seen[-1] if seen else 0, limit=7)
                found = [event.pk for event in page]
                seen += found
                if is_last and not found:
                    return seen
        finally:
            connection.close()

    with ThreadPoolExecutor(9) as threads:
        reading = threads.submit(read)
        list(threads.map(pay, range(120)))
        over.set()
        seen = reading.result()
    assert seen == list(Event.objects.filter(party_id=to.pk).order_by("pk").values_list("pk", flat=True))
    assert len(seen) == 120


def test_a_mark_from_another_server_is_taken_up_anew() -> None:
    to = books.party()
    books.pay(books.session(), to, 1)
    EventMark.objects.update(pending_xid=2**62)
    events.publish_due()
    assert len(positions(party_id=to.pk)) == 1
