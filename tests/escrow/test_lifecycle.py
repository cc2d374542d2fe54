"""`escrow.lifecycle`: only the table's moves, and only from where the row is."""

import pytest

from escrow import lifecycle
from escrow.errors import StateConflict
from escrow.models import Batch, ChainAction, Dispute, Hold, Invoice, Payment, Pool, Session
from tests.escrow import books

MODELS = [Batch, ChainAction, Dispute, Hold, Invoice, Payment, Pool, Session]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_status_has_its_moves(model: type[Payment]) -> None:
    assert set(model.MOVES) == set(model.Status)
    assert {status for targets in model.MOVES.values() for status in targets} <= set(model.Status)


@pytest.mark.django_db
def test_allowed_moves_are_named_in_order() -> None:
    payment = books.pay(books.session(), books.party(), 1)
    assert lifecycle.allowed(payment) == ["disputed", "offset", "refunded", "settling"]


@pytest.mark.django_db
def test_every_move_outside_the_table_is_refused() -> None:
    for model in (Payment, Pool, Session):
        for at in model.Status:
            for to in set(model.Status) - set(model.MOVES[at]):
                with pytest.raises(StateConflict) as caught:
                    lifecycle.move(model(status=at), to)
                assert caught.value.facts == {"subject": model.__name__.lower(), "state": at.value}


@pytest.mark.django_db
def test_a_move_from_a_status_that_the_row_has_left_is_refused() -> None:
    pool = books.pool()
    stale = Pool.objects.get(pk=pool.pk)
    lifecycle.move(pool, Pool.Status.CLOSING, reason="first")
    with pytest.raises(StateConflict, match="no longer open"):
        lifecycle.move(stale, Pool.Status.CLOSED, reason="second")
    pool.refresh_from_db()
    assert (pool.status, pool.reason) == ("closing", "first")


@pytest.mark.django_db
def test_moving_all_leaves_the_others() -> None:
    one, two = books.session(), books.session()
    lifecycle.move(one, Session.Status.CLOSED)
    assert lifecycle.move_all(Session.objects.all(), frm="open", to="closed") == 1
    two.refresh_from_db()
    assert two.status == "closed"
    with pytest.raises(ValueError, match="cannot move from closed to open"):
        lifecycle.move_all(Session.objects.all(), frm="closed", to="open")
