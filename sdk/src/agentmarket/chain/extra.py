"""What needs the extra is loaded when it is first asked for, so that the base package stays slim and starts fast."""

import importlib
import json
from types import ModuleType
from typing import Any

from agentmarket.chain.errors import MissingExtra
from agentmarket.errors import InvalidReply

#: the packages of `agentmarket[chain]`, as imports name them
PACKAGES = frozenset({"eth_abi", "eth_account", "eth_hash", "eth_keys", "eth_utils", "Crypto", "typer"})
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
    """JSON from a file. Raises InvalidReply for what is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidReply("This is not JSON: save the answer of the API as it is.") from None
