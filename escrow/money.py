"""Amounts of USDC. Lives here: the one parser and the one renderer. Does not live here: balances, fees, policy.

Inside the project money is an ``int`` of micro-USDC (10^-6 USDC, the token's own smallest unit, as its ``decimals()`` of 6
says). On the wire it is a decimal string. There is no float and no Decimal between the two.
"""

import re
from typing import Final

from escrow.errors import InvalidAmount

MICROS_PER_USDC: Final = 1_000_000
BASIS_POINTS: Final = 10_000
MAX_MICROS: Final = 10**18 - 1
"""The largest amount a string of the accepted form can name: twelve digits before the point, six after it."""

_AMOUNT: Final = re.compile(r"(0|[1-9][0-9]{0,11})(?:\.([0-9]{1,6}))?")


def parse(value: object, *, field: str = "amount", minimum: int = 1) -> int:
    """Return the micro-USDC that a decimal string such as ``"0.008"`` names.

    Raises InvalidAmount for everything else: numbers, exponents, signs, white space, a seventh decimal, digits that are
    not ASCII, and amounts below ``minimum`` micros.
    """
    if not isinstance(value, str):
        raise InvalidAmount(field, "must be a decimal string, not a number", 'a string such as "0.008"')
    match = _AMOUNT.fullmatch(value)
    if match is None:
        raise InvalidAmount(
            field,
            "must be ASCII digits with at most 12 before and 6 after one point, with no sign, exponent or space",
            'a string such as "0.008"',
        )
    whole, fraction = match.groups()
    micros = int(whole) * MICROS_PER_USDC + int((fraction or "").ljust(6, "0"))
    if micros < minimum:
        raise InvalidAmount(field, f"must be at least {render(minimum)}", f'"{render(minimum)}" or more')
    return micros


def render(micros: int) -> str:
    """Return the decimal string of an amount, with two to six decimals: 8000 -> ``"0.008"``, 25_000_000 -> ``"25.00"``."""
    whole, fraction = divmod(abs(micros), MICROS_PER_USDC)
    decimals = f"{fraction:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micros < 0 else ''}{whole}.{decimals}"


def share(micros: int, basis_points: int) -> int:
    """Return the floor of ``basis_points`` ten-thousandths of an amount; the remainder stays with the other side."""
    return micros * basis_points // BASIS_POINTS
