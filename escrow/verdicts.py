"""What the database says of a request to spend. Lives here: reading a verdict of `escrow_judge`, and the rules it is asked by.

The pure rules of a policy run on a copy that is kept by session and version. The database compares the version with its
own, and the times between which the answer holds with its own clock: a stale answer is refused, and asked for again.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self
from uuid import UUID

from escrow import money, policy
from escrow.errors import (
    ApprovalRequired,
    EscrowError,
    IdempotencyConflict,
    InsufficientFunds,
    NotFound,
    PolicyDenied,
    SettlementPaused,
    StateConflict,
)
from escrow.policy import Policy

ALLOWED: Final = "allowed"
REPLAYED: Final = "replayed"
BUSY: Final = "busy"
"""An account is locked by somebody else, or the same key is being decided: ask again."""
STALE: Final = "stale"
MAX_KNOWN: Final = 100_000
"""Policies, and names and windows in them, that a process keeps, some 25 MB. What was learnt first goes first, and is learnt
again by its next payment."""


@dataclass(slots=True)
class Verdict:
    """What the database said. Without an outcome, there is no such session; amounts are micro-USDC."""

    outcome: str | None
    payment_id: UUID | str | None = None
    at: datetime | None = None
    remaining_micros: int = 0
    facts: Mapping[str, Any] | None = None

    @classmethod
    def read(cls, row: Sequence[Any] | None) -> Self:
        """Return a row: outcome, payment's id, moment, what remains, facts as JSON text. No row: no such session."""
        if row is None:
            return cls(None)
        outcome, payment_id, at, remaining, facts = row
        return cls(outcome, payment_id, at, remaining or 0, json.loads(facts) if facts else None)


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the pure rules say of a recipient: under which version, since and until when, and the refusal if any."""

    version: int | None
    since: datetime | None
    until: datetime | None
    denial: PolicyDenied | None

    @property
    def columns(self) -> tuple[int | None, datetime | None, datetime | None, str | None]:
        """What `escrow_judge` is told of it: version, since, until, and the facts of the refusal as JSON text."""
        return self.version, self.since, self.until, json.dumps(self.denial.facts) if self.denial else None


UNKNOWN: Final = Opinion(None, None, None, None)


class Rulebook:
    """The policies that this process knows, each under its session and version."""

    def __init__(self) -> None:
        self._known: OrderedDict[UUID | str, tuple[int, Policy]] = OrderedDict()
        self._weight = 0

    def opinion(self, session_id: UUID | str, *, to: str, capability: str | None, now: datetime) -> Opinion:
        """Return what the pure rules say now; of a session whose policy is not known, that it is not."""
        found = self._known.get(session_id)
        if found is None:
            return UNKNOWN
        version, limits = found
        try:
            policy.check(limits, to=to, capability=capability, now=now)
        except PolicyDenied as denial:
            return Opinion(version, *policy.valid(limits, now), denial)
        return Opinion(version, *policy.valid(limits, now), None)

    def learn(self, session_id: UUID | str, facts: Mapping[str, Any] | None) -> None:
        """Keep the policy that a stale verdict came with."""
        if facts is None:
            return
        learnt = (facts["version"], Policy.from_document(facts["policy"]))
        self._forget(session_id)
        self._known[session_id] = learnt
        self._weight += _weight(learnt[1])
        while self._weight > MAX_KNOWN:
            self._forget(next(iter(self._known)))

    def _forget(self, session_id: UUID | str) -> None:
        if session_id in self._known:
            self._weight -= _weight(self._known.pop(session_id)[1])


def _weight(limits: Policy) -> int:
    names = len(limits.allowed_recipients) + len(limits.denied_recipients) + len(limits.allowed_capabilities)
    return 1 + names + len(limits.windows)


def refusal(verdict: Verdict, *, amount_micros: int, opinion: Opinion, key: str = "") -> EscrowError:
    """Return the error that an outcome other than allowed, replayed, busy or stale means. Amounts in micro-USDC.

    What the policy refused says under which version: the opinion's, since the database has found that to be its own.
    """
    error = _refusal(verdict, amount_micros=amount_micros, denial=opinion.denial, key=key)
    if isinstance(error, PolicyDenied | ApprovalRequired):
        error.facts["policy_version"] = opinion.version
    return error


def _refusal(verdict: Verdict, *, amount_micros: int, denial: PolicyDenied | None, key: str) -> EscrowError:
    outcome = verdict.outcome
    if outcome == "denied" and denial is not None:
        return denial
    match outcome:
        case None:
            return NotFound("There is no such session.")
        case "no_party":
            return NotFound("There is no such recipient.")
        case "key_conflict":
            return IdempotencyConflict(key)
        case "insufficient_funds":
            return _dry(verdict, amount_micros)
        case "settlement_paused":
            return SettlementPaused()
        case "approval_required" | "approval_refused":
            return _needs_a_person(verdict, amount_micros)
    subject, _, state = outcome.partition("_")
    if subject in ("pool", "session"):
        return not_open(subject, state)
    counted = verdict.facts or {}
    return policy.exceeded(outcome, limit=counted["limit"], spent=counted.get("spent", 0), amount_micros=amount_micros)


def _dry(verdict: Verdict, amount_micros: int) -> InsufficientFunds:
    remaining, counted = money.render(verdict.remaining_micros), verdict.facts or {}
    checkpoint = {name: money.render(counted[name]) for name in ("budget", "spent")} | {"remaining": remaining}
    return InsufficientFunds("The session", remaining, money.render(amount_micros), checkpoint=checkpoint)


def _needs_a_person(verdict: Verdict, amount_micros: int) -> ApprovalRequired | PolicyDenied:
    counted = verdict.facts or {}
    asked, limit = money.render(amount_micros), money.render(counted["limit"])
    if verdict.outcome == "approval_refused":
        detail = f"{asked} USDC needs a person's approval, and it was refused: {counted['reason']}"
        return PolicyDenied("approval_above", detail, limit=limit, would_allow=limit)
    detail = f"{asked} USDC is over {limit}: a person has to approve it first. Then send the same request again."
    return ApprovalRequired(detail, limit=limit, approval_id=str(counted["approval_id"]))


def not_open(subject: str, state: str) -> StateConflict:
    """Return the refusal of new spending by a pool or session that is in another state than open, or past its end."""
    if (subject, state) == ("pool", "expired"):
        return StateConflict(subject, state, "The pool has expired: what it has left is its payer's.")
    if (subject, state) == ("pool", "frozen"):
        why = (
            "The payer has frozen all spending, and only the payer can lift that; or a deposit has left the chain, and"
        )
        return StateConflict(subject, state, f"{why} spending goes on once it is back.")
    if (subject, state) == ("session", "paused"):
        return StateConflict(subject, state, "The session is paused; its payer can resume it.")
    if subject == "pool":
        return StateConflict(subject, state, f"The pool is {state}; only an open pool takes new spending.")
    what = "has expired" if state == "expired" else f"is {state}"
    return StateConflict(subject, state, f"The session {what}; open another one.")
