"""What a run sends, and its limits: nothing runs for ever, and nothing but this machine is loaded."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import urlsplit

MAX_CONNECTIONS: Final = 1_000
MAX_COUNT: Final = 5_000_000
MAX_SECONDS: Final = 600.0
MAX_RATE: Final = 100_000.0
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class BadPlan(ValueError):
    """A plan that would not end, or that would load another machine."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who pays: a key, whom it pays and how much. With ``refund_token`` that provider can give it back."""

    token: str
    to: str
    amount: str
    session_id: str | None = None
    refund_token: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. ``rate`` None: each connection sends as soon as it has its answer; else arrivals at that rate a second."""

    url: str
    callers: tuple[Caller, ...]
    key: str
    """How every Idempotency-Key of the run begins; a number follows."""
    connections: int = 64
    count: int | None = None
    seconds: float | None = None
    rate: float | None = None
    path: str = "/v1/payments"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    refund_share: float = 0.0
    first: int = 0
    """The first number after `key`: the same key and number again is a repeated request."""
    keep_numbers: bool = False
    """Return the number of every payment that was answered with 201, and of every request that got no answer."""

    def __post_init__(self) -> None:
        """Raise BadPlan for a plan without an end or with another machine in it."""
        if urlsplit(self.url).hostname not in LOOPBACK or urlsplit(self.url).scheme != "http":
            raise BadPlan("only plain HTTP to this machine is loaded")
        if self.count is None and self.seconds is None:
            raise BadPlan("a run needs a count or a time, or both")
        for name, value, most in (
            ("connections", self.connections, MAX_CONNECTIONS),
            ("count", self.count, MAX_COUNT),
            ("seconds", self.seconds, MAX_SECONDS),
            ("rate", self.rate, MAX_RATE),
        ):
            if value is not None and not 0 < value <= most:
                raise BadPlan(f"{name} must be more than 0 and at most {most:g}")
        if not self.callers:
            raise BadPlan("nobody pays in this plan")
        if self.refund_share and any(caller.refund_token is None for caller in self.callers):
            raise BadPlan("refunds need a refund_token for each caller")

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the plan of a JSON document. Raises BadPlan."""
        try:
            document = json.loads(text)
            callers = tuple(Caller(**caller) for caller in document.pop("callers"))
            return cls(callers=callers, **document)
        except (TypeError, KeyError, AttributeError, json.JSONDecodeError) as error:
            raise BadPlan(str(error)) from error

    @property
    def longest(self) -> float:
        """How long sending may take at most, in seconds."""
        return MAX_SECONDS if self.seconds is None else self.seconds
