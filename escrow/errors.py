"""Every refusal of the money rooms. Lives here: the tree, and the facts each error carries. HTTP status codes do not.

    EscrowError
    |-- InvalidInput            invalid_request
    |   |-- InvalidAmount
    |   `-- InvalidPolicy
    |-- InsufficientFunds       insufficient_funds
    |-- PolicyDenied            policy_denied
    |-- ApprovalRequired        approval_required
    |-- StateConflict           conflict
    |   |-- AlreadyRedeemed     already_redeemed
    |   |-- DuplicateInvoice    duplicate_invoice
    |   |-- NotRefundable       conflict
    |   |-- PoolOpening         pool_opening
    |   `-- NotSettledYet       not_settled_yet
    |-- SettlementPaused        settlement_paused
    |-- IdempotencyConflict     idempotency_conflict
    |-- NotFound                not_found
    `-- Forbidden               forbidden

An EscrowError is always a refusal: nothing has been charged and nothing has changed. Amounts in ``facts`` are decimal strings.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import ClassVar


class EscrowError(Exception):
    """A refusal by the money rooms. ``facts`` say what was compared; ``retryable`` if the same call can pass later."""

    code: ClassVar[str] = "refused"
    retryable: bool = False
    outcome: ClassVar[str] = "not_charged"

    def __init__(self, detail: str, facts: Mapping[str, object] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.facts: dict[str, object] = dict(facts or {})
        self.afterwards: Callable[[], object] | None = None
        """What keeps this refusal, or what it began, once the database transaction that it ended is rolled back."""


class InvalidInput(EscrowError):
    """A field that breaks a rule of form; names the field, the rule and what would pass."""

    code = "invalid_request"

    def __init__(self, field: str, rule: str, would_pass: str) -> None:
        super().__init__(f"{field} {rule}.", {"field": field, "rule": rule, "would_pass": would_pass})


class InvalidAmount(InvalidInput):
    """An amount that is not a decimal string of USDC, or is too small."""


class InvalidPolicy(InvalidInput):
    """A policy document with an unknown key or a value of the wrong form."""


class InsufficientFunds(EscrowError):
    """An account holds less than the call needs. The call can pass after a top-up."""

    code = "insufficient_funds"
    retryable = True

    def __init__(
        self, account: str, remaining: str, required: str, *, checkpoint: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(
            f"{account} has {remaining} USDC left; this needs {required}.",
            {"remaining": remaining, "required": required, "would_allow": remaining},
        )
        if checkpoint is not None:
            self.facts["checkpoint"] = dict(checkpoint)


class PolicyDenied(EscrowError):
    """The session's policy refuses. ``rule`` names the policy key, ``would_allow`` what passes it.

    ``available_at`` is when the same call can pass, where that is known (RFC 3339).
    """

    code = "policy_denied"

    def __init__(
        self,
        rule: str,
        detail: str,
        *,
        limit: object,
        would_allow: object,
        spent: str | None = None,
        available_at: str | None = None,
        retryable: bool = False,
    ) -> None:
        facts: dict[str, object] = {"rule": rule, "limit": limit, "would_allow": would_allow}
        if spent is not None:
            facts["spent"] = spent
        if available_at is not None:
            facts["available_at"] = available_at
        super().__init__(detail, facts)
        self.retryable = retryable  # a limit over a sliding time makes room by itself, and windows open


class ApprovalRequired(EscrowError):
    """An amount that a person must allow first. The same request can pass once the approval is given."""

    code = "approval_required"
    retryable = True

    def __init__(self, detail: str, *, limit: str, approval_id: str) -> None:
        facts = {"rule": "approval_above", "limit": limit, "would_allow": limit, "approval_id": approval_id}
        super().__init__(detail, facts)


class StateConflict(EscrowError):
    """The subject is in a state in which this verb means nothing."""

    code = "conflict"

    def __init__(self, subject: str, state: str, detail: str) -> None:
        super().__init__(detail, {"subject": subject, "state": state})


class AlreadyRedeemed(StateConflict):
    """A payment that has bought another request already."""

    code = "already_redeemed"


class DuplicateInvoice(StateConflict):
    """An invoice number that this provider has used in this session already."""

    code = "duplicate_invoice"


class PoolOpening(StateConflict):
    """The first session of an account whose pool is being opened; the same call can pass in some seconds."""

    code = "pool_opening"
    retryable = True


class NotRefundable(StateConflict):
    """A refund for which too little is owed to its provider right now. ``would_allow`` is what could go back."""

    def __init__(self, state: str, would_allow: str) -> None:
        detail = (
            f"{would_allow} USDC can go back now: a refund is paid out of what the pool owes the provider and has not "
            "settled. Refund that much, wait until more is owed, or let the buyer open a dispute."
        )
        super().__init__("payment", state, detail)
        self.facts["would_allow"] = would_allow


class NotSettledYet(StateConflict):
    """A payment that waits for its batch. ``settles_by`` is when it is due at the latest; the same call can pass then."""

    code = "not_settled_yet"
    retryable = True

    def __init__(self, state: str, detail: str, *, settles_by: datetime) -> None:
        super().__init__("payment", state, detail)
        self.facts["settles_by"] = settles_by.astimezone(UTC).isoformat().replace("+00:00", "Z")


class SettlementPaused(EscrowError):
    """The chain stands still, and as much is owed as may wait for it. The same call can pass once the chain goes on."""

    code = "settlement_paused"
    retryable = True

    def __init__(self) -> None:
        super().__init__(
            "The chain brings no blocks at the moment, so nothing can be settled, and as much is owed as may wait for that. "
            "Nothing new is spent until it goes on; what was spent before lands then."
        )


class IdempotencyConflict(EscrowError):
    """An idempotency key that came before with another request."""

    code = "idempotency_conflict"

    def __init__(self, key: str) -> None:
        super().__init__(
            "This Idempotency-Key came before with another request. "
            "Send the same request again, or use a new key to pay again.",
            {"idempotency_key": key},
        )


class NotFound(EscrowError):
    """Nothing by that id, or nothing that the caller may see."""

    code = "not_found"


class Forbidden(EscrowError):
    """The subject exists and the caller may see it, but this verb is not the caller's."""

    code = "forbidden"


def require_text(field: str, text: str, better: str = "a sentence that the other side can act on") -> None:
    """Return when a text says something. Raises InvalidInput."""
    if not text.strip():
        raise InvalidInput(field, "must say something", better)
