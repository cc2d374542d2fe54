"""How often a key may call. Lives here: the quotas, who is counted as whom, and what an answer says of it.

Fixed windows, counted in this process or, by the library `limits`, in Redis; docs/decisions/rate-limits-in-process.md has the
reasons and what was measured. Nothing that must be true is here: a counter that is lost only lets a caller begin again.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Address, ip_address
from math import ceil
from threading import Lock
from typing import Any, Final, cast

import limits
from django.conf import settings
from limits.errors import StorageError
from limits.storage import Storage, storage_from_string
from limits.strategies import FixedWindowRateLimiter

from marketplace.api.errors import Problem
from marketplace.api.fields import time_text

MAX_COUNTED: Final = 100_000
"""Callers that one process counts at a time, 10 MB. Beyond it counting begins again: memory must not be theirs to fill."""

STORED_REFUSALS: Final = frozenset(("policy_denied", "insufficient_funds", "approval_required", "settlement_paused"))
"""Refusals of the money rooms, each of which is kept as a decision."""


@dataclass(slots=True)
class Standing:
    """What a caller has left of a quota."""

    quota: "Quota"
    is_within: bool
    remaining: int
    resets_in: int

    @property
    def headers(self) -> dict[str, str]:
        """Return it as draft-ietf-httpapi-ratelimit-headers (-11) says it."""
        return {"RateLimit-Policy": self.quota.policy, "RateLimit": self.text}

    @property
    def text(self) -> str:
        """Return the value of the header ``RateLimit``."""
        return f'"{self.quota.name}";r={self.remaining};t={self.resets_in}'

    def require(self) -> None:
        """Return when the caller is within its quota. Raises Problem."""
        if not self.is_within:
            raise self.refusal()

    def refusal(self) -> Problem:
        """Return the problem of a caller that has used its quota up."""
        quota = self.quota
        return Problem(
            "rate_limited",
            f"{quota.most} {quota.what} in {quota.seconds} seconds are allowed; the next is in {self.resets_in} seconds.",
            facts={
                "rule": quota.name,
                "limit": quota.most,
                "available_at": time_text(datetime.fromtimestamp(int(time.time()) + self.resets_in, UTC)),
            },
            headers={"Retry-After": str(self.resets_in), **self.headers},
            retryable=True,
        )


class Counters:
    """Counts of one window in this process's memory; the next window begins with none.

    The library's own memory keeps a thread that walks all counts every 10 ms, which would hold the lane's loop up.
    """

    def __init__(self, seconds: int, most: int = MAX_COUNTED) -> None:
        self._seconds, self._most = seconds, most
        self._counts: dict[str, int] = {}
        self._ends = 0.0
        self._lock = Lock()

    def add(self, who: str) -> tuple[int, float]:
        """Count one, and return the count and in how many seconds the window ends."""
        now = time.monotonic()
        with self._lock:
            if now >= self._ends:
                self._counts, self._ends = {}, now + self._seconds
            counts = self._counts
            if who not in counts and len(counts) >= self._most:
                counts.clear()
            counts[who] = count = counts.get(who, 0) + 1
            return count, self._ends - now

    def of(self, who: str) -> tuple[int, float]:
        """Return the count, and in how many seconds the window ends."""
        left = self._ends - time.monotonic()
        return (self._counts.get(who, 0), left) if left > 0 else (0, self._seconds)

    def forget(self) -> None:
        """Begin again."""
        self._counts, self._ends = {}, 0.0


class Quota:
    """So many of something in a window, for each caller."""

    def __init__(self, name: str, what: str, limit: str, *, storage: str = "") -> None:
        """``limit`` is as in ``600/minute``; ``storage`` names one that processes share, as in ``redis://host/1``."""
        self.name, self.what = name, what
        self._item = limits.parse(limit)
        self.most, self.seconds = self._item.amount, self._item.get_expiry()
        self.policy: Final = f'"{name}";q={self.most};w={self.seconds}'
        self._counters = Counters(self.seconds)
        self._shared = FixedWindowRateLimiter(_shared(storage)) if storage else None

    def hit(self, who: str) -> Standing:
        """Count one of a caller's, and return how it stands."""
        if self._shared is not None:
            try:
                is_within = self._shared.hit(self._item, who)
                reset, remaining = self._shared.get_window_stats(self._item, who)
            except StorageError:
                pass  # counted here until the other is back: a limit is no reason to refuse everybody
            else:
                return Standing(self, is_within, remaining, max(1, ceil(reset - time.time())))
        return self._standing(*self._counters.add(who))

    def standing(self, who: str) -> Standing:
        """Return how a caller would stand with one more, without counting it; as far as this process knows."""
        count, left = self._counters.of(who)
        return self._standing(count + 1, left)

    def is_used_up(self, who: str) -> bool:
        """Return whether a caller has none left; as far as this process knows."""
        return self._counters.of(who)[0] >= self.most

    def forget(self) -> None:
        """Let every caller begin again."""
        self._counters.forget()

    def _standing(self, count: int, left: float) -> Standing:
        return Standing(self, count <= self.most, max(0, self.most - count), ceil(left))


