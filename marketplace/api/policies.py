"""/v1/policy. Lives here: HTTP only; `escrow.rehearsal` and `escrow.history` answer. Nothing here changes anything."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import BoundedSemaphore
from typing import Final

from django.conf import settings

from escrow import history, rehearsal
from marketplace import agents
from marketplace.api import auth, policy_shapes, scope, show_policies
from marketplace.api.endpoint import Call, Endpoint, serves
from marketplace.api.errors import Problem, invalid

_room = BoundedSemaphore(settings.BACKTEST_AT_ONCE)
FAR: Final = timedelta(days=3653)
"""How far from now a time may be asked about: further than any policy is made for."""


class Check(Endpoint):
    """A payment that nobody makes."""

    @serves(auth.BUYER, body=policy_shapes.CheckIn, answer=policy_shapes.Check, reads=True)
    def post(self, call: Call) -> policy_shapes.Check:
        """Say what a payment would be answered right now, or under another policy, or at another time.

        It is decided as POST /v1/payments decides, and taken back: nothing is paid, kept or asked of a person.
        """
        body = call.body
        if body.at is not None and abs(body.at - call.now) > FAR:
            raise invalid("at", "must lie within ten years of now", f'"{call.now:%Y-%m-%dT%H:%M:%SZ}"')
        session = scope.asked_session(call.actor, body.session_id)
        call.about.session_id = str(session.pk)
        party_id, _ = agents.payee(uri=body.to, capability=body.capability)
        answer = rehearsal.check(
            session=session,
            party_id=party_id,
            to=body.to,
            amount_micros=body.amount,
            capability=body.capability or "",
            proposed=body.policy,
            now=body.at,
        )
        return show_policies.check(answer)


class Backtest(Endpoint):
    """The past under another policy."""

    @serves(auth.BUYER, body=policy_shapes.BacktestIn, answer=policy_shapes.Backtest, reads=True)
    def post(self, call: Call) -> policy_shapes.Backtest:
        """Say what a policy would have made of what was decided in the last days.

        Only what it would have allowed counts against its limits. What was refused for another reason than a policy stays
        refused. Of several sessions, each is held to the policy by itself.
        """
        body = call.body
        one = body.session_id is not None or call.actor.key.session_id is not None
        session = scope.asked_session(call.actor, body.session_id) if one else None
        with _thread():
            report = history.replay(
                payer_id=call.actor.payer_id, session=session, proposed=body.policy, days=body.days, now=call.now
            )
        return show_policies.backtest(report, days=body.days)


@contextmanager
def _thread() -> Iterator[None]:
    """Take one of the threads that may work on the past. Raises Problem when all of them do."""
    if not _room.acquire(blocking=False):
        detail = f"{settings.BACKTEST_AT_ONCE} backtests are being made; this one was not begun."
        raise Problem("unavailable", detail, headers={"Retry-After": "2"}, retryable=True, untouched=True)
    try:
        yield
    finally:
        _room.release()
