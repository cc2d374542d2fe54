"""Every code that a refusal can carry. Lives here: status, title, meaning and remedy, for callers and for the docs
pages.

Turning exceptions into problems is `marketplace.api.errors`'.
"""

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field

from marketplace.api.fields import Amount, Id, JsonObject, Moment, Shape
from marketplace.api.ways_on import Action


@dataclass(frozen=True, slots=True)
class Kind:
    """What a code means. ``meaning`` and ``remedy`` are what its page under /docs/errors says."""

    status: int
    title: str
    meaning: str
    remedy: str
    is_refusal: bool = False
    """Of a status from 500 on: that it is certain all the same that nothing was done."""

    @property
    def outcome(self) -> Literal["not_charged", "unknown"]:
        """What is known of the money, unless the answer itself knows more."""
        return "unknown" if self.status >= 500 and not self.is_refusal else "not_charged"


KINDS: Final[dict[str, Kind]] = {
    "invalid_request": Kind(
        400,
        "The request breaks a rule",
        "A field, parameter or header is missing, unknown or of the wrong form. `errors` lists each one with the rule "
        "it breaks and what would pass.",
        "Change the fields that are listed and send the request again.",
    ),
    "invalid_json": Kind(
        400,
        "The body is not acceptable JSON",
        "The body is not UTF-8 JSON, or holds what JSON readers disagree on: duplicate keys, NaN, numbers beyond 2^53, "
        "NUL, half a surrogate pair, or more than 32 levels.",
        "Serialise the body with an ordinary JSON library; send large numbers and amounts as strings.",
    ),
    "idempotency_key_required": Kind(
        400,
        "An Idempotency-Key is required",
        "This operation moves money, so it takes an `Idempotency-Key` header of 1 to 255 visible ASCII characters.",
        "Make one key for each thing you want done, and repeat it when you repeat the request.",
    ),
    "unauthenticated": Kind(
        401,
        "A valid API key is required",
        "There is no `Authorization: Bearer` header, or the key in it is mistyped, unknown, revoked or expired.",
        "Send a live key. Payers make session keys with POST /v1/keys; payers and providers get theirs from an admin.",
    ),
    "insufficient_funds": Kind(
        402,
        "Not enough money",
        "The session, or the pool behind it, holds less than this needs. `remaining` is what it holds, `required` what "
        "it needs. Nothing was charged.",
        "Have the payer top up, or spend at most `remaining`; then send the same request with the same key.",
    ),
    "forbidden": Kind(
        403,
        "This key may not do that",
        "The key is live, but its scope does not reach this operation, or it is read-only.",
        "Use a key of the scope that `detail` names.",
    ),
    "approval_required": Kind(
        403,
        "A person has to approve this",
        "The amount is over the policy's `approval_above`, so a person of the payer's is asked: `approval_id` names what "
        "they see. Nothing was charged.",
        "Wait until it is approved, then send the same request with the same Idempotency-Key. A smaller amount needs no "
        "approval.",
    ),
    "policy_denied": Kind(
        403,
        "The session's policy refuses",
        "`rule` names the policy's key, `limit` its value and `would_allow` what would pass. Nothing was charged.",
        "Stay within `would_allow`, or ask the payer for a session with another policy.",
    ),
    "not_found": Kind(
        404,
        "Not found",
        "There is nothing at this address, or nothing that this key may see.",
        "Check the id, and that the key belongs to its owner.",
    ),
    "method_not_allowed": Kind(
        405,
        "Method not allowed",
        "The address exists, the method does not. The `Allow` header lists the methods.",
        "Use one of the methods in `Allow`.",
    ),
    "not_acceptable": Kind(
        406,
        "JSON is spoken here",
        "The `Accept` header leaves out application/json, and what else the operation answers in: a session's ledger in "
        "text/csv.",
        "Send `Accept: application/json` or none.",
    ),
    "conflict": Kind(
        409,
        "Its state does not allow that",
        "The subject is in a state in which this operation means nothing. `state` says which.",
        "Read the subject again; its `next_actions` say what is possible now.",
    ),
    "already_redeemed": Kind(
        409,
        "The payment has bought another request",
        "A payment buys one request. This one is bound to another request hash.",
        "Ask the buyer for a payment of this request's own.",
    ),
    "duplicate_invoice": Kind(
        409,
        "The invoice number was used before",
        "A provider uses each invoice number once in a session.",
        "Use the next number, or read the invoice that has this one.",
    ),
    "not_settled_yet": Kind(
        409,
        "The payment is in no signed batch yet",
        "A payment can be proven once it is in a signed batch. `settles_by` says when it is due for one at the latest.",
        "Ask again after `settles_by`, or wait for the event batch.signed. Nothing else is needed.",
    ),
    "idempotency_conflict": Kind(
        409,
        "The Idempotency-Key came with another request",
        "The key has had an answer for another method, path or body. The first effect stands; this did nothing.",
        "Send the first request again to get its answer, or use a new key for a new effect.",
    ),
    "pool_opening": Kind(
        409,
        "The pool is being opened",
        "A pool is opened on chain for this account, which takes some seconds. Nothing was charged.",
        "Wait for `Retry-After` seconds and send the same request with the same Idempotency-Key.",
    ),
    "payload_too_large": Kind(
        413,
        "The body is too large",
        "Bodies may have up to 256 KiB.",
        "Put large content elsewhere and send its address.",
    ),
    "unsupported_media_type": Kind(
        415,
        "The body must be JSON",
        "The `Content-Type` is not application/json in UTF-8.",
        "Send `Content-Type: application/json`.",
    ),
    "rate_limited": Kind(
        429,
        "Too many requests",
        "The key, or for keys that open nothing the address, has used up its quota: `rule` names it, `limit` is how many "
        "it is, `available_at` when the next one passes. The headers `RateLimit` and `RateLimit-Policy` of every answer "
        "say what is left. Nothing was charged.",
        "Wait for `Retry-After` seconds and send the same request with the same Idempotency-Key.",
    ),
    "internal": Kind(
        500,
        "Something broke here",
        "A fault of ours; it was logged under `request_id`. Whether the request took effect is not known.",
        "Send the same request with the same Idempotency-Key: it takes effect once at most.",
    ),
    "settlement_paused": Kind(
        503,
        "New spending waits for the chain",
        "The chain brings no blocks, and as much is owed as may wait for it. Nothing was charged. What was paid before is safe "
        "in the contract and lands when the chain goes on; holds that were placed before can be captured.",
        "Wait for `Retry-After` seconds or longer and send the same request with the same Idempotency-Key.",
        is_refusal=True,
    ),
    "unavailable": Kind(
        503,
        "Not available right now",
        "The database did not answer in time. Whether the request took effect is not known.",
        "Wait for `Retry-After` seconds and send the same request with the same Idempotency-Key.",
    ),
}


class FieldError(Shape):
    field: str
    rule: str
    message: str
    would_pass: str


class Checkpoint(Shape):
    budget: Amount
    spent: Amount
    remaining: Amount


class ProblemDocument(Shape):
    """A refusal, as RFC 9457 wants it."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldError] | None = None
    rule: str | None = None
    limit: str | int | list[str] | list[JsonObject] | None = None
    spent: str | None = None
    remaining: str | None = None
    required: str | None = None
    would_allow: str | list[str] | None = None
    policy_version: Annotated[int | None, Field(description="Which version of the session's policy decided.")] = None
    approval_id: Annotated[Id | None, Field(description="What a person is asked to approve.")] = None
    available_at: Annotated[Moment | None, Field(description="When the same request can pass.")] = None
    checkpoint: Annotated[Checkpoint | None, Field(description="Where the session's budget stands.")] = None
    subject: str | None = None
    state: str | None = None
    settles_by: str | None = None
    retryable: bool
    outcome: Annotated[
        Literal["not_charged", "charged", "unknown"] | None, Field(description="On operations that move money.")
    ] = None
    next_actions: list[Action]
    request_id: str
