"""What the page of each code says. Lives here: an example of each problem, what each rule of a policy means, both as Markdown.

The codes are `problems`'. The same facts make the pages at /docs/errors, docs/errors.md (`.ci/errors.py` writes it) and the
examples of the OpenAPI document.
"""

import json
from typing import Any, Final

from marketplace.api.problems import KINDS, Kind

SESSION: Final = "/v1/sessions/0198c5f0-7a54-7c3e-9c5e-0c7c8f3f2a10"
PAYMENT: Final = "/v1/payments/0198c5f1-2b11-7d09-8c3e-5d1f8a6b7c20"
AT: Final = "2030-01-01T00:01:00Z"
SENT: Final[dict[str, Any]] = {"to": "agent://lint.acme.dev", "amount": "0.25"}
_KEYED: Final = ["Idempotency-Key"]
_READ_SESSION: Final = {"method": "GET", "path": SESSION, "why": "See what is left and what the policy allows."}
_AGAIN: Final = {"method": "POST", "path": "/v1/payments", "headers": _KEYED, "body": SENT}

RETRYABLE: Final[dict[str, str]] = {
    "insufficient_funds": "Yes, once there is more money.",
    "approval_required": "Yes, once it is approved.",
    "policy_denied": "Where time helps (`max_per_hour`, `max_per_day`, `max_tx_per_minute`, `windows`): `retryable` says so.",
    "pool_opening": "Yes, after `Retry-After`.",
    "not_settled_yet": "Yes, after `settles_by`.",
    "rate_limited": "Yes, after `Retry-After`.",
    "settlement_paused": "Yes, after `Retry-After`, once the chain goes on.",
    "internal": "Yes, with the same `Idempotency-Key`.",
    "unavailable": "Yes, after `Retry-After`, with the same `Idempotency-Key`.",
}
"""Codes whose very same request can pass later; that of any other cannot."""

RULES: Final[dict[str, tuple[str, str]]] = {
    "expires_at": ("The policy has ended.", "null: nothing passes any more; the payer sets another policy."),
    "windows": (
        "The policy has hours, and it is none of them now.",
        "when the next window opens, as in `available_at`; null when none opens before the policy ends.",
    ),
    "denied_recipients": ("The agent is on the list of those who may not be paid.", "null: another agent."),
    "allowed_recipients": (
        "The agent is not among those who may be paid.",
        "the patterns; `*.acme.dev` is every name below.",
    ),
    "allowed_capabilities": (
        "The payment names no capability, or one that the policy does not list.",
        "the capabilities; send one of them as `capability`.",
    ),
    "max_per_tx": ("The amount is over the limit of one payment.", "the limit."),
    "new_recipient_max": ("It is the first payment to this agent, for which there is a lower limit.", "that limit."),
    "approval_above": (
        "The amount is over what passes without a person, and the person has refused it.",
        "the most that passes without asking.",
    ),
    "max_total": (
        "With this amount the session would have spent more than it may in all.",
        "what is left of the total.",
    ),
    "max_per_hour": ("The same within the last hour, to the microsecond.", "what passes now; more as time goes by."),
    "max_per_day": ("The same within the last 24 hours.", "what passes now; more as time goes by."),
    "max_tx_per_minute": ("So many payments were made within the last minute.", "null: wait some seconds."),
}
"""For each rule of a policy: what its refusal means, and what `would_allow` is then."""

