"""One tree of errors. Each carries a code, the facts, whether money moved, and what to do next.

    AgentMarketError
      InvalidRequest            the request is not one the market reads
        InvalidAmount           refused here, before anything was sent
      Unauthenticated           no key, a mistyped key, a revoked key
      Forbidden                 the key is good, and may not do this
        PolicyDenied            the session's policy says no: `rule`, `limit`, `would_allow`, `available_at`
        ApprovalRequired      * a person has to say yes first: `approval_id`, `wait()`
      InsufficientFunds         there is less than that: `remaining`
        BudgetExhausted       * the budget is spent: `checkpoint`; top up, then `resume()`
      NotFound
      Conflict                  the thing is in another state
        IdempotencyConflict     the same key was used with another body
        PoolOpening             a pool is being opened; it was waited for, and is not open yet
      RateLimited               too many requests; `retry_after`
      Unavailable               the market cannot answer now
        SettlementPaused        the chain stands still; nothing new is spent until it goes on
        Unreachable             the market was never reached: nothing was sent
      ServerError               the market failed
      InvalidReply              the answer is not what the API promises
      OutcomeUnknown          * money was asked to move and no answer came: `resolve()` finds out
      OnSuccessFailed           your own function raised: after the payment, or while the money was held
      CaptureFailed           * your function returned, and the hold was not captured: `value`, `hold`
      CallFailed                the payment was accepted; the agent did not deliver: `payment` tells if it came back
      Timeout                   you waited for a state, and it did not come in time
      …                         what goes wrong on a chain: `chain.errors`

    * Resumable: `error.resume()` goes on with the very same request and key (awaited with the async client).

No network and no parsing of replies here: `wire` turns a reply into one of these.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from agentmarket.failure import AgentMarketError, Checkpoint, FieldError, NextAction, Outcome, Resumable

if TYPE_CHECKING:
    from agentmarket.answers import Hold, Payment

__all__ = [
    "AgentMarketError",
    "ApprovalRequired",
    "BudgetExhausted",
    "CallFailed",
    "CaptureFailed",
    "Checkpoint",
    "Conflict",
    "FieldError",
    "Forbidden",
    "IdempotencyConflict",
    "InsufficientFunds",
    "InvalidAmount",
    "InvalidReply",
    "InvalidRequest",
    "NextAction",
    "NotFound",
    "OnSuccessFailed",
    "Outcome",
    "OutcomeUnknown",
    "PolicyDenied",
    "PoolOpening",
    "RateLimited",
    "Resumable",
    "ServerError",
    "SettlementPaused",
    "Timeout",
    "Unauthenticated",
    "Unavailable",
    "Unreachable",
]


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


class ApprovalRequired(Forbidden, Resumable):
    """Over the policy's `approval_above`: nothing was charged, and a person was asked (`approval_id`).

    `wait()` until they said yes, then `resume()`: the same request, with the same key.
    """

    default_code = "approval_required"
    _wait: Callable[[float], Any] | None = None

    def waits(self, wait: Callable[[float], Any]) -> Self:
        self._wait = wait
        return self

    def wait(self, *, timeout: float = 300.0) -> Any:
        """The Approval, once a person approved. Raises PolicyDenied when they refused, and Timeout."""
        steps = self._wait
        return self._perform(None if steps is None else lambda: steps(timeout))


class InsufficientFunds(AgentMarketError):
    default_code = "insufficient_funds"


class BudgetExhausted(InsufficientFunds, Resumable):
    """The budget has less than this needs: nothing was charged. `checkpoint` says where it stands.

    After a top-up `resume()` goes on with the very same request; an `on_success` that had not run runs then.
    """


class NotFound(AgentMarketError):
    default_code = "not_found"


class Conflict(AgentMarketError):
    default_code = "conflict"


class IdempotencyConflict(Conflict):
    default_code = "idempotency_conflict"


class PoolOpening(Conflict):
    """The account's pool is being opened on the chain. The request is repeated by itself while it is; this is the end
    of that patience: send it again later, with the same key."""

    default_code = "pool_opening"


class RateLimited(AgentMarketError):
    default_code = "rate_limited"


class Unavailable(AgentMarketError):
    default_code = "unavailable"


class SettlementPaused(Unavailable):
    """The chain stands still, and as much is owed as may wait for it: nothing new is spent until it goes on."""

    default_code = "settlement_paused"


class Unreachable(Unavailable):
    """No connection was made, so nothing was sent and nothing was charged."""

    default_code = "unreachable"


class ServerError(AgentMarketError):
    default_code = "internal"


class InvalidReply(AgentMarketError):
    default_code = "invalid_reply"


class OutcomeUnknown(Resumable):
    """Money was asked to move and every attempt ended without an answer.

    `resolve()` looks whether it did; `resume()` sends the same request again, which is charged once however often.
    """

    default_code = "outcome_unknown"
    _find: Callable[[], Any] | None = None

    def is_found_by(self, find: Callable[[], Any]) -> Self:
        """Say which steps look the payment up."""
        if self._find is None:
            self.detail += " resolve() looks whether it was."
        self._find = find
        return self

    def resolve(self) -> Any:
        """The Payment when it was charged, None when it was not. Moves nothing.

        Raises InvalidRequest for a verb whose effect is no payment: `resume()` settles those.
        """
        if self._find is None and self._again is not None:
            raise InvalidRequest(
                "This call makes no payment that could be looked up: resume() settles it.", key=self.key
            )
        return self._perform(self._find)


class OnSuccessFailed(AgentMarketError):
    """`on_success` raised (see `__cause__`).

    After a plain `send` it is paid (`outcome` charged): call your function again, do not send. With
    `capture="on_success"` nothing was charged; `released` says whether the hold was given back already.
    """

    default_code = "on_success_failed"
    payment: "Payment | None" = None
    hold: "Hold | None" = None
    released: bool | None = None


class CaptureFailed(Resumable):
    """`on_success` returned, and the hold was not captured (see `__cause__`). What it returned is `value`.

    `resume()` tries the capture again, and nothing else.
    """

    default_code = "capture_failed"
    hold: "Hold"
    value: Any


class CallFailed(AgentMarketError):
    """The payment was accepted and the agent did not deliver.

    `payment` is as the market has it now; `refunded` says if the money came back; `problem` is the agent's own answer.
    """

    default_code = "call_failed"
    payment: "Payment"
    problem: Mapping[str, Any]

    @property
    def refunded(self) -> bool:
        return self.payment.is_returned


class Timeout(AgentMarketError):
    """You waited for a state and it did not come in time. Nothing was undone: wait again, or look at `next_actions`."""

    default_code = "timeout"
