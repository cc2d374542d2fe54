"""A program with a bug sown in it, judged by the crash harness: which bug, and at which point a worker dies, are its arguments.

It prints how many lost, doubled and unexplained things the judge found. A harness that finds nothing here finds nothing at all.
"""

import json
import logging
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any
from unittest import mock

import django

django.setup()

from django.utils import timezone  # noqa: E402

from escrow import dispatch, ledger, lifecycle, settlement  # noqa: E402
from escrow.ledger import Move  # noqa: E402
from escrow.models import Batch, ChainAction, Payment, Reason  # noqa: E402
from escrow.relay import Relay  # noqa: E402
from marketplace.celery import app  # noqa: E402
from marketplace.management.crashtest.ground import Ground  # noqa: E402
from marketplace.management.crashtest.judge import Judge  # noqa: E402
from marketplace.management.crashtest.kills import Kills  # noqa: E402


def void_too_soon(**_: object) -> int:
    """Give debts back while their signed batch can still land."""
    waiting = list(Batch.objects.filter(status=Batch.Status.SIGNED).select_related("pool", "account"))
    for batch in waiting:
        settlement.void(batch=batch)
    return len(waiting)


def settle_by_our_word(*, now: datetime, **_: object) -> int:
    """Credit what is signed without asking the chain."""
    waiting = list(Batch.objects.filter(status=Batch.Status.SIGNED).select_related("pool", "account"))
    for batch in waiting:
        lifecycle.move(batch, Batch.Status.SETTLED, settled_at=now)
        debts = Payment.objects.filter(record__batch=batch)
        lifecycle.move_all(debts, frm=Payment.Status.SETTLING, to=Payment.Status.SETTLED)
        for record in batch.records.select_related("party"):
            credited = ledger.credited(batch.pool, record.party)
            ledger.post(
                [Move(batch.account, credited, record.amount_micros, Reason.CREDIT, f"{batch.pk}:{record.seq}")]
            )
    return len(waiting)


def sign_anew(run: Callable[[Relay], int]) -> Callable[[Relay], int]:
    """Sign what was signed before a crash once more, with another nonce."""

    def running(relay: Relay) -> int:
        unsent = ChainAction.objects.filter(status=ChainAction.Status.SIGNED)
        unsent.update(status=ChainAction.Status.PLANNED, nonce=None, next_at=timezone.now())
        return run(relay)

    return running


BUGS: dict[str, Any] = {
    "none": mock.patch.object(sys, "argv", sys.argv),
    "void too soon": mock.patch.object(settlement, "void_expired", void_too_soon),
    "settle by our word": mock.patch.object(dispatch, "dispatch_due", settle_by_our_word),
    "sign anew": mock.patch.object(Relay, "run", sign_anew(Relay.run)),
}


def main(bug: str, point: str) -> None:
    """Kill a worker at a point, with the bug in it."""
    logging.disable(logging.CRITICAL)
    app.loader.import_default_modules()
    with BUGS[bug], Ground() as ground:
        kills = Kills(ground, Judge(ground))
        verdict = kills.run(point, seed=1)
    found = {"lost": verdict.lost, "doubled": verdict.doubled, "unexplained": verdict.unexplained}
    print("FOUND " + json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