_FACTS: Final[dict[str, dict[str, Any]]] = {
    "invalid_request": {
        "detail": "amount must be a string.",
        "errors": [
            {
                "field": "amount",
                "rule": "must be a string",
                "message": "amount must be a string.",
                "would_pass": 'a string such as "0.008"',
            }
        ],
    },
    "insufficient_funds": {"remaining": "0.10", "required": "0.25", "would_allow": "0.10"},
    "approval_required": {
        "rule": "approval_above",
        "limit": "0.20",
        "would_allow": "0.20",
        "policy_version": 3,
        "approval_id": "0198c5f2-4c30-7b1a-9f65-7e2d9c8b6a31",
    },
    "policy_denied": {"rule": "max_per_tx", "limit": "0.20", "would_allow": "0.20", "policy_version": 3},
    "conflict": {"subject": "session", "state": "closed"},
    "already_redeemed": {"subject": "payment", "state": "redeemed"},
    "duplicate_invoice": {"subject": "invoice", "state": "submitted"},
    "not_settled_yet": {"subject": "payment", "state": "payable", "settles_by": AT},
    "rate_limited": {"rule": "calls", "limit": 6000, "available_at": AT},
}
_NEXT: Final[dict[str, list[dict[str, Any]]]] = {
    "insufficient_funds": [
        {
            "method": "POST",
            "path": f"{SESSION}/top-up",
            "why": "Move more of the pool's money into the session, then repeat the request.",
            "headers": _KEYED,
            "body": {"amount": "0.15"},
        }
    ],
    "policy_denied": [_READ_SESSION],
    "forbidden": [{"method": "GET", "path": "/v1/me", "why": "See whose key this is, and what it may do."}],
    "conflict": [{"method": "GET", "path": SESSION, "why": "Read its state and its next actions."}],
    "already_redeemed": [{"method": "GET", "path": PAYMENT, "why": "Read its state and its next actions."}],
    "not_settled_yet": [
        {"method": "GET", "path": PAYMENT, "why": "Read its status: a receipt is there once it is settling."}
    ],
    **{
        code: [{**_AGAIN, "why": "Repeat the request with the same Idempotency-Key."}]
        for code in ("internal", "unavailable")
    },
    **{
        code: [
            {**_AGAIN, "why": "Wait for Retry-After seconds, then repeat the request with the same Idempotency-Key."}
        ]
        for code in ("rate_limited", "pool_opening", "settlement_paused")
    },
    "approval_required": [
        {**_AGAIN, "why": "Once it is approved, repeat the request with the same Idempotency-Key."},
    ],
}


def example(code: str) -> dict[str, Any]:
    """Return a problem document of a code, as an operation that moves money answers it."""
    kind = KINDS[code]
    said = {"detail": kind.meaning.split(". ")[0].rstrip(".") + ".", **_FACTS.get(code, {})}
    read = {"method": "GET", "path": f"/docs/errors/{code}", "why": "Read what this code means and what helps."}
    return {
        "type": f"/docs/errors/{code}",
        "title": kind.title,
        "status": kind.status,
        "detail": said.pop("detail"),
        "code": code,
        **said,
        "retryable": code in RETRYABLE and code != "policy_denied",
        "outcome": kind.outcome,
        "next_actions": [*_NEXT.get(code, ()), read],
        "request_id": "0b54c7f0-0b0e-4b39-9a6e-6d2f3c1c9f55",
    }


def page(code: str) -> dict[str, Any]:
    """Return what the page of a code says."""
    kind = KINDS[code]
    return {
        "code": code,
        "kind": kind,
        "retryable": RETRYABLE.get(code, "No: the same request is refused again."),
        "outcome": _outcome(kind),
        "example": json.dumps(example(code), indent=2, ensure_ascii=False),
        "rules": RULES if code == "policy_denied" else {},
    }


def _outcome(kind: Kind) -> str:
    if kind.outcome == "unknown":
        return "`unknown`, unless the answer says `not_charged`: then it is certain that nothing was done."
    return "`not_charged`: nothing was done and no money moved."


def markdown() -> str:
    """Return all pages as one Markdown document."""
    lines = [
        "# Refusals, code by code",
        "",
        "Written by `python .ci/errors.py` from `marketplace/api/problems.py` and `error_pages.py`: change those. What holds",
        "for all of them is in [api.md](api.md#refusals). Each code has the same page at `/docs/errors/<code>` of a running",
        "service, where its `type` points.",
        "",
        "| status | code | |",
        "| --- | --- | --- |",
        *(f"| {kind.status} | [`{code}`](#{code}) | {kind.title} |" for code, kind in KINDS.items()),
    ]
    for code in KINDS:
        lines += ["", *_section(page(code))]
    return "\n".join(lines) + "\n"


def _section(said: dict[str, Any]) -> list[str]:
    kind = said["kind"]
    lines = [
        f"## {said['code']}",
        "",
        f"**{kind.status}: {kind.title}.** {kind.meaning}",
        "",
        f"- **What helps:** {kind.remedy}",
        f"- **Can the same request pass later?** {said['retryable']}",
        f"- **Outcome**, where money moves: {said['outcome']}",
        "",
        "```json",
        said["example"],
        "```",
    ]
    if said["rules"]:
        lines += [
            "",
            "What each rule of a policy means, and what `would_allow` is:",
            "",
            "| rule | refused because | would_allow |",
        ]
        lines += ["| --- | --- | --- |"]
        lines += [f"| `{rule}` | {means} | {would} |" for rule, (means, would) in said["rules"].items()]
    return lines
