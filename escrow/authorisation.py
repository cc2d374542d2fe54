"""Asking the database whether a session may spend. Lives here: the one loop that asks, and the lock that a yes comes with."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, cast
from uuid import UUID

from django.db import connection
from django.utils import timezone

from escrow import decisions, events, limits, money, verdicts
from escrow.errors import EscrowError, StateConflict
from escrow.models import Account, Kind, Party, Session
from escrow.verdicts import Opinion, Rulebook, Verdict

RULES: Final = Rulebook()
"""What this process knows of the sessions' policies; the database says when it is stale."""
DEFAULT_CHECKPOINTS: Final = tuple(map(limits.fraction, limits.CHECKPOINTS))
"""As in `escrow_tell_checkpoints`: what a session tells of when its policy says nothing."""
ATTEMPTS: Final = 5
"""A policy that changes this often between two looks is a mistake of its payer's."""

_JUDGE: Final = """
SELECT outcome, payment_id, at, remaining_micros, facts::text, policy_version, payer_id, checkpoint FROM escrow_judge(
    true, %s, %s::uuid[], %s::uuid[], %s::bigint[], ARRAY[NULL]::text[], %s::bytea[], %s::integer[],
    %s::timestamptz[], %s::timestamptz[], %s::text[]
)
"""


def decide(
    *,
    session_id: UUID,
    to: str,
    capability: str,
    amount_micros: int,
    now: datetime | None,
    ask: Callable[[Opinion], Sequence[Any] | None],
    key: str = "",
    rules: Rulebook = RULES,
) -> Verdict:
    """Have the database decide on a request to spend, and return its verdict: allowed, or replayed.

    ``ask`` runs the statement with what the pure rules say, and returns its row for `Verdict.read`. The database's clock
    decides, unless ``now`` does. Raises the refusals of `escrow.verdicts`.
    """
    at = now or timezone.now()  # of the rules that need no counting; the database refuses an answer that is too old
    for _ in range(ATTEMPTS):
        opinion = rules.opinion(session_id, to=to, capability=capability or None, now=at)
        verdict = Verdict.read(ask(opinion))
        if verdict.outcome in (verdicts.ALLOWED, verdicts.REPLAYED):
            return verdict
        at = now or verdict.at or at
        if verdict.outcome == verdicts.STALE:
            rules.learn(session_id, verdict.facts)
        elif verdict.outcome != verdicts.BUSY:
            raise verdicts.refusal(verdict, amount_micros=amount_micros, opinion=opinion, key=key)
    raise StateConflict("session", "changing", "The session's policy is being changed; repeat the request.")


def authorise(
    *,
    session: Session,
    party: Party,
    to: str,
    amount_micros: int,
    capability: str = "",
    fingerprint: bytes = b"",
    metadata: Mapping[str, object] = MappingProxyType({}),
    now: datetime | None = None,
) -> tuple[Account, int, UUID]:
    """Lock the account of a session that may set an amount aside for a party; return it, its policy's version, and an id.

    The id is for what is made of the yes: like those of payments and refusals it orders by age.

    The lock is kept, so that nothing changes between this answer and the posting. ``fingerprint`` is what tells the request
    from any other, for a person's approval. A refusal knows how to put itself on record (`EscrowError.afterwards`), because
    the caller's database transaction takes back all that is written in it.
    """
    more: Sequence[Any] = ()

    def ask(opinion: Opinion) -> Sequence[Any] | None:
        nonlocal more
        row = judge(
            session_id=session.pk, party_id=party.pk, amount_micros=amount_micros, opinion=opinion,
            fingerprint=fingerprint, now=now,
        )  # fmt: skip
        if row is not None:
            row, more = row[:5], row[5:]
        return row

    try:
        verdict = decide(
            session_id=session.pk, to=to, capability=capability, amount_micros=amount_micros, now=now, ask=ask
        )
    except EscrowError as refusal:
        if more:
            version, payer_id, _ = more
            refusal.afterwards = decisions.Refused(
                refusal=refusal, session_id=session.pk, payer_id=payer_id, party_id=party.pk, kind=Kind.HOLD, to=to,
                capability=capability, amount_micros=amount_micros, policy_version=version, fingerprint=fingerprint,
                metadata=metadata,
            ).keep  # fmt: skip
        raise
    version, _, checkpoint = more
    if checkpoint is not None:
        _tell_checkpoint(session, checkpoint, verdict.remaining_micros)
    return Account.objects.get(pk=session.account_id), version, cast("UUID", verdict.payment_id)


def judge(
    *,
    session_id: UUID,
    party_id: UUID,
    amount_micros: int,
    opinion: Opinion,
    fingerprint: bytes = b"",
    now: datetime | None = None,
) -> Sequence[Any] | None:
    """Return the row of one verdict: what `Verdict.read` takes, then the policy's version, the payer, and the checkpoint.

    The accounts are locked with it. No row: no such session.
    """
    with connection.cursor() as cursor:
        judged: list[Any] = [[session_id], [party_id], [amount_micros], [fingerprint]]
        cursor.execute(_JUDGE, [now, *judged, *([value] for value in opinion.columns)])
        row: Sequence[Any] | None = cursor.fetchone()
        return row


def _tell_checkpoint(session: Session, place: int, remaining_micros: int) -> None:
    session = Session.objects.select_related("pool").get(
        pk=session.pk
    )  # as it is under the lock, not as it was seen before
    passed = session.policy.get("checkpoint_at", DEFAULT_CHECKPOINTS)[place - 1]
    payload = {"checkpoint": passed, "remaining": money.render(remaining_micros)}
    events.record(
        type="session.checkpoint", subject_type="session", subject_id=session.pk, payload=payload, pool=session.pool
    )
