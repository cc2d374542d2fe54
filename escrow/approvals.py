"""A person's word on a request over what its session may spend alone. Lives here: yes, no, and what silence means.

A yes is to one request under its idempotency key, for as long as the approval lasts; every other rule still holds when the
request comes again. Silence means no: what nobody answered expires, and the same request then asks anew.
"""

from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction

from escrow import events, lifecycle, money
from escrow.errors import StateConflict, require_text
from escrow.models import Approval

Status = Approval.Status


def window() -> timedelta:
    """Return how long a person has to answer, and how long an approval then lasts."""
    return timedelta(seconds=settings.APPROVAL_WINDOW)


@transaction.atomic
def approve(*, approval: Approval, by: str, now: datetime) -> Approval:
    """Allow the request to be made. A yes that was given before stays. Raises StateConflict."""
    approval = _locked(approval)
    if approval.status == Status.APPROVED:
        return approval
    _require_waiting(approval, now)
    lifecycle.move(approval, Status.APPROVED, decided_at=now, decided_by=by)
    tell(approval, "approval.approved")
    return approval


@transaction.atomic
def refuse(*, approval: Approval, reason: str, by: str, now: datetime) -> Approval:
    """Refuse the request for good, with a reason. Raises InvalidInput or StateConflict."""
    require_text("reason", reason, "a sentence that the agent can act on")
    approval = _locked(approval)
    if approval.status == Status.REFUSED:
        return approval
    _require_waiting(approval, now)
    lifecycle.move(approval, Status.REFUSED, decided_at=now, decided_by=by, reason=reason)
    tell(approval, "approval.refused", reason=reason)
    return approval


def expire_due(*, now: datetime, limit: int) -> int:
    """End approvals whose time is over, answered or not; return how many. What was answered stays on record."""
    over = Approval.objects.exclude(status=Status.EXPIRED).filter(expires_at__lte=now).order_by("expires_at")
    return lifecycle.sweep(over, lambda approval: _expire(approval, now), name="expired-approvals", limit=limit)


@transaction.atomic
def _expire(approval: Approval, now: datetime) -> bool:
    approval = _locked(approval)
    if approval.status == Status.EXPIRED:
        return False
    was_waiting = approval.status == Status.WAITING
    lifecycle.move(approval, Status.EXPIRED)
    if was_waiting:
        tell(approval, "approval.expired")
    return True


def _require_waiting(approval: Approval, now: datetime) -> None:
    if approval.status != Status.WAITING or now >= approval.expires_at:
        state = "expired" if approval.status == Status.WAITING else str(approval.status)
        raise StateConflict("approval", state, f"The approval is {state}; the agent has to ask again.")


def _locked(approval: Approval) -> Approval:
    related = Approval.objects.select_related("session__pool")
    return related.select_for_update(no_key=True, of=("self",)).get(pk=approval.pk)


def tell(approval: Approval, type: str, **more: object) -> None:
    """Record an event of an approval for its payer."""
    payload = {
        "session_id": str(approval.session_id),
        "to": approval.to,
        "amount": money.render(approval.amount_micros),
        **more,
    }
    events.record(
        type=type,
        subject_type="approval",
        subject_id=approval.pk,
        payload=payload,
        pool=approval.session.pool,
    )
