"""What would be answered to a payment that nobody makes. Lives here: asking the judge, and taking all of it back.

The statement that decides on payments decides here too, in a database transaction that is always rolled back: so the
answer cannot drift from the real one, and leaves nothing behind.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from escrow import authorisation, ledger, payments, policy
from escrow.errors import EscrowError, NotFound
from escrow.models import Account, Session
from escrow.policy import Policy
from escrow.verdicts import Opinion, Rulebook


@dataclass(frozen=True, slots=True)
class Answer:
    """What a payment would get: the refusal, None when it would be allowed, and then what the session would have left.

    ``policy_version`` is that of the session's own policy; a proposed one has none.
    """

    refusal: EscrowError | None
    remaining_micros: int | None
    policy_version: int | None


def check(
    *,
    session: Session,
    party_id: UUID,
    to: str,
    amount_micros: int,
    capability: str = "",
    proposed: Policy | None = None,
    now: datetime | None = None,
) -> Answer:
    """Return what `payments.send` would answer to a new request, with the session's own policy or with a proposed one.

    ``now`` moves the clock and nothing else: money, spending and states are as they are. Raises InvalidInput for an amount
    that no payment can have, InvalidPolicy for a proposal that the session could not be given, and NotFound.
    """
    payments.require_payable_amount(amount_micros)
    with transaction.atomic():
        answer = _judged(session, party_id, to, amount_micros, capability, proposed, now)
        transaction.set_rollback(True)
    return answer


def _judged(
    session: Session,
    party_id: UUID,
    to: str,
    amount_micros: int,
    capability: str,
    proposed: Policy | None,
    now: datetime | None,
) -> Answer:
    version: int | None = None

    def ask(opinion: Opinion) -> Sequence[Any] | None:
        nonlocal version
        row = authorisation.judge(
            session_id=session.pk, party_id=party_id, amount_micros=amount_micros, opinion=opinion, now=now
        )
        if row is not None:
            row, version = row[:5], row[5] if proposed is None else None
        return row

    rules = authorisation.RULES
    if proposed is not None:
        _propose(session, party_id, proposed)
        rules = Rulebook()  # what was only proposed is nobody's to remember
    try:
        verdict = authorisation.decide(
            session_id=session.pk,
            to=to,
            capability=capability,
            amount_micros=amount_micros,
            now=now,
            ask=ask,
            rules=rules,
        )
    except NotFound:
        raise
    except EscrowError as refusal:
        return Answer(refusal, None, version)
    return Answer(None, verdict.remaining_micros, version)


def _propose(session: Session, party_id: UUID, proposed: Policy) -> None:
    """Write a policy into the session's row, for the judge to read until the database transaction is taken back.

    The accounts are locked first, all that the judge will lock, as by everybody who writes the row.
    """
    if session.parent_id is not None:
        proposed = policy.narrow(proposed, Policy.from_document(Session.objects.get(pk=session.parent_id).policy))
    owed = Account.objects.filter(code=f"{Account.Kind.PAYABLE}:{session.pool_id}:{party_id}")
    ledger.lock([session.account, *owed])
    Session.objects.filter(pk=session.pk).update(policy=proposed.to_document())
