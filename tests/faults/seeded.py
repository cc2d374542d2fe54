"""A program with a bug sown in it, judged by the crash harness: the bug, and where a worker dies, are its arguments.

It prints what was found lost, doubled and unexplained, and how much there was to judge. A harness that finds nothing here finds
nothing at all; and one that finds something without the bug has not found the bug.
"""

import json
import logging
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from datetime import datetime
from typing import Any
from unittest import mock
from uuid import UUID

import django
from eth_utils.crypto import keccak

django.setup()

from django.conf import settings  # noqa: E402
from django.utils import timezone  # noqa: E402

from escrow import dispatch, ledger, lifecycle, settlement, workers  # noqa: E402
from escrow.chain import deploy  # noqa: E402
from escrow.chain.client import ChainClient  # noqa: E402
from escrow.ledger import Move  # noqa: E402
from escrow.models import Batch, ChainAction, Payment, Reason  # noqa: E402
from escrow.relay import Relay  # noqa: E402
from marketplace.celery import app  # noqa: E402
from marketplace.management.crashtest import ground as grounds  # noqa: E402
from marketplace.management.crashtest.ground import Ground  # noqa: E402
from marketplace.management.crashtest.judge import Judge, Verdict  # noqa: E402
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


def send_past_the_books(judge: Callable[[Judge, set[UUID]], Verdict]) -> Callable[[Judge, set[UUID]], Verdict]:
    """Send with the key of the last relayer, write nothing down, and only then judge."""

    def judging(self: Judge, pools: set[UUID]) -> Verdict:
        relayer = workers.keyring().relayer(settings.RELAYERS - 1)
        client = ChainClient(settings.RPC_URL)
        deploy.send(client, relayer, settings.USDC_ADDRESS, keccak(text="totalSupply()")[:4])
        app.tasks["escrow.index_sweep"]()  # it made blocks, and they are to be no loose end
        return judge(self, pools)

    return judging


TURNS = 12
"""So long a bug is given to heal: it never does."""
BUGS: dict[str, Any] = {
    "none": nullcontext(),
    "send past the books": mock.patch.object(Judge, "judge", send_past_the_books(Judge.judge)),
    "void too soon": mock.patch.object(settlement, "void_expired", void_too_soon),
    "settle by our word": mock.patch.object(dispatch, "dispatch_due", settle_by_our_word),
    "sign anew": mock.patch.object(Relay, "run", sign_anew(Relay.run)),
}


def nothing_new(kills: Kills) -> Verdict:
    """Judge a pool in which nothing has happened since."""
    return kills.judge.judge({kills.ground.tenants[0].pool.pk})


def a_stranger_s_pool(kills: Kills) -> Verdict:
    """Judge all there is when the last pool was nobody's."""
    kills.ground.tenants.pop()
    return kills.judge.judge()


def a_parked_action(kills: Kills) -> Verdict:
    """Judge all there is when an action waits for a person."""
    newest = ChainAction.objects.order_by("-pk")[:1]
    ChainAction.objects.filter(pk__in=[action.pk for action in newest]).update(status=ChainAction.Status.PARKED)
    return kills.judge.judge()


TWISTS: dict[str, Callable[[Kills], Verdict]] = {
    "nothing new": nothing_new,
    "a stranger's pool": a_stranger_s_pool,
    "a parked action": a_parked_action,
}
"""What is judged in place of a play."""


def main(bug: str, *points: str) -> None:
    """Kill a worker at each point, with the bug in it."""
    logging.disable(logging.CRITICAL)
    app.loader.import_default_modules()
    with BUGS[bug], mock.patch.object(grounds, "QUIET_TURNS", TURNS), Ground() as ground:
        kills = Kills(ground, Judge(ground))
        verdicts = [TWISTS[point](kills) if point in TWISTS else kills.run(point, 1) for point in points]
    print("FOUND " + json.dumps([asdict(verdict) for verdict in verdicts]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
