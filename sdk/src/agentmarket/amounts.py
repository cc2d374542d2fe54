"""Amounts of USDC as they go over the wire: decimal strings, at most six decimals, above zero.

The one place that accepts or refuses an amount before it is sent. No arithmetic on money: the market does that.
"""

import re
from decimal import Decimal

from agentmarket.errors import InvalidAmount

_WIRE = re.compile(r"(0|[1-9]\d{0,11})(\.\d{1,6})?", re.ASCII)
_EXAMPLE = "0.008"
_SMALLEST = "0.000001"


def to_wire(amount: str | Decimal, *, field: str = "amount") -> str:
    """The decimal string the market reads. Raises InvalidAmount, before anything is sent, for inexact money."""
    text = _as_text(amount, field)
    if not _WIRE.fullmatch(text):
        raise InvalidAmount(
            f'{field} {_shown(text)} is not an amount: write digits, a point, at most six decimals, like "{_EXAMPLE}".',
            field=field,
            would_pass=_EXAMPLE,
        )
    if not text.strip("0."):
        raise InvalidAmount(
            f'{field} must be above zero: the smallest amount is "{_SMALLEST}".', field=field, would_pass=_SMALLEST
        )
    return text


def micros(amount: str) -> int:
    """The same amount in micro-USDC, for comparing two of them."""
    whole, _, fraction = amount.partition(".")
    return int(whole) * 1_000_000 + int(fraction.ljust(6, "0")[:6])


def canonical(amount: str | Decimal, *, field: str = "amount") -> str:
    """`to_wire`, in the one form that the market itself writes: at least two decimals, and none that carry no money."""
    whole, _, fraction = to_wire(amount, field=field).partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def _as_text(amount: object, field: str) -> str:
    if isinstance(amount, str):
        return amount
    if isinstance(amount, Decimal):
        return _decimal_text(amount)
    if isinstance(amount, float):
        suggestion = _float_suggestion(amount)
        raise InvalidAmount(
            f'{field} is the float {amount!r}, and a float cannot hold money exactly: write {field}="{suggestion}".',
            field=field,
            would_pass=suggestion,
        )
    if isinstance(amount, int) and not isinstance(amount, bool):
        suggestion = f"{amount}.00" if 0 < amount < 10**12 else _EXAMPLE
        raise InvalidAmount(
            f"{field} is the int {_shown(str(amount))}, which could mean dollars or micro-dollars: "
            f'write {field}="{suggestion}".',
            field=field,
            would_pass=suggestion,
        )
    raise InvalidAmount(
        f'{field} is a {type(amount).__name__}: write a decimal string like "{_EXAMPLE}".',
        field=field,
        would_pass=_EXAMPLE,
    )


def _decimal_text(amount: Decimal) -> str:
    if not amount.is_finite():
        return str(amount)
    text = format(amount, "f")
    whole, point, fraction = text.partition(".")
    # Trailing zeros past the sixth decimal carry no money: Decimal("0.0080000") is 0.008.
    return whole + point + fraction[:6] if not fraction[6:].strip("0") else text


def _float_suggestion(amount: float) -> str:
    text = f"{amount:.6f}".rstrip("0")
    text = text + "0" * max(0, 2 - len(text.partition(".")[2])) if "." in text else text
    return text if _WIRE.fullmatch(text) and text.strip("0.") else _EXAMPLE


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
