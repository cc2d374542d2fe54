"""What a session may pay. Lives here: the rules that need nothing but the policy, and the words of every refusal by one.

Whom, for what and when is decided here (`check`). How much and how often is decided where it is counted, in the database
(`escrow_judge`), and explained here (`exceeded`): each rule is written once. The Policy itself and its document are
`escrow.limits`'; what a policy under another one can be is `escrow.narrowing`'s.
"""

from datetime import datetime
from typing import Final

from escrow import money, windows
from escrow.errors import PolicyDenied
from escrow.limits import Policy, shown
from escrow.narrowing import narrow, tightened
from escrow.recipients import matches

__all__ = ["Policy", "check", "exceeded", "narrow", "tightened", "valid"]

_SPANS: Final = {"max_total": "the total", "max_per_hour": "the hour's limit", "max_per_day": "the day's limit"}


def check(policy: Policy, *, to: str, capability: str | None, now: datetime) -> None:
    """Return when the policy allows the recipient and the capability now; raise PolicyDenied by the first rule that does not.

    How long the answer holds is `valid`'s to say.
    """
    if policy.expires_at is not None and now >= policy.expires_at:
        limit = shown(policy.expires_at)
        raise PolicyDenied("expires_at", f"The policy ended at {limit}.", limit=limit, would_allow=None)
    if policy.windows and not windows.known(policy.windows, now).is_inside:
        raise _closed(policy, now)
    if policy.denied_recipients or policy.allowed_recipients:
        _check_recipient(policy, to)
    if policy.allowed_capabilities and capability not in policy.allowed_capabilities:
        allowed = list(policy.allowed_capabilities)
        detail = f"{capability} is none of the allowed capabilities."
        if capability is None:
            detail = "The policy limits what is paid for; the payment has to name its capability."
        raise PolicyDenied("allowed_capabilities", detail, limit=allowed, would_allow=allowed)


def valid(policy: Policy, now: datetime) -> tuple[datetime | None, datetime | None]:
    """Return a time around now within which `check` answers as it does now: since when, and until when exclusively.

    None has no end. The time is never too long; the longest it need not be.
    """
    end = policy.expires_at
    if end is not None and now >= end:
        return end, None
    if not policy.windows:
        return None, end
    span = windows.known(policy.windows, now)
    return span.since, span.until if end is None or (span.until is not None and span.until < end) else end


def exceeded(rule: str, *, limit: int, spent: int, amount_micros: int) -> PolicyDenied:
    """Return the refusal of an amount, or of one payment more, over a limit. Amounts in micro-USDC.

    ``spent`` is what counts against the limit already.
    """
    asked = money.render(amount_micros)
    if rule == "max_tx_per_minute":
        return PolicyDenied(
            rule, f"{limit} payments have been made within a minute.", limit=limit, would_allow=None, retryable=True
        )
    show, left = money.render(limit), money.render(max(limit - spent, 0))
    if rule in _OF_ONE:
        return PolicyDenied(rule, _OF_ONE[rule].format(asked=asked, limit=show), limit=show, would_allow=show)
    detail = f"{asked} USDC would pass {_SPANS[rule]} of {show}; {left} is left."
    slides = rule != "max_total"
    return PolicyDenied(rule, detail, limit=show, would_allow=left, spent=money.render(spent), retryable=slides)


_OF_ONE: Final = {
    "max_per_tx": "{asked} USDC is over the limit of {limit} for one payment.",
    "new_recipient_max": "{asked} USDC is over the limit of {limit} for the first payment to a recipient.",
    "approval_above": "{asked} USDC is over {limit}, above which a person has to approve.",
}
"""What is said of the limits of a single payment."""


def _closed(policy: Policy, now: datetime) -> PolicyDenied:
    limit = [windows.written(window) for window in policy.windows]
    opening = windows.next_opening(policy.windows, now)
    if opening is None or (policy.expires_at is not None and opening >= policy.expires_at):
        detail = "The policy's windows are closed, and none opens before it ends."
        return PolicyDenied("windows", detail, limit=limit, would_allow=None)
    at = shown(opening)
    detail = f"The policy's windows are closed; the next one opens at {at}."
    return PolicyDenied("windows", detail, limit=limit, would_allow=at, available_at=at, retryable=True)


def _check_recipient(policy: Policy, to: str) -> None:
    if any(matches(pattern, to) for pattern in policy.denied_recipients):
        denied = list(policy.denied_recipients)
        raise PolicyDenied(
            "denied_recipients", f"{to} is on the list of denied recipients.", limit=denied, would_allow=None
        )
    allowed = policy.allowed_recipients
    if allowed and not any(matches(pattern, to) for pattern in allowed):
        detail = f"{to} matches none of the allowed recipients."
        raise PolicyDenied("allowed_recipients", detail, limit=list(allowed), would_allow=list(allowed))
