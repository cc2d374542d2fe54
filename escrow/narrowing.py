"""A policy under another one. Lives here: what a child session's policy may be, given its parent's.

Whatever the result allows, the parent's policy allows too, at every moment: each limit is the parent's or less. Money that
a child spends is also what its parent has given away; that is counted where money is.
"""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeVar

from escrow import money
from escrow.errors import InvalidPolicy
from escrow.limits import AMOUNTS, Policy, shown
from escrow.recipients import MAX_PATTERNS, covers
from escrow.windows import MAX_WINDOWS, Window, overlap, written

T = TypeVar("T")
Limit = TypeVar("Limit", int, datetime)
NUMBERS: Final = (*AMOUNTS, "max_tx_per_minute")
EITHER_WAY: Final = ("approval_above",)
"""Numbers of which the lower one holds, whoever has said it: a child that asks for more is not wrong, it is asked earlier."""


def narrow(asked: Policy, parent: Policy) -> Policy:
    """Return the policy that a child has when it asks for one. Raises InvalidPolicy for a key that is wider than the parent's.

    What is not asked for is the parent's; denied recipients are added up; checkpoints are the child's own.
    """
    for name in NUMBERS:
        _require_lower(name, getattr(asked, name), getattr(parent, name))
    if asked.expires_at is not None and parent.expires_at is not None and asked.expires_at > parent.expires_at:
        raise _wider("expires_at", f'"{shown(parent.expires_at)}" or earlier')
    _require_within("allowed_recipients", asked.allowed_recipients, parent.allowed_recipients, covers, str)
    _require_within("allowed_capabilities", asked.allowed_capabilities, parent.allowed_capabilities, str.__eq__, str)
    _require_within("windows", asked.windows, parent.windows, lambda outer, inner: inner.lies_within(outer), _shown)
    denied = _united(asked.denied_recipients, parent.denied_recipients)
    if len(denied) > MAX_PATTERNS:
        rule = f"would be {len(denied)} with the parent's, and {MAX_PATTERNS} are the most"
        raise InvalidPolicy(
            "policy.denied_recipients", rule, f"{MAX_PATTERNS - len(parent.denied_recipients)} or fewer"
        )
    return Policy(
        **{name: _lower(getattr(asked, name), getattr(parent, name)) for name in NUMBERS},
        allowed_recipients=asked.allowed_recipients or parent.allowed_recipients,
        denied_recipients=denied,
        allowed_capabilities=asked.allowed_capabilities or parent.allowed_capabilities,
        windows=asked.windows or parent.windows,
        checkpoint_at=asked.checkpoint_at,
        expires_at=_lower(asked.expires_at, parent.expires_at),
    )


def tightened(child: Policy, parent: Policy) -> Policy | None:
    """Return the child's policy held to a parent's that has changed: of each limit what both allow.

    None when a list has nothing left that both allow, or has become longer than a list may be: then nothing can be paid.
    Windows in zones of another name than the parent's have nothing in common with it.
    """
    denied = _united(child.denied_recipients, parent.denied_recipients)
    recipients = _common(child.allowed_recipients, parent.allowed_recipients, _narrower)
    capabilities = _common(child.allowed_capabilities, parent.allowed_capabilities, _same)
    windows = _common(child.windows, parent.windows, overlap)
    if recipients is None or capabilities is None or windows is None:
        return None
    if max(len(denied), len(recipients)) > MAX_PATTERNS or len(windows) > MAX_WINDOWS:
        return None
    return Policy(
        **{name: _lower(getattr(child, name), getattr(parent, name)) for name in NUMBERS},
        allowed_recipients=recipients,
        denied_recipients=denied,
        allowed_capabilities=capabilities,
        windows=windows,
        checkpoint_at=child.checkpoint_at,
        expires_at=_lower(child.expires_at, parent.expires_at),
    )


def _shown(window: Window) -> str:
    return json.dumps(written(window))


def _require_lower(name: str, asked: int | None, most: int | None) -> None:
    if name not in EITHER_WAY and asked is not None and most is not None and asked > most:
        raise _wider(name, f'"{money.render(most)}" or less' if name in AMOUNTS else f"{most} or less")


def _require_within(
    name: str,
    asked: tuple[T, ...],
    given: tuple[T, ...],
    contains: Callable[[T, T], object],
    show: Callable[[T], str],
) -> None:
    for item in asked:
        if given and not any(contains(outer, item) for outer in given):
            raise _wider(name, "what lies within " + ", ".join(show(outer) for outer in given), f" by {show(item)}")


def _wider(name: str, would_pass: str, by: str = "") -> InvalidPolicy:
    return InvalidPolicy(f"policy.{name}", f"is wider than the parent's{by}", would_pass)


def _lower(one: Limit | None, other: Limit | None) -> Limit | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _united(ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[str, ...]:
    """Return the patterns of both lists, without those that another one covers."""
    both = tuple(dict.fromkeys((*ours, *theirs)))
    return tuple(
        name
        for place, name in enumerate(both)
        if not any(
            covers(other, name) and (not covers(name, other) or at < place)
            for at, other in enumerate(both)
            if at != place
        )
    )


def _common(ours: tuple[T, ...], theirs: tuple[T, ...], meet: Callable[[T, T], T | None]) -> tuple[T, ...] | None:
    """Return what both lists allow, None for nothing; an empty list allows everything."""
    if not ours or not theirs:
        return ours or theirs
    met = (meet(one, other) for one in ours for other in theirs)
    return tuple(dict.fromkeys(item for item in met if item is not None)) or None


def _narrower(one: str, other: str) -> str | None:
    if covers(other, one):
        return one
    return other if covers(one, other) else None


def _same(one: str, other: str) -> str | None:
    return one if one == other else None
