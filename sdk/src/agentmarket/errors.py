"""One tree of errors. Each carries a code, the facts, whether money moved, and what to do next.

    AgentMarketError
      InvalidRequest            the request is not one the market reads
        InvalidAmount           refused here, before anything was sent
      Unauthenticated           no key, a mistyped key, a revoked key
      Forbidden                 the key is good, and may not do this
        PolicyDenied            the session's policy says no: `rule`, `limit`, `would_allow`
      InsufficientFunds         the session (or pool) has less than that: `remaining`
      NotFound
      Conflict                  the thing is in another state
        IdempotencyConflict     the same key was used with another body
      RateLimited               too many requests; `retry_after`
      Unavailable               the market cannot answer now
        Unreachable             the market was never reached: nothing was sent
      ServerError               the market failed
      InvalidReply              the answer is not what the API promises
      OutcomeUnknown            money was asked to move and no answer came: repeat with `key=`
      OnSuccessFailed           the payment was accepted; your own function raised afterwards
      CallFailed                the payment was accepted; the agent did not deliver: `payment` tells if it came back
      Timeout                   you waited for a state, and it did not come in time
      …                         what goes wrong on a chain: `chain.errors`

No network and no parsing of replies here: `wire` turns a reply into one of these.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from agentmarket.answers import Payment

Outcome = Literal["not_charged", "charged", "unknown"]

_OUTCOMES: Mapping[str, str] = {
    "not_charged": "Nothing was charged.",
    "charged": "The payment was made.",
    "unknown": "It is not known if money moved.",
}


@dataclass(frozen=True)
class NextAction:
    """A request that would help now."""

    method: str
    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.method} {self.path} ({self.why})" if self.why else f"{self.method} {self.path}"


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one field of a request, and a value that would pass."""

    field: str
    rule: str
    message: str
    would_pass: Any = None

    def __str__(self) -> str:
        hint = "" if self.would_pass is None else f"; would pass: {self.would_pass}"
        return f"{self.field}: {self.message or self.rule}{hint}"


class AgentMarketError(Exception):
    """Everything this package raises about the market. `str()` says what happened, if money moved, and what to do."""

    default_code: ClassVar[str] = "error"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        status: int | None = None,
        rule: str | None = None,
        limit: str | int | tuple[str, ...] | None = None,
        spent: str | None = None,
        remaining: str | None = None,
        required: str | None = None,
        would_allow: str | tuple[str, ...] | None = None,
        state: str | None = None,
        retryable: bool = False,
        outcome: Outcome | None = None,
        next_actions: tuple[NextAction, ...] = (),
        request_id: str | None = None,
        errors: tuple[FieldError, ...] = (),
        retry_after: float | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.default_code
        self.status = status
        self.rule = rule
        self.limit = limit
        self.spent = spent
        self.remaining = remaining
        self.required = required
        self.would_allow = would_allow
        self.state = state
        self.retryable = retryable
        self.outcome = outcome
        self.next_actions = next_actions
        self.request_id = request_id
        self.errors = errors
        self.retry_after = retry_after
        self.key = key

    def __str__(self) -> str:
        parts = [self.detail.rstrip(), f"[{', '.join(self._facts())}]"]
        parts += [f"{error}." for error in self.errors]
        if self.outcome is not None:
            parts.append(_OUTCOMES[self.outcome])
        if self.next_actions:
            parts.append("Next: " + "; ".join(map(str, self.next_actions)) + ".")
        if self.request_id:
            parts.append(f"Request {self.request_id}.")
        return " ".join(parts)

    def _facts(self) -> list[str]:
        facts = [self.code]
        for name in ("rule", "limit", "spent", "remaining", "required", "would_allow", "state", "retry_after"):
            value = getattr(self, name)
            if value is not None:
                shown = " or ".join(value) if isinstance(value, tuple) else value
                facts.append(f"{name.replace('_', ' ')} {shown}")
        return facts


class InvalidRequest(AgentMarketError):
    default_code = "invalid_request"


class InvalidAmount(InvalidRequest):
    """An amount that is not exact money. Nothing was sent."""

    def __init__(self, detail: str, *, field: str = "amount", would_pass: str | None = None) -> None:
        super().__init__(detail, outcome="not_charged")
        self.field = field
        self.would_pass = would_pass


class Unauthenticated(AgentMarketError):
    default_code = "unauthenticated"


class Forbidden(AgentMarketError):
    default_code = "forbidden"


class PolicyDenied(Forbidden):
    default_code = "policy_denied"


class InsufficientFunds(AgentMarketError):
    default_code = "insufficient_funds"


class NotFound(AgentMarketError):
    default_code = "not_found"


class Conflict(AgentMarketError):
    default_code = "conflict"


class IdempotencyConflict(Conflict):
    default_code = "idempotency_conflict"


class RateLimited(AgentMarketError):
    default_code = "rate_limited"


class Unavailable(AgentMarketError):
    default_code = "unavailable"


class Unreachable(Unavailable):
    """No connection was made, so nothing was sent and nothing was charged."""

    default_code = "unreachable"


class ServerError(AgentMarketError):
    default_code = "internal"


class InvalidReply(AgentMarketError):
    default_code = "invalid_reply"


class OutcomeUnknown(AgentMarketError):
    """Money was asked to move and every attempt ended without an answer.

    Repeat the same call with `key=error.key`: if the first one was charged you get its answer, not a second charge.
    """

    default_code = "outcome_unknown"


class OnSuccessFailed(AgentMarketError):
    """The payment was accepted, then `on_success` raised (see `__cause__`). Call your function again, do not send."""

    default_code = "on_success_failed"
    payment: "Payment"


class CallFailed(AgentMarketError):
    """The payment was accepted and the agent did not deliver.

    `payment` is as the market has it now; `refunded` says if the money came back; `problem` is the agent's own answer.
    """

    default_code = "call_failed"
    payment: "Payment"
    problem: Mapping[str, Any]

    @property
    def refunded(self) -> bool:
        return self.payment.status == "refunded"


class Timeout(AgentMarketError):
    """You waited for a state and it did not come in time. Nothing was undone: wait again, or look at `next_actions`."""

    default_code = "timeout"
