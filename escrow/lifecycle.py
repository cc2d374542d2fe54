"""Moves between statuses. Lives here: the only code that writes a ``status``, and the loop of every sweep that moves one.

What a status means lives with the models.
"""

import logging
from collections.abc import Callable, Mapping, Set
from typing import Any, ClassVar, Protocol, TypeVar

from celery.exceptions import SoftTimeLimitExceeded
from django.db.models import Model, QuerySet

from escrow import setbacks
from escrow.chain.errors import ChainUnavailable, SignerUnavailable
from escrow.errors import StateConflict

log = logging.getLogger(__name__)
Row = TypeVar("Row", bound=Model)


class Stateful(Protocol):
    """A model with a status and a table of moves."""

    MOVES: ClassVar[Mapping[str, Set[str]]]
    status: Any
    pk: Any


def allowed(obj: Stateful) -> list[str]:
    """Return the statuses that may follow the object's own, sorted."""
    return sorted(obj.MOVES[obj.status])


def move(obj: Stateful, to: str, **changes: Any) -> None:
    """Move an object to a status, with changes to other columns in the same UPDATE.

    Raises StateConflict when the table of moves does not allow it, or when the row has left its status meanwhile.
    """
    name = type(obj).__name__.lower()
    if to not in obj.MOVES[obj.status]:
        raise StateConflict(name, str(obj.status), f"The {name} is {obj.status}; it cannot become {to}.")
    rows = type(obj)._default_manager  # type: ignore[attr-defined]
    moved = rows.filter(pk=obj.pk, status=obj.status).update(status=to, **changes)
    if moved != 1:
        raise StateConflict(name, str(obj.status), f"The {name} is no longer {obj.status}; read it again.")
    obj.status = to
    for field, value in changes.items():
        setattr(obj, field, value)


def move_all(rows: "QuerySet[Any]", *, frm: str, to: str, **changes: Any) -> int:
    """Move every row of a queryset that is in one status to another; return how many there were."""
    if to not in rows.model.MOVES[frm]:
        raise ValueError(f"{rows.model.__name__} cannot move from {frm} to {to}")
    return rows.filter(status=frm).update(status=to, **changes)


def sweep(rows: "QuerySet[Row]", step: Callable[[Row], object], *, name: str, limit: int) -> int:
    """Take a step with each of the first rows that are due; return how many steps did something.

    One bad row must not keep the others waiting, whatever is wrong with it: its failure is counted under the sweep's name, and
    it is tried again later and later, then set aside (`setbacks`). A chain that is away is nobody's failure: the sweep ends.
    """
    done = 0
    for row in setbacks.willing(rows, name)[:limit]:
        try:
            done += bool(step(row))
        except ChainUnavailable as error:
            if isinstance(error, SignerUnavailable):  # perhaps about this row alone: the next sweep begins with another
                setbacks.note(row, name, error)
            log.warning("The sweep of %s waits for the chain: %s", name, error)
            return done
        except SoftTimeLimitExceeded as error:
            setbacks.note(row, name, error)
            raise
        except Exception as error:
            log.exception("%s is left for a later sweep of %s", row, name)
            setbacks.note(row, name, error)
        else:
            setbacks.forgive(row, name)
    return done
