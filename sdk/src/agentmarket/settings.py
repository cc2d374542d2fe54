"""Where the market is and who asks: arguments first, then AGENTMARKET_URL and AGENTMARKET_API_KEY."""

import os
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from agentmarket import errors
from agentmarket.retries import Retries

DEFAULT_URL = "http://127.0.0.1:8000"
#: what of a key may be shown: its kind and its public id
_PUBLIC = re.compile(r"am_(?:test|live)_[a-z2-7]{12}(?=_)", re.ASCII)
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
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise errors.InvalidRequest(f"{url!r} is no address of a market: it looks like {DEFAULT_URL}.")
    bounds = retries if isinstance(retries, Retries) else Retries(attempts=max(0, retries) + 1)
    return Settings(api_key=key, base_url=url, timeout=timeout, retries=bounds)


def shown(api_key: str) -> str:
    """A key as it may appear in a log: its public id, never its secret."""
    match = _PUBLIC.match(api_key)
    return f"{match[0]}_…" if match else "…"
