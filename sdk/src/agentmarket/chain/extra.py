"""What needs the extra is loaded when it is first asked for, so that the base package stays slim and starts fast."""

import importlib
import json
import re
from types import ModuleType
from typing import Any

from agentmarket.chain.errors import MissingExtra
from agentmarket.errors import InvalidReply

#: the packages of `agentmarket[chain]`, as imports name them
PACKAGES = frozenset({"eth_abi", "eth_account", "eth_hash", "eth_keys", "eth_utils", "Crypto"})
#: characters of a file, and how deep JSON may be nested
MOST_OF_A_FILE, DEEPEST = 16 * 1024 * 1024, 200
_BRACKET_OR_STRING = re.compile(r'[\[\]{}]|"(?:[^"\\]|\\.)*+"?', re.DOTALL)
INSTALL = "pip install 'agentmarket[chain]'"


def load(name: str) -> ModuleType:
    """A module of `agentmarket.chain`. Raises MissingExtra when what it needs is not installed."""
    try:
        return importlib.import_module(f"agentmarket.chain.{name}")
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in PACKAGES:
            raise
        raise MissingExtra(f"This needs {missing.name}, which is not installed: {INSTALL}") from None


def json_of(text: str | bytes) -> Any:
    """JSON from a file. Raises InvalidReply for what is none, and for a name that comes twice: readers would differ."""
    try:
        return bounded(text, most=MOST_OF_A_FILE, object_pairs_hook=_once, parse_constant=_no_number)
    except ValueError as error:
        raise InvalidReply(f"This is not JSON: save the answer of the API as it is ({error}).") from None


def bounded(text: str | bytes, *, most: int, **options: Any) -> Any:
    """JSON of at most so many characters, and nested no deeper than DEEPEST. Raises ValueError for anything else.

    The parser's own bound is the interpreter's recursion limit, which a library may have raised beyond the stack.
    """
    if len(text) > most:
        raise ValueError(f"longer than {most}")
    plain = text if isinstance(text, str) else text.decode("utf-8-sig")
    depth = 0
    for found in _BRACKET_OR_STRING.finditer(plain):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found.group(), 0)
        if depth > DEEPEST:
            raise ValueError(f"nested deeper than {DEEPEST}")
    return json.loads(plain, **options)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice in one object")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")
