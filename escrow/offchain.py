"""Celery's entries that ask no node and no signer: a few lines each, and each may run twice.

Lives here: whatever must go on while a node hangs. A worker of its own takes it, which loads nothing that could ask one. What
does ask is in `workers`.
"""

from celery import shared_task
from django.conf import settings

from escrow import approvals, clock, events, holds, invoices, pausing, payouts, pools, refunds, sessions, silence


@shared_task(name="escrow.payout_sweep")
def payout_sweep() -> None:
    """Plan withdrawals of matured credits and of the fees."""
    payouts.pay_due(now=clock.now(), limit=settings.SWEEP_LIMIT)
    payouts.pay_fees(now=clock.now())


@shared_task(name="escrow.close_sweep")
def close_sweep() -> None:
    """Take pools on their way out one step further."""
    pools.close_due(now=clock.now(), limit=settings.SWEEP_LIMIT)


@shared_task(name="escrow.timer_sweep")
def timer_sweep() -> None:
    """Let silence decide where its time has come: a party's, or the chain's."""
    pausing.look(now=clock.now())
    holds.release_expired(now=clock.now(), limit=settings.SWEEP_LIMIT)
    sessions.close_expired(now=clock.now(), limit=settings.SWEEP_LIMIT)
    approvals.expire_due(now=clock.now(), limit=settings.SWEEP_LIMIT)
    invoices.approve_by_silence(now=clock.now(), limit=settings.SWEEP_LIMIT)
    refunds.lapse_by_silence(now=clock.now(), limit=settings.SWEEP_LIMIT)
    silence.rule_by_silence(now=clock.now(), limit=settings.SWEEP_LIMIT)


@shared_task(name="escrow.publish_sweep")
def publish_sweep() -> None:
    """Show the events that are recorded for good."""
    events.publish_due()
