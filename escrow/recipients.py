"""Whom a session may pay. Lives here: an agent's host, the patterns that mean hosts, and the form of a capability's name.

Which list refuses first is `escrow.policy`'s. Names are compared as they are written, label by label: nothing is lowered,
decoded or trimmed, so that two names that look alike never mean each other.
"""

import re
from collections.abc import Iterable
from typing import Final

from escrow.errors import InvalidPolicy

MAX_PATTERNS: Final = 100
"""Recipient patterns, or capabilities, in one list: more is a mistake, and each payment walks them."""
CAPABILITY: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")
_LONGEST: Final = 253
_SCHEME: Final = "agent://"
_EXAMPLES: Final = '"*.acme.dev", "lint.acme.dev" or "agent://lint.acme.dev"'


def host_of(agent: str) -> str | None:
    """Return the host of ``agent://host``, or None when it is not a lower-case DNS name of two or more labels."""
    host = agent.removeprefix(_SCHEME)
    return None if host == agent or not _is_host(host) else host


def matches(pattern: str, agent: str) -> bool:
    """Return whether an agent's URI is meant by a pattern; ``*.`` stands for one or more whole labels, leftmost only."""
    host = host_of(agent)
    if host is None:
        return False
    name = pattern.removeprefix(_SCHEME)
    if name.startswith("*."):
        return host.endswith(name[1:])
    return host == name


def covers(wider: str, narrower: str) -> bool:
    """Return whether every agent that the second pattern means is meant by the first one too."""
    outer, inner = wider.removeprefix(_SCHEME), narrower.removeprefix(_SCHEME)
    if outer.startswith("*."):
        return inner.removeprefix("*").endswith(outer[1:])
    return inner == outer


def patterns(listed: object, *, field: str) -> tuple[str, ...]:
    """Return the patterns of a JSON list, each once. Raises InvalidPolicy with what is wrong and what would pass."""
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_PATTERNS:
        raise InvalidPolicy(field, f"must be a list of 1 to {MAX_PATTERNS} patterns", '["*.acme.dev"]')
    return tuple(_pattern(item, field) for item in _distinct(listed))


def capabilities(listed: object, *, field: str) -> tuple[str, ...]:
    """Return the capabilities of a JSON list, each once. Raises InvalidPolicy with what is wrong and what would pass."""
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_PATTERNS:
        raise InvalidPolicy(field, f"must be a list of 1 to {MAX_PATTERNS} capabilities", '["code.lint"]')
    for item in listed:
        if not isinstance(item, str) or not CAPABILITY.fullmatch(item):
            rule = "must hold names of 1 to 64 of a-z 0-9 . _ - that begin with a letter or digit, and no wildcards"
            raise InvalidPolicy(field, rule, '"code.lint"')
    return tuple(dict.fromkeys(listed))


def _pattern(item: object, field: str) -> str:
    if isinstance(item, str):
        name = item.removeprefix(_SCHEME)
        host = name.removeprefix("*.")
        if _is_host(host):
            return item
        if host != name and re.fullmatch(_LABEL, host):
            rule = f"must not hold {item}: anybody can have a name right below .{host}, so it would limit nothing"
            raise InvalidPolicy(field, rule, _EXAMPLES)
    rule = "must hold lower-case DNS names, with a wildcard only as the whole leftmost label"
    raise InvalidPolicy(field, rule, _EXAMPLES)


def _is_host(name: str) -> bool:
    return len(name) <= _LONGEST and _HOST.fullmatch(name) is not None


def _distinct(listed: Iterable[object]) -> list[object]:
    seen: list[object] = []
    for item in listed:
        if item not in seen:
            seen.append(item)
    return seen
