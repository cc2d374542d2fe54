"""Silence: what becomes of a dispute when somebody does not speak in time. Lives here: the sweep; `disputes` rules.

A dispute that the provider does not answer is ruled for the payer; one that nobody rules is split evenly. On chain
the contract has the last word after 14 days: all to the provider, since the payer's side signed the batch.
"""

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q

from escrow import disputes, intents, invoices, lifecycle, money
from escrow.models import ChainAction, Dispute, Invoice, Pool

Status = Dispute.Status
ON_CHAIN_TIMEOUT = timedelta(days=14, minutes=5)
"""The contract's own, and a margin for the difference between its clock and ours."""


def rule_by_silence(*, now: datetime, limit: int) -> int:
    """Rule what nobody answered or ruled in time, and dispute rejections that nobody took back; return how many."""
    lost = Q(session__pool__status=Pool.Status.CLOSED)  # reclaimed past us: nothing is left to decide on
    rejected = Invoice.objects.filter(status=Invoice.Status.REJECTED, review_by__lte=now).exclude(lost)
    overdue = rejected.order_by("review_by")
    done = lifecycle.sweep(
        overdue, lambda invoice: _dispute_if_silent(invoice, now), name="silent-rejections", limit=limit
    )
    off_chain = Dispute.objects.filter(on_chain=False).exclude(lost)
    unanswered = off_chain.filter(status=Status.OPEN, answer_by__lte=now).order_by("answer_by")
    unruled = off_chain.filter(status=Status.ANSWERED, rule_by__lte=now).order_by("rule_by")
    for silent in (unanswered, unruled):
        done += lifecycle.sweep(
            silent, lambda dispute: _rule_if_silent(dispute, now), name="silent-disputes", limit=limit
        )
    return done + _rule_again_on_chain(limit) + _time_out_on_chain(now, limit)


@transaction.atomic
def _dispute_if_silent(invoice: Invoice, now: datetime) -> bool:
    invoice = invoices.locked(invoice)
    if invoice.status != Invoice.Status.REJECTED:
        return False  # somebody spoke while the sweep came to it
    reason = "Nobody took the rejection back in time. The buyer's reason: " + invoice.reason
    disputes.open_for_invoice(invoice=invoice, reason=reason, now=now)
    return True


@transaction.atomic
def _rule_if_silent(dispute: Dispute, now: datetime) -> bool:
    seen = dispute.status
    dispute = disputes.locked_with_accounts(dispute)
    if dispute.status != seen:
        return False  # somebody spoke while the sweep came to it
    bps, reason = 0, "The provider did not answer in time, so the money goes back."
    if seen == Status.ANSWERED:
        bps, reason = money.BASIS_POINTS // 2, "Nobody ruled in time, so the money is split evenly."
    disputes.rule(dispute=dispute, to_provider_bps=bps, reason=reason, ruled_by=disputes.SILENCE, now=now)
    return True


def _rule_again_on_chain(limit: int) -> int:
    """Ask for rulings that the chain has not carried out; only one that reverted is really sent again."""
    waiting = Dispute.objects.filter(status=Status.RULING, on_chain=True).select_related("session__pool")
    return lifecycle.sweep(
        waiting.order_by("pk"),
        lambda dispute: disputes.resolve(dispute).status == ChainAction.Status.PLANNED,
        name="rulings",
        limit=limit,
    )


def _time_out_on_chain(now: datetime, limit: int) -> int:
    """Ask the contract for its default where the arbiter stayed silent for its 14 days."""
    waiting = Dispute.objects.filter(
        on_chain=True, status__in=[Status.OPEN, Status.ANSWERED, Status.RULING], created_at__lte=now - ON_CHAIN_TIMEOUT
    )
    overdue = list(waiting.select_related("session__pool")[:limit])
    for dispute in overdue:
        key = f"resolve_by_timeout:{dispute.pk}"
        intents.record(
            ChainAction.Kind.RESOLVE_BY_TIMEOUT, dedupe_key=key, pool=dispute.session.pool, subject_id=dispute.pk
        )
    return len(overdue)
