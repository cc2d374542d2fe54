"""Seeding in bulk: the books of the seeded rows hold, and the tables have the indexes that they had."""

from datetime import timedelta

import psycopg
import pytest
from django.db import connection
from django.utils import timezone

from benchmarks import seed
from escrow.models import Account, Event, Payment, Pool, Transfer

pytestmark = pytest.mark.django_db(transaction=True)
WANTED = seed.Wanted(payments=997, pools=7, parties=3)


def database() -> str:
    parts = connection.get_connection_params()
    return psycopg.conninfo.make_conninfo(host=parts["host"], user=parts["user"], dbname=parts["dbname"])


def indexes() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexname FROM pg_indexes WHERE tablename = ANY(%s)", [list(seed.TABLES)])
        return {name for (name,) in cursor.fetchall()}


def test_seeded_books_hold_and_the_indexes_are_there_again() -> None:
    before = indexes()
    seed.fill(database(), WANTED, [], lambda _: None)
    assert seed.faults(database()) == []
    assert indexes() == before
    assert Payment.objects.filter(status=Payment.Status.SETTLED).count() == 997
    assert Transfer.objects.filter(reason="payment").count() == 997
    assert Event.objects.count() == 997
    assert Pool.objects.filter(status=Pool.Status.CLOSED).count() == 7
    assert all(account.balance_micros == 0 for account in Account.objects.all())  # everything was paid out


def test_ids_and_times_are_spread_over_the_days_and_agree() -> None:
    seed.fill(database(), WANTED, [], lambda _: None)
    first, last = Payment.objects.order_by("pk").first(), Payment.objects.order_by("pk").last()
    assert first is not None
    assert last is not None
    assert first.created_at < timezone.now() - timedelta(days=89)
    assert timezone.now() - timedelta(days=2) < last.created_at < timezone.now()
    assert list(Payment.objects.order_by("pk")) == list(Payment.objects.order_by("created_at", "pk"))


def test_an_account_that_is_off_by_a_micro_is_a_fault() -> None:
    seed.fill(database(), WANTED, [], lambda _: None)
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(
            "UPDATE escrow_account SET received_micros = received_micros + 1 "
            "WHERE id = (SELECT min(id) FROM escrow_account WHERE kind = 'payable')"
        )
        cursor.execute("RESET session_replication_role")
    assert seed.faults(database()) == [
        "accounts whose sums are not those of their transfers: 1",
        "pools whose debts are not what is payable: 1",
    ]