def _shared(uri: str) -> Storage:
    wait = settings.REDIS_TIMEOUT_SECONDS
    uri = f"redis+{uri}" if uri.startswith("unix:") else uri  # as REDIS_URL has it, and as the library does
    return cast(
        "Storage", storage_from_string(uri, wrap_exceptions=True, socket_timeout=wait, socket_connect_timeout=wait)
    )


CALLS = Quota("calls", "calls", settings.RATE_LIMIT_CALLS, storage=settings.RATE_LIMIT_STORAGE)
PAYMENTS = Quota("payments", "payments", settings.RATE_LIMIT_PAYMENTS)
"""Counted in this process, whatever the storage: a payment makes one round trip, and that is to the database."""
REFUSALS = Quota("refusals", "refused payments", settings.RATE_LIMIT_REFUSALS)
UNAUTHENTICATED = Quota("unauthenticated", "calls with keys that open nothing", settings.RATE_LIMIT_UNAUTHENTICATED)

_live: set[bytes] = set()
"""Hashes of secrets that have opened something. They are not counted against an address: others there may be guessing."""


def count(key_id: str, *, pays: bool) -> Standing:
    """Count a call of a live key, and return how it stands."""
    if not pays:
        return CALLS.hit(key_id)
    return REFUSALS.standing(key_id) if REFUSALS.is_used_up(key_id) else PAYMENTS.hit(key_id)


def is_live(secret_hash: bytes) -> bool:
    """Return whether a key has opened something here; whether it still does is the database's to say."""
    return secret_hash in _live


def note_live(secret_hash: bytes) -> None:
    """Remember that a key has opened something."""
    if len(_live) >= MAX_COUNTED:
        _live.clear()  # each is noted again by its next call
    _live.add(secret_hash)


def forget() -> None:
    """Let everybody begin again."""
    for quota in (CALLS, PAYMENTS, REFUSALS, UNAUTHENTICATED):
        quota.forget()
    _live.clear()


def address_of(meta: Mapping[str, Any]) -> str:
    """Return from where a WSGI request comes, as far as that can be believed; of IPv6 the network that one customer has."""
    return caller_at(meta.get("REMOTE_ADDR", ""), meta.get("HTTP_X_FORWARDED_FOR", ""))


def caller_at(peer: str, forwarded: str) -> str:
    """Return an address to count: the peer's, or what our own proxy (the last in the list) says that its peer's is."""
    said = forwarded.rpartition(",")[2].strip() if settings.BEHIND_PROXY else ""
    for text in (said, peer):
        try:
            found = ip_address(text)
        except ValueError:
            continue
        if isinstance(found, IPv6Address) and found.ipv4_mapped is None:
            return f"{IPv6Address(int(found) >> 64 << 64)}/64"
        return str(getattr(found, "ipv4_mapped", None) or found)
    return "unknown"
