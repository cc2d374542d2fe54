"""`escrow.events`: recorded with the change, told in one order."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from escrow import events
from escrow.models import Event
from tests.escrow import books

pytestmark = pytest.mark.django_db


def test_positions_are_dense_and_in_the_order_of_recording() -> None:
    spending, to = books.session(), books.party()
    books.pay(spending, to, 1)
    first = Event.objects.count()
    assert events.publish() == first
    books.pay(spending, to, 1)
    assert events.publish() == 1
    assert events.publish() == 0
    assert list(Event.objects.order_by("id").values_list("position", flat=True)) == list(range(1, first + 2))


def test_a_payment_is_told_to_both_sides_and_to_nobody_else() -> None:
    spending, to, other = books.session(), books.party(), books.party()
    payment = books.pay(spending, to, 8_000)
    events.publish()
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
    events.publish()
    seen, after = [], 0
    while page := list(events.feed(party_id=to.pk, after=after, limit=2)):
        seen += [event.subject_id for event in page]
        after = page[-1].position or 0
    assert seen == made


def test_what_is_not_published_is_not_told() -> None:
    to = books.party()
    books.pay(books.session(), to, 1)
    assert not events.feed(party_id=to.pk, after=0, limit=9)


@pytest.mark.django_db(transaction=True)
def test_publishers_at_once_never_give_a_position_twice_or_leave_one_out() -> None:
    spending, to = books.session(), books.party()

    def work(number: int) -> int:
        try:
            if number % 2:
                books.pay(spending, to, 1)
                return 0
            return events.publish()
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as threads:
        published = sum(threads.map(work, range(60)))
    published += events.publish()
    positions = sorted(Event.objects.values_list("position", flat=True))
    assert published == len(positions)
    assert positions == list(range(1, len(positions) + 1))
