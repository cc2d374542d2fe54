"""Where the market is and who asks: arguments first, then AGENTMARKET_URL and AGENTMARKET_API_KEY.

AGENTMARKET_TIMEOUT and AGENTMARKET_RETRIES are read by `from_env` alone, because there nobody said them as arguments.
"""

import os
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from agentmarket import errors
from agentmarket.retries import Retries

DEFAULT_URL = "http://127.0.0.1:8000"
#: what of a key may be shown: its kind and its public id
_PUBLIC = re.compile(r"am_(?:test|live)_[a-z2-7]{12}(?=_)", re.ASCII)
_SECONDS = re.compile(r"\d{1,6}(\.\d{1,6})?", re.ASCII)
_COUNT = re.compile(r"\d{1,2}", re.ASCII)
_USABLE = re.compile(r"[!-~]+", re.ASCII)


@dataclass(frozen=True)
class Settings:
    api_key: str = field(repr=False)
    base_url: str
    #: seconds for one attempt
    timeout: float
    retries: Retries
    #: bytes; a longer answer is not read to its end
    longest_reply: int = 16 * 1024 * 1024

    @property
    def shown_key(self) -> str:
        return shown(self.api_key)


def settings(api_key: str | None, base_url: str | None, timeout: float, retries: int | Retries) -> Settings:
    """Raises Unauthenticated without a usable key, InvalidRequest for an address that is not http(s)."""
    key = api_key if api_key is not None else os.environ.get("AGENTMARKET_API_KEY", "")
    if not _USABLE.fullmatch(key):
        fault = "has spaces or other characters no key has" if key else "is missing"
        raise errors.Unauthenticated(f"The API key {fault}: pass api_key=, or set AGENTMARKET_API_KEY.")
    url = (base_url or os.environ.get("AGENTMARKET_URL") or DEFAULT_URL).rstrip("/")
    if not _is_address(url):
        source = "" if base_url else "AGENTMARKET_URL: "
        raise errors.InvalidRequest(f"{source}{url!r} is no address of a market: it looks like {DEFAULT_URL}.")
    bounds = retries if isinstance(retries, Retries) else Retries(attempts=max(0, retries) + 1)
    return Settings(api_key=key, base_url=url, timeout=timeout, retries=bounds)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def environment_timeout(default: float) -> float:
    """Seconds for one attempt. Raises InvalidRequest for what is no number of seconds."""
    text = os.environ.get("AGENTMARKET_TIMEOUT", "").strip()
    if not text:
        return default
    if not _SECONDS.fullmatch(text) or float(text) <= 0:
        raise errors.InvalidRequest(f"AGENTMARKET_TIMEOUT is {text[:40]!r}: write seconds above zero, like 10 or 2.5.")
    return float(text)


def environment_retries(default: int) -> int:
    """How often a request is repeated. Raises InvalidRequest for what is no whole number."""
    text = os.environ.get("AGENTMARKET_RETRIES", "").strip()
    if not text:
        return default
    if not _COUNT.fullmatch(text):
        raise errors.InvalidRequest(f"AGENTMARKET_RETRIES is {text[:40]!r}: write a whole number from 0 to 99, like 3.")
    return int(text)


def shown(api_key: str) -> str:
    """A key as it may appear in a log: its public id, never its secret."""
    match = _PUBLIC.match(api_key)
    return f"{match[0]}_…" if match else "…"
