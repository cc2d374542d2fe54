"""What was decided of requests to spend. Lives here: putting a refusal on record that its database transaction took back.

What goes through `escrow_send` is put on record there, in the statement that decides it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import transaction

from escrow import approvals, clock
from escrow.errors import ApprovalRequired, EscrowError
from escrow.models import Approval, Denial


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A refusal, and the request that it is of."""

    refusal: EscrowError
    session_id: UUID
    payer_id: UUID
    party_id: UUID
    kind: str
    to: str
    capability: str
    amount_micros: int
    policy_version: int
    fingerprint: bytes
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @transaction.atomic
    def keep(self) -> None:
        """Write the refusal down; of one that a person can lift, what the person is asked, once for each request."""
        facts = {name: fact for name, fact in self.refusal.facts.items() if name != "policy_version"}  # it has a column
        Denial.objects.create(
            session_id=self.session_id,
            payer_id=self.payer_id,
            party_id=self.party_id,
            kind=self.kind,
            rule=_rule_of(self.refusal),
            policy_version=self.policy_version,
            to=self.to,
            capability=self.capability,
            amount_micros=self.amount_micros,
            facts=facts,
        )
        if isinstance(self.refusal, ApprovalRequired):
            self._ask()

    def _ask(self) -> None:
        now = clock.now()
        asked = Approval(
            id=UUID(str(self.refusal.facts["approval_id"])),
            session_id=self.session_id,
            payer_id=self.payer_id,
            kind=self.kind,
            fingerprint=self.fingerprint,
            to=self.to,
            capability=self.capability,
            amount_micros=self.amount_micros,
            metadata=dict(self.metadata),
            created_at=now,
            expires_at=now + approvals.window(),
        )
        Approval.objects.bulk_create([asked], ignore_conflicts=True)
        waiting = Approval.objects.filter(session_id=self.session_id, fingerprint=self.fingerprint)
        found = waiting.exclude(status=Approval.Status.EXPIRED).select_related("session__pool").get()
        if str(found.pk) == str(asked.pk):
            approvals.tell(found, "approval.requested")
        self.refusal.facts["approval_id"] = str(found.pk)


@contextmanager
def on_record() -> Iterator[None]:
    """Let what is refused inside be written down once its database transaction is over."""
    try:
        yield
    except EscrowError as refusal:
        if refusal.afterwards is not None:
            refusal.afterwards()
        raise


def _rule_of(refusal: EscrowError) -> str:
    """Return what refused, in the words of `escrow_judge`."""
    if isinstance(refusal, ApprovalRequired):
        return refusal.code
    if refusal.facts.get("rule") == "approval_above":
        return "approval_refused"
    if "rule" in refusal.facts:
        return str(refusal.facts["rule"])
    if "state" in refusal.facts:
        return f"{refusal.facts['subject']}_{refusal.facts['state']}"
    return refusal.code
