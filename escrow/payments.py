"""Payments. Lives here: `send`, the one door through which a session's money becomes a debt; and redeeming it.

Nothing here waits for the chain, and nothing is queued: a payment is done when its database transaction commits.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast
from uuid import UUID

from django.db import connection, transaction

from escrow import approvals, authorisation, events, ledger, money, verdicts
from escrow.errors import AlreadyRedeemed, InvalidInput, NotFound, StateConflict
from escrow.ledger import Move
from escrow.models import Account, Dispute, Party, Payment, Reason, Session
from escrow.verdicts import Opinion

MAX_PAYMENT_MICROS = 2**40 - 1
"""A record of a batch carries its amount in 40 bits, so no single debt may be larger: about 1.1 million USDC."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A payment, and whether it had been sent before under the same idempotency key."""

    payment: Payment
    replayed: bool


_SEND: Final = """
SELECT outcome, payment_id, at, remaining_micros, facts::text FROM escrow_send(
    true, %s, %s, %s::uuid[], %s::uuid[], %s::text[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[],
    %s::bytea[], %s::integer[], %s::timestamptz[], %s::timestamptz[], %s::text[]
)
"""


def send(
    *,
    session_id: UUID,
    party_id: UUID,
    to: str,
    amount_micros: int,
    metadata: Mapping[str, object],
    idempotency_key: str,
    request_hash: bytes,
    capability: str = "",
    now: datetime | None = None,
) -> Sent:
    """Pay a party out of a session, once for each idempotency key. The database's clock decides, unless ``now`` does.

    Raises IdempotencyConflict when the key came with another request, and the refusals of `escrow.verdicts`. A refusal
    moves nothing and is kept as a decision; the same key may be sent again once the reason is gone.
    """
    require_payable_amount(amount_micros)

    def ask(opinion: Opinion) -> Sequence[Any] | None:
        with connection.cursor() as cursor:
            order: list[Any] = [
                now,
                approvals.window(),
                [session_id],
                [party_id],
                [to],
                [amount_micros],
                [money.render(amount_micros)],
            ]
            order += [[json.dumps(metadata)], [capability], [idempotency_key], [request_hash]]
            cursor.execute(_SEND, [*order, *([value] for value in opinion.columns)])
            row: Sequence[Any] | None = cursor.fetchone()
            return row

    verdict = authorisation.decide(
        session_id=session_id, to=to, capability=capability, amount_micros=amount_micros, now=now, ask=ask,
        key=idempotency_key,
    )  # fmt: skip
    payment = Payment.objects.get(pk=cast("UUID", verdict.payment_id))
    return Sent(payment, replayed=verdict.outcome == verdicts.REPLAYED)


def owe(
    *,
    session: Session,
    party: Party,
    source: Account,
    payable: Account,
    to: str,
    amount_micros: int,
    kind: Payment.Kind,
    reason: Reason,
    idempotency_key: str,
    remaining_micros: int,
    metadata: Mapping[str, object] | None = None,
    capability: str = "",
    request_hash: bytes = b"",
) -> Payment:
    """Turn money of an account into a debt to a party. The caller has locked the accounts and decided that it may."""
    payment = Payment.objects.create(
        session=session,
        pool=session.pool,
        party=party,
        payer_id=session.pool.payer_id,
        kind=kind,
        to=to,
        amount_micros=amount_micros,
        metadata=dict(metadata or {}),
        capability=capability,
        idempotency_key=idempotency_key,
        request_hash=request_hash,
        remaining_micros=remaining_micros,
    )
    ledger.post([Move(source, payable, amount_micros, reason, str(payment.pk))])
    tell(payment, "payment.created")
    return payment


@transaction.atomic
def redeem(*, payment: Payment, party_id: UUID, request_hash: str, now: datetime) -> Payment:
    """Bind a payment to the one request that it buys; the same request again is a retry.

    Raises NotFound for another party's payment, AlreadyRedeemed for another request, and StateConflict for a payment that
    was refunded, or that is for finished work and so has bought its worth already.
    """
    payment = locked(payment)
    if payment.party_id != party_id:
        raise NotFound("There is no such payment to this provider.")
    if payment.kind != Payment.Kind.CALL:
        raise StateConflict("payment", payment.status, "The payment is for finished work; it buys no call.")
    if payment.status in (Payment.Status.REFUNDED, Payment.Status.DISPUTED):
        raise StateConflict("payment", payment.status, f"The payment is {payment.status}; it buys nothing any more.")
    if not payment.unrefunded_micros:
        raise StateConflict("payment", "refunded", "The payment has gone back as a whole; it buys nothing any more.")
    if payment.redeemed_hash == request_hash:
        return payment
    if payment.redeemed_hash:
        raise AlreadyRedeemed(
            "payment", payment.status, "The payment has bought another request; each request needs its own."
        )
    # Only a settled payment can be in a dispute and keep its status: an unsettled one is `disputed` itself.
    contested = Dispute.objects.filter(payment=payment).exclude(status=Dispute.Status.FAILED)
    if payment.status == Payment.Status.SETTLED and contested.exists():
        raise StateConflict("payment", payment.status, "The payment is disputed; it buys nothing any more.")
    payment.redeemed_hash, payment.redeemed_at = request_hash, now
    payment.save(update_fields=["redeemed_hash", "redeemed_at"])
    return payment


def require_payable_amount(amount_micros: int) -> None:
    """Return when an amount fits into one record of a batch. Raises InvalidInput."""
    if amount_micros > MAX_PAYMENT_MICROS:
        limit = money.render(MAX_PAYMENT_MICROS)
        raise InvalidInput("amount", f"must be at most {limit}", f'"{limit}" or less')


def locked(payment: Payment) -> Payment:
    """Return a payment as it is now, locked until the database transaction ends."""
    related = Payment.objects.select_related("session__pool", "session__account", "party", "pool")
    return related.select_for_update(no_key=True, of=("self",)).get(pk=payment.pk)


def tell(payment: Payment, type: str, **more: object) -> None:
    """Record an event of a payment for its payer and its party."""
    payload = {
        "session_id": str(payment.session_id),
        "to": payment.to,
        "kind": payment.kind,
        "amount": money.render(payment.amount_micros),
        **more,
    }
    events.record(
        type=type,
        subject_type="payment",
        subject_id=payment.pk,
        payload=payload,
        pool=payment.pool,
        party=payment.party,
    )
