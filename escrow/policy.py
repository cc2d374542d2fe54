"""What a session may pay. Lives here: the frozen Policy, its document, and the rules that need nothing but the policy.

A policy is immutable: a session keeps the version it was opened with. Every key is optional; an unknown key is refused.
Whom and until when it may pay is decided here (`check`). How much and how often is decided where it is counted, in the
database (`escrow_judge`, migration 0004), and explained here (`exceeded`): each rule is written once.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Final, Self

from escrow import money
from escrow.errors import InvalidAmount, InvalidPolicy, PolicyDenied

MAX_PATTERNS: Final = 100
"""Recipient patterns in one list: more is a mistake, and each payment walks them."""

AMOUNTS: Final = ("max_per_tx", "max_total", "max_per_hour", "max_per_day")
MAX_COUNT: Final = 1_000_000
"""More payments a minute than that is no limit."""
_SPANS: Final = {"max_total": "the total", "max_per_hour": "the hour's limit", "max_per_day": "the day's limit"}

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")
_SCHEME: Final = "agent://"


def host_of(agent: str) -> str | None:
    """Return the host of ``agent://host``, or None when it is not a lower-case DNS name of two or more labels."""
    host = agent.removeprefix(_SCHEME)
    if host == agent or len(host) > 253 or not _HOST.fullmatch(host):
        return None
    return host


def matches(pattern: str, agent: str) -> bool:
    """Return whether an agent's URI is meant by a pattern; ``*.`` stands for one or more whole labels, leftmost only."""
    host = host_of(agent)
    if host is None:
        return False
    name = pattern.removeprefix(_SCHEME)
    if name.startswith("*."):
        return host.endswith(name[1:])
    return host == name


@dataclass(frozen=True, slots=True)
class Policy:
    """The limits of one session. None and an empty tuple mean: no such limit."""

    max_per_tx: int | None = None
    max_total: int | None = None
    max_per_hour: int | None = None
    max_per_day: int | None = None
    max_tx_per_minute: int | None = None
    allowed_recipients: tuple[str, ...] = ()
    denied_recipients: tuple[str, ...] = ()
    expires_at: datetime | None = None

    @classmethod
    def from_document(cls, document: Mapping[str, object]) -> Self:
        """Read a policy from JSON. Raises InvalidPolicy with the key that is wrong and what would pass."""
        known = {field.name for field in fields(cls)}
        for key in document:
            if key not in known:
                raise InvalidPolicy(f"policy.{key}", "is not a policy key", "one of " + ", ".join(sorted(known)))
        return cls(
            max_per_tx=_amount(document, "max_per_tx"),
            max_total=_amount(document, "max_total"),
            max_per_hour=_amount(document, "max_per_hour"),
            max_per_day=_amount(document, "max_per_day"),
            max_tx_per_minute=_count(document, "max_tx_per_minute"),
            allowed_recipients=_patterns(document, "allowed_recipients"),
            denied_recipients=_patterns(document, "denied_recipients"),
            expires_at=_moment(document, "expires_at"),
        )

    def to_document(self) -> dict[str, object]:
        """Return the JSON that `from_document` reads; limits that are not set are left out."""
        amounts = {name: getattr(self, name) for name in AMOUNTS}
        document: dict[str, object] = {
            name: money.render(micros) for name, micros in amounts.items() if micros is not None
        }
        if self.max_tx_per_minute is not None:
            document["max_tx_per_minute"] = self.max_tx_per_minute
        if self.allowed_recipients:
            document["allowed_recipients"] = list(self.allowed_recipients)
        if self.denied_recipients:
            document["denied_recipients"] = list(self.denied_recipients)
        if self.expires_at is not None:
            document["expires_at"] = self.expires_at.isoformat().replace("+00:00", "Z")
        return document


def check(policy: Policy, *, to: str, now: datetime) -> None:
    """Return when the policy allows the recipient now; raise PolicyDenied with the first rule that does not.

    How long the answer holds is `valid`'s to say.
    """
    if policy.expires_at is not None and now >= policy.expires_at:
        limit = policy.expires_at.isoformat().replace("+00:00", "Z")
        raise PolicyDenied("expires_at", f"The policy ended at {limit}.", limit=limit, would_allow=None)
    _check_recipient(policy, to)


def valid(policy: Policy, now: datetime) -> tuple[datetime | None, datetime | None]:
    """Return since when, and until when exclusively, the answer that `check` gives now holds; None where it always does."""
    end = policy.expires_at
    return (None, end) if end is None or now < end else (end, None)


def exceeded(rule: str, *, limit: int, spent: int, amount_micros: int) -> PolicyDenied:
    """Return the refusal of an amount, or of one payment more, over a limit. Amounts in micro-USDC.

    ``spent`` is what counts against the limit already.
    """
    asked = money.render(amount_micros)
    if rule == "max_tx_per_minute":
        return PolicyDenied(
            rule, f"{limit} payments have been made within a minute.", limit=limit, would_allow=None, retryable=True
        )
    shown, left = money.render(limit), money.render(max(limit - spent, 0))
    if rule == "max_per_tx":
        detail = f"{asked} USDC is over the limit of {shown} for one payment."
        return PolicyDenied(rule, detail, limit=shown, would_allow=shown)
    detail = f"{asked} USDC would pass {_SPANS[rule]} of {shown}; {left} is left."
    slides = rule != "max_total"
    return PolicyDenied(rule, detail, limit=shown, would_allow=left, spent=money.render(spent), retryable=slides)


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


def _amount(document: Mapping[str, object], key: str) -> int | None:
    if key not in document:
        return None
    try:
        return money.parse(document[key], field=f"policy.{key}")
    except InvalidAmount as error:
        facts = error.facts
        raise InvalidPolicy(str(facts["field"]), str(facts["rule"]), str(facts["would_pass"])) from None


def _count(document: Mapping[str, object], key: str) -> int | None:
    if key not in document:
        return None
    value = document[key]
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_COUNT:
        raise InvalidPolicy(f"policy.{key}", f"must be an integer from 1 to {MAX_COUNT}", "60")
    return value


def _patterns(document: Mapping[str, object], key: str) -> tuple[str, ...]:
    if key not in document:
        return ()
    listed = document[key]
    field = f"policy.{key}"
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_PATTERNS:
        raise InvalidPolicy(field, f"must be a list of 1 to {MAX_PATTERNS} patterns", '["*.acme.dev"]')
    return tuple(_pattern(field, item) for item in _distinct(listed))


def _pattern(field: str, item: object) -> str:
    if isinstance(item, str):
        host = item.removeprefix(_SCHEME).removeprefix("*.")
        if len(host) <= 253 and _HOST.fullmatch(host):
            return item
    raise InvalidPolicy(
        field,
        "must hold lower-case DNS names, with a wildcard only as the whole leftmost label",
        '"*.acme.dev", "lint.acme.dev" or "agent://lint.acme.dev"',
    )


def _distinct(listed: Iterable[object]) -> list[object]:
    seen: list[object] = []
    for item in listed:
        if item not in seen:
            seen.append(item)
    return seen


def _moment(document: Mapping[str, object], key: str) -> datetime | None:
    if key not in document:
        return None
    value = document[key]
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) and value.isascii() else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidPolicy(f"policy.{key}", "must be a time with its zone (RFC 3339)", '"2030-01-01T00:00:00Z"')
    return moment.astimezone(UTC)
