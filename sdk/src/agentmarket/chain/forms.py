"""The forms that JSON-RPC promises, for what a node tells: looked at once, so that nobody after trips over them. Pure."""

import re
from collections.abc import Mapping
from typing import Any


def is_number(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("0x[0-9a-fA-F]{1,64}", value) is not None


def are_logs(found: object) -> bool:
    """Whether these are logs as JSON-RPC promises them, and none that a reorganisation took back."""
    return isinstance(found, list) and all(isinstance(log, Mapping) and _is_log(log) for log in found)


def _is_log(log: Mapping[str, Any]) -> bool:
    topics = log.get("topics")
    words = [*topics, log.get("transactionHash")] if isinstance(topics, list) else [None]
    data = log.get("data")
    return (
        all(isinstance(word, str) and re.fullmatch("0x[0-9a-fA-F]{64}", word) is not None for word in words)
        and isinstance(data, str)
        and re.fullmatch("0x(?:[0-9a-fA-F]{2})*", data) is not None
        and isinstance(log.get("address"), str)
        and is_number(log.get("blockNumber"))
        and not log.get("removed")
    )
