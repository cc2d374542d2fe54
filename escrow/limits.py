"""What a policy can say. Lives here: the frozen Policy, and reading and writing its document.

What it means is `escrow.policy`'s. Every key is optional; an unknown key is refused. A policy is immutable: another one is
another version.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Final, Self

from escrow import ap2, money, recipients, windows
from escrow.ap2 import Asked
from escrow.errors import InvalidAmount, InvalidPolicy
from escrow.windows import Window

AMOUNTS: Final = (
    "max_per_tx",
    "max_total",
    "max_per_hour",
    "max_per_day",
    "approval_above",
    "new_recipient_max",
)
"""The keys whose value is an amount."""
LISTS: Final = ("allowed_recipients", "denied_recipients", "allowed_capabilities")
"""The keys whose value is a list of names."""
MAX_COUNT: Final = 1_000_000
"""More payments a minute than that is no limit."""
MAX_CHECKPOINTS: Final = 20
CHECKPOINTS: Final = (5000, 8000, 9500)
"""Where spending is told of when a policy does not say: basis points of the budget."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The limits of one session, amounts in micro-USDC. None and an empty tuple mean: no such limit."""

    max_per_tx: int | None = None
    max_total: int | None = None
    max_per_hour: int | None = None
    max_per_day: int | None = None
    max_tx_per_minute: int | None = None
    allowed_recipients: tuple[str, ...] = ()
    denied_recipients: tuple[str, ...] = ()
    allowed_capabilities: tuple[str, ...] = ()
    windows: tuple[Window, ...] = ()
    approval_above: int | None = None
    """What is paid without asking a person, at most."""
    new_recipient_max: int | None = None
    """What the first payment to somebody is, at most."""
    checkpoint_at: tuple[int, ...] = ()
    """Basis points of the budget, ascending; empty means `CHECKPOINTS`."""
    expires_at: datetime | None = None

    @classmethod
    def from_document(cls, document: Mapping[str, object]) -> Self:
        """Read a policy from JSON. Raises InvalidPolicy with the key that is wrong and what would pass."""
        asked = ap2.canonical(document)
        known = {field.name for field in fields(cls)}
        for key in asked:
            if key not in known:
                raise InvalidPolicy(f"policy.{key}", "is not a policy key", "one of " + ", ".join(sorted(known)))
        return cls(
            max_per_tx=_amount(asked, "max_per_tx"),
            max_total=_amount(asked, "max_total"),
            max_per_hour=_amount(asked, "max_per_hour"),
            max_per_day=_amount(asked, "max_per_day"),
            max_tx_per_minute=_count(asked, "max_tx_per_minute"),
            allowed_recipients=_patterns(asked, "allowed_recipients"),
            denied_recipients=_patterns(asked, "denied_recipients"),
            allowed_capabilities=_capabilities(asked, "allowed_capabilities"),
            windows=_windows(asked, "windows"),
            approval_above=_amount(asked, "approval_above"),
            new_recipient_max=_amount(asked, "new_recipient_max"),
            checkpoint_at=_fractions(asked, "checkpoint_at"),
            expires_at=_moment(asked, "expires_at"),
        )

    def to_document(self) -> dict[str, object]:
        """Return the JSON that `from_document` reads, in our own keys; limits that are not set are left out."""
        document: dict[str, object] = {
            name: money.render(micros) for name in AMOUNTS if (micros := getattr(self, name)) is not None
        }
        document |= {name: list(names) for name in LISTS if (names := getattr(self, name))}
        if self.max_tx_per_minute is not None:
            document["max_tx_per_minute"] = self.max_tx_per_minute
        if self.windows:
            document["windows"] = [windows.written(window) for window in self.windows]
        if self.checkpoint_at:
            document["checkpoint_at"] = [fraction(basis_points) for basis_points in self.checkpoint_at]
        if self.expires_at is not None:
            document["expires_at"] = shown(self.expires_at)
        return document


def shown(moment: datetime) -> str:
    """Return a moment as RFC 3339 in UTC, ending in Z."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def fraction(basis_points: int) -> str:
    """Return the decimal string of a share of one: 9500 -> ``"0.95"``."""
    return f"0.{basis_points:04d}".rstrip("0")


def _amount(asked: Asked, key: str) -> int | None:
    if key not in asked:
        return None
    field, value = asked[key]
    try:
        return money.parse(value, field=field)
    except InvalidAmount as error:
        facts = error.facts
        raise InvalidPolicy(str(facts["field"]), str(facts["rule"]), str(facts["would_pass"])) from None


def _count(asked: Asked, key: str) -> int | None:
    if key not in asked:
        return None
    field, value = asked[key]
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_COUNT:
        raise InvalidPolicy(field, f"must be an integer from 1 to {MAX_COUNT}", "60")
    return value


def _patterns(asked: Asked, key: str) -> tuple[str, ...]:
    if key not in asked:
        return ()
    field, value = asked[key]
    return recipients.patterns(value, field=field)


def _capabilities(asked: Asked, key: str) -> tuple[str, ...]:
    if key not in asked:
        return ()
    field, value = asked[key]
    return recipients.capabilities(value, field=field)


def _windows(asked: Asked, key: str) -> tuple[Window, ...]:
    if key not in asked:
        return ()
    field, value = asked[key]
    return windows.read(value, field=field)


def _fractions(asked: Asked, key: str) -> tuple[int, ...]:
    if key not in asked:
        return ()
    field, listed = asked[key]
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_CHECKPOINTS:
        raise InvalidPolicy(field, f"must be a list of 1 to {MAX_CHECKPOINTS} fractions", '["0.5", "0.8", "0.95"]')
    points = tuple(_basis_points(item, field) for item in listed)
    if list(points) != sorted(set(points)):
        ascending = ", ".join(f'"{fraction(point)}"' for point in sorted(set(points)))
        raise InvalidPolicy(field, "must ascend, each fraction once", f"[{ascending}]")
    return points


def _basis_points(item: object, field: str) -> int:
    digits = item[2:] if isinstance(item, str) and item.startswith("0.") else ""
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 4 and int(digits)):
        rule = "must hold decimal strings between 0 and 1, of at most 4 decimals, and not numbers"
        raise InvalidPolicy(field, rule, '["0.5", "0.8", "0.95"]')
    return int(digits.ljust(4, "0"))


def _moment(asked: Asked, key: str) -> datetime | None:
    if key not in asked:
        return None
    field, value = asked[key]
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) and value.isascii() else None
        if moment is not None and moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise InvalidPolicy(field, "must be a time with its zone (RFC 3339)", '"2030-01-01T00:00:00Z"')
