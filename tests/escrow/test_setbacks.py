"""Poison in a sweep: a row that always fails is counted, comes later and later, and is set aside; the others never wait."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from escrow import lifecycle, remedies
from escrow.chain.errors import ChainUnavailable, SignerUnavailable
from escrow.models import Party, Setback, Transfer
from escrow.remedies import Order

pytestmark = pytest.mark.django_db


@pytest.fixture
def rows() -> list[Party]:
    return [Party.objects.create(name=name, address=f"0x{n:040x}") for n, name in enumerate("abc", start=1)]


def sweep(fail: Callable[[Party], bool] = lambda _: False, *, limit: int = 10, by: Exception | None = None) -> str:
    """Take a step with each; return the names of those that it was taken with."""
    taken = []

    def step(party: Party) -> bool:
        taken.append(party.name)
        if fail(party):
            raise by or ZeroDivisionError("poison")
        return True

    lifecycle.sweep(Party.objects.order_by("name"), step, name="parties", limit=limit)
    return "".join(taken)


def later(seconds: float) -> None:
    """Let time go by for what is put off."""
    for back in Setback.objects.all():
        Setback.objects.filter(pk=back.pk).update(next_at=back.next_at - timedelta(seconds=seconds))


def poison(party: Party) -> bool:
    return party.name == "a"


def test_a_bad_row_keeps_no_other_waiting_even_of_a_sweep_of_one(rows: list[Party]) -> None:
    assert sweep(poison, limit=1) == "a"
    assert [sweep(poison, limit=1), sweep(poison, limit=1)] == ["b", "b"]
    back = Setback.objects.get()
    assert (back.sweep, back.subject, back.failures) == ("parties", str(rows[0].pk), 1)
    assert (back.error, back.parked_at) == ("ZeroDivisionError: poison", None)


def test_it_comes_later_and_later_and_then_not_at_all(rows: list[Party], settings: Any) -> None:
    settings.SWEEP_MAX_FAILURES = 4
    waits = []
    for _ in range(4):
        assert sweep(poison) == "abc"
        back = Setback.objects.get()
        waits.append(round((back.next_at - back.last_at).total_seconds()))
        assert sweep(poison) == "bc"
        later(waits[-1])
    assert waits == [2, 4, 8, 16]
    back = Setback.objects.get()
    assert (back.failures, back.parked_at is not None) == (4, True)
    later(10**7)
    assert sweep(poison) == "bc"


def test_a_wait_is_an_hour_at_most(rows: list[Party], settings: Any) -> None:
    settings.SWEEP_MAX_FAILURES = 1_000
    sweep(poison)
    Setback.objects.update(failures=500, next_at=timezone.now() - timedelta(seconds=1))
    sweep(poison)
    back = Setback.objects.get()
    assert (back.failures, back.next_at - back.last_at) == (501, timedelta(hours=1))


def test_what_comes_through_is_forgotten(rows: list[Party]) -> None:
    sweep(poison)
    later(2)
    assert sweep() == "abc"
    assert not Setback.objects.exists()


def test_a_person_has_it_tried_again_and_its_count_begins_anew(rows: list[Party], settings: Any) -> None:
    settings.SWEEP_MAX_FAILURES = 1
    sweep(poison)
    back = Setback.objects.get()
    assert back.parked_at is not None
    order = Order(by="ada", reason="The row is mended.", seen=0, now=timezone.now() - timedelta(seconds=1))
    remedies.try_again(setback=back, order=order)
    assert sweep() == "abc"
    assert not Setback.objects.exists()


def test_nothing_fails_and_nothing_more_is_asked(rows: list[Party]) -> None:
    with CaptureQueriesContext(
        connection,
    ) as asked:
        sweep()
    assert len(asked) == 1
    sweep(poison)
    with CaptureQueriesContext(connection) as asked:
        sweep()
    assert len(asked) == 1


def test_one_sweep_of_a_row_says_nothing_about_another(rows: list[Party]) -> None:
    sweep(poison)
    taken: list[str] = []
    lifecycle.sweep(Party.objects.order_by("name"), lambda party: taken.append(party.name), name="others", limit=9)
    assert taken == ["a", "b", "c"]


def test_a_chain_that_is_away_is_nobodys_failure(rows: list[Party]) -> None:
    assert sweep(poison, by=ChainUnavailable("eth_call: timeout")) == "a"
    assert not Setback.objects.exists()


def test_a_row_about_which_a_signer_is_silent_ends_the_sweep_and_the_next_one_begins_with_another(
    rows: list[Party], settings: Any
) -> None:
    settings.SWEEP_MAX_FAILURES = 1
    assert sweep(poison, by=SignerUnavailable("it cannot look")) == "a"
    back = Setback.objects.get()
    assert (back.subject, back.failures, back.parked_at) == (str(rows[0].pk), 0, None)
    assert 4 < (back.next_at - timezone.now()).total_seconds() <= 5
    assert sweep() == "bc"
    later(5)
    assert sweep() == "abc"
    assert not Setback.objects.exists()


def test_a_row_that_takes_the_sweeps_whole_time_is_counted_and_the_sweep_ends(rows: list[Party]) -> None:
    with pytest.raises(SoftTimeLimitExceeded):
        sweep(poison, by=SoftTimeLimitExceeded())
    assert Setback.objects.get().failures == 1
    assert sweep(poison) == "bc"
    assert not Transfer.objects.exists()
