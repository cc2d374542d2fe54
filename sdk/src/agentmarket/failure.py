"""The base of every error: its facts, its text, and how a halted call goes on. Which errors there are is in `errors`.

A halted call goes on with steps of its own (`Resumable`), which the shell that raised the error performs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal, Self

Outcome = Literal["not_charged", "charged", "unknown"]

_OUTCOMES: Mapping[str, str] = {
    "not_charged": "Nothing was charged.",
    "charged": "The payment was made.",
    "unknown": "It is not known if money moved.",
}


_SHOWN = (
    "rule", "limit", "spent", "remaining", "required", "would_allow", "state", "retry_after", "approval_id", "available_at",
)  # fmt: skip


@dataclass(frozen=True)
class NextAction:
    """A request that would help now."""

    method: str
    path: str
    why: str
    #: can be sent as it is; None when the request needs none, or one that only you can write
    body: Any = None
    #: members of the body that only you know
    needs: tuple[str, ...] = ()
    #: to be sent beside key and content type
    headers: tuple[str, ...] = ()

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Self:
        """From JSON: what is missing is empty, what is new is dropped."""
        method, path, why = (str(said.get(name, "")) for name in ("method", "path", "why"))
        needs, headers = (said.get(name) for name in ("needs", "headers"))
        return cls(method, path, why, said.get("body"), _names(needs), _names(headers))

    def __str__(self) -> str:
        return f"{self.method} {self.path} ({self.why})" if self.why else f"{self.method} {self.path}"


def _names(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


@dataclass(frozen=True)
class Checkpoint:
    """Where a budget stood when the work halted. Decimal strings; None where the market did not say."""

    budget: str | None = None
    spent: str | None = None
    remaining: str | None = None


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one field of a request, and a value that would pass."""

    field: str
    rule: str
    message: str
    would_pass: Any = None

    def __str__(self) -> str:
        hint = "" if self.would_pass is None else f"; would pass: {self.would_pass}"
        return f"{self.field}: {self.message or self.rule}{hint}"


class AgentMarketError(Exception):
    """Everything this package raises about the market. `str()` says what happened, if money moved, and what to do."""

    default_code: ClassVar[str] = "error"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        status: int | None = None,
        rule: str | None = None,
        limit: str | int | tuple[str, ...] | None = None,
        spent: str | None = None,
        remaining: str | None = None,
        required: str | None = None,
        would_allow: str | tuple[str, ...] | None = None,
        state: str | None = None,
        retryable: bool = False,
        outcome: Outcome | None = None,
        next_actions: tuple[NextAction, ...] = (),
        request_id: str | None = None,
        errors: tuple[FieldError, ...] = (),
        retry_after: float | None = None,
        key: str | None = None,
        policy_version: int | None = None,
        approval_id: str | None = None,
        available_at: datetime | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.default_code
        self.status = status
        self.rule = rule
        self.limit = limit
        self.spent = spent
        self.remaining = remaining
        self.required = required
        self.would_allow = would_allow
        self.state = state
        self.retryable = retryable
        self.outcome = outcome
        self.next_actions = next_actions
        self.request_id = request_id
        self.errors = errors
        self.retry_after = retry_after
        self.key = key
        self.policy_version = policy_version
        self.approval_id = approval_id
        self.available_at = available_at
        self.checkpoint = checkpoint

    def __reduce__(self) -> tuple[Any, ...]:
        """What could go on in this process (`Resumable`) cannot in another."""
        return type(self), self.args, {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __str__(self) -> str:
        parts = [self.detail.rstrip(), f"[{', '.join(self._facts())}]"]
        parts += [f"{error}." for error in self.errors]
        if self.outcome is not None:
            parts.append(_OUTCOMES[self.outcome])
        if self.next_actions:
            parts.append("Next: " + "; ".join(map(str, self.next_actions)) + ".")
        if self.request_id:
            parts.append(f"Request {self.request_id}.")
        return " ".join(parts)

    def _facts(self) -> list[str]:
        facts = [self.code]
        for name in _SHOWN:
            value = getattr(self, name)
            if value is not None:
                shown = " or ".join(value) if isinstance(value, tuple) else value
                facts.append(f"{name.replace('_', ' ')} {shown}")
        return facts


class Resumable(AgentMarketError):
    """An error after which the very same request can go on. Its verbs are awaited with the async client.

    What they answer depends on the verb that raised: `payment.send` gives a Sent, `holds.place` a Hold, and so on.
    """

    _run: Callable[[Any], Any] | None = None
    _again: Callable[[], Any] | None = None

    def goes_on(self, again: Callable[[], Any]) -> Self:
        """Say which steps are the same request again. The verb that knows most says it last."""
        self._again = again
        return self

    def performed_by(self, run: Callable[[Any], Any]) -> None:
        """Say what performs steps: the shell that raised this."""
        self._run = run

    def resume(self) -> Any:
        """Send the very same request again, with the same key: what was done is not done twice.

        Raises what the verb itself raises; this same error again while its cause is there.
        """
        return self._perform(self._again)

    def _perform(self, steps: Callable[[], Any] | None) -> Any:
        if steps is None or self._run is None:
            raise RuntimeError(
                f"{type(self).__name__} was raised by no call of this process: make the same call again; it has the same key"
                f"{f' (key={self.key!r})' if self.key else ''}."
            )
        return self._run(steps())
