"""A payment: lock the budget's row, check, write. The textbook way, and correct."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from django.db import transaction
from django.utils import timezone
from rest_framework.exceptions import APIException

from benchmarks.naive.models import Agent, Event, Payment, Pool, Session, Transfer
from escrow import money


class Refused(APIException):
    """A payment that may not be, with its code and facts."""

    def __init__(self, status: int, code: str, **facts: str) -> None:
        """Answer with this status."""
        self.status_code = status
        super().__init__({"code": code, **facts})


@transaction.atomic
def pay(
    *,
    session: Session,
    to: str,
    amount_micros: int,
    metadata: Mapping[str, object],
    idempotency_key: str,
    request_hash: bytes,
) -> Payment:
    """Pay an agent once for each idempotency key; raise Refused, with nothing written, when that may not be."""
    agent = Agent.objects.filter(uri=to).first()
    if agent is None:
        raise Refused(404, "not_found")
    pool = Pool.objects.select_for_update().get(pk=session.pool_id)
    earlier = Payment.objects.select_related("agent").filter(session=session, idempotency_key=idempotency_key).first()
    if earlier is not None:
        if bytes(earlier.request_hash) != request_hash:
            raise Refused(409, "idempotency_conflict")
        return earlier
    _check_policy(session, to, amount_micros)
    if pool.balance_micros < amount_micros:
        raise Refused(402, "insufficient_funds", remaining=money.render(pool.balance_micros))
    pool.balance_micros -= amount_micros
    pool.save(update_fields=["balance_micros"])
    payment = Payment.objects.create(
        session=session,
        agent=agent,
        amount_micros=amount_micros,
        remaining_micros=pool.balance_micros,
        metadata=dict(metadata),
        idempotency_key=idempotency_key,
        request_hash=request_hash,
    )
    Transfer.objects.bulk_create(
        [
            Transfer(payment=payment, pool=pool, amount_micros=-amount_micros),
            Transfer(payment=payment, agent=agent, amount_micros=amount_micros),
        ]
    )
    Event.objects.create(
        type="payment.created", payment=payment, payload={"to": to, "amount": money.render(amount_micros)}
    )
    return payment


def _check_policy(session: Session, to: str, amount_micros: int) -> None:
    if not session.is_open or (session.expires_at is not None and session.expires_at <= timezone.now()):
        raise Refused(409, "session_closed")
    if amount_micros > session.max_per_call_micros:
        raise Refused(403, "policy_denied", rule="max_per_call")
    if session.allowed_recipients and not any(fnmatchcase(to, pattern) for pattern in session.allowed_recipients):
        raise Refused(403, "policy_denied", rule="allowed_recipients")
