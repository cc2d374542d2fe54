"""The kinds of values on the wire. Lives here: one strict reader for each, and its JSON Schema. What they mean does
not.

Strict: a number is not a string, a string is not a number, nothing is trimmed, and what is not named is refused.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from escrow import money
from escrow.errors import InvalidInput
from escrow.policy import AMOUNTS, MAX_COUNT, MAX_PATTERNS, Policy
from marketplace import agents

AMOUNT_PATTERN: Final = r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,6})?$"
UUID_PATTERN: Final = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
HASH_PATTERN: Final = r"^[0-9a-f]{64}$"
AGENT_EXAMPLE: Final = "agent://lint.acme.dev"

_AMOUNT_SCHEMA: Final[dict[str, Any]] = {"type": "string", "pattern": AMOUNT_PATTERN, "examples": ["0.008"]}
_PATTERNS_SCHEMA: Final[dict[str, Any]] = {
    "type": "array",
    "items": {"type": "string"},
    "minItems": 1,
    "maxItems": MAX_PATTERNS,
}
POLICY_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "title": "Policy",
    "description": "Limits of a session; one left out does not limit. `*.acme.dev` is every name below acme.dev.",
    "additionalProperties": False,
    "properties": {
        **dict.fromkeys(AMOUNTS, _AMOUNT_SCHEMA),
        "max_tx_per_minute": {"type": "integer", "minimum": 1, "maximum": MAX_COUNT},
        "allowed_recipients": _PATTERNS_SCHEMA,
        "denied_recipients": _PATTERNS_SCHEMA,
        "expires_at": {"type": "string", "format": "date-time"},
    },
    "examples": [{"max_per_tx": "0.50", "allowed_recipients": ["*.acme.dev"]}],
}

_UUID: Final = re.compile(UUID_PATTERN.replace("$", r"\Z"))
_MOMENT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})\Z"
)


class Shape(BaseModel):
    """A JSON object with just these members."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def wrong(rule: str, would_pass: str) -> PydanticCustomError:
    """Return the error of a field that breaks a rule, for a reader to raise."""
    return PydanticCustomError("wrong", "{rule}", {"rule": rule, "would_pass": would_pass})


def _refused_as_wrong(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def reader(value: Any) -> Any:
        try:
            return read(value)
        except InvalidInput as refusal:
            raise wrong(str(refusal.facts["rule"]), str(refusal.facts["would_pass"])) from None

    return reader


def _read_id(value: object) -> UUID:
    if isinstance(value, UUID):
        return value
    if not isinstance(value, str) or not _UUID.match(value):
        raise wrong("must be a UUID in lower case", '"0198c5f0-7a54-7c3e-9c5e-0c7c8f3f2a10"')
    return UUID(value)


def _read_moment(value: object) -> datetime:
    if isinstance(value, str) and _MOMENT.match(value):
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise wrong("must be a time with its zone (RFC 3339)", '"2030-01-01T00:00:00Z"')


def _read_agent(value: object) -> str:
    if not isinstance(value, str):
        raise wrong("must be a string", f'"{AGENT_EXAMPLE}"')
    agents.check_uri(value)
    return value


def _read_policy(value: object) -> Policy:
    if not isinstance(value, dict):
        raise wrong("must be an object", '{"max_per_tx": "0.50"}')
    return Policy.from_document(value)


def _read_capability(value: str) -> str:
    agents.check_capability(value)
    return value


def _one_line(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise wrong("must be one line of visible text", "text without line breaks or control characters")
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise wrong("must not be blank", "some text")
    return value


def time_text(moment: datetime) -> str:
    """Return a time as RFC 3339 in UTC, ending in Z."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


# --- What comes in ---------------------------------------------------------------------------------------------------
AmountIn = Annotated[
    int,
    BeforeValidator(_refused_as_wrong(money.parse)),
    WithJsonSchema({**_AMOUNT_SCHEMA, "description": "USDC, at least 0.000001."}),
]
IdIn = Annotated[
    UUID, BeforeValidator(_read_id), WithJsonSchema({"type": "string", "format": "uuid", "pattern": UUID_PATTERN})
]
MomentIn = Annotated[datetime, BeforeValidator(_read_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
AgentIn = Annotated[
    str,
    BeforeValidator(_refused_as_wrong(_read_agent)),
    WithJsonSchema(
        {"type": "string", "maxLength": 261, "pattern": r"^agent://[a-z0-9.-]+$", "examples": [AGENT_EXAMPLE]}
    ),
]
PolicyIn = Annotated[Policy, BeforeValidator(_refused_as_wrong(_read_policy)), WithJsonSchema(POLICY_SCHEMA)]
CapabilityIn = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64),
    AfterValidator(_refused_as_wrong(_read_capability)),
]
Line = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_one_line)]
"""A name or a title."""
InvoiceNumber = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_one_line)]
Words = Annotated[str, StringConstraints(min_length=1, max_length=4000), AfterValidator(_not_blank)]
"""A reason, an answer, a description."""
HashIn = Annotated[str, StringConstraints(pattern=HASH_PATTERN)]
JsonObject = dict[str, Any]


# --- What goes out ---------------------------------------------------------------------------------------------------
Amount = Annotated[int, PlainSerializer(money.render, return_type=str), WithJsonSchema(_AMOUNT_SCHEMA)]
SignedAmount = Annotated[
    int,
    PlainSerializer(money.render, return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^-?" + AMOUNT_PATTERN[1:], "examples": ["-0.008"]}),
]
Id = Annotated[UUID, WithJsonSchema({"type": "string", "format": "uuid"})]
Moment = Annotated[
    datetime, PlainSerializer(time_text, return_type=str), WithJsonSchema({"type": "string", "format": "date-time"})
]
PolicyOut = Annotated[JsonObject, WithJsonSchema(POLICY_SCHEMA)]
