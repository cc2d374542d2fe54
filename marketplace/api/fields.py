"""The kinds of values on the wire. Lives here: one strict reader for each, and its JSON Schema. What they mean does
not.

Strict: a number is not a string, a string is not a number, nothing is trimmed, and what is not named is refused.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from escrow import ap2, money
from escrow.errors import InvalidInput
from escrow.limits import AMOUNTS, LISTS, MAX_CHECKPOINTS, MAX_COUNT, Policy
from escrow.recipients import MAX_PATTERNS
from escrow.windows import DAYS, MAX_WINDOWS
from marketplace import agents

AMOUNT_PATTERN: Final = r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,6})?$"
UUID_PATTERN: Final = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
HASH_PATTERN: Final = r"^[0-9a-f]{64}$"
AGENT_EXAMPLE: Final = "agent://lint.acme.dev"

_AMOUNT_SCHEMA: Final[dict[str, Any]] = {"type": "string", "pattern": AMOUNT_PATTERN, "examples": ["0.008"]}
_NAMES_SCHEMA: Final[dict[str, Any]] = {
    "type": "array",
    "items": {"type": "string"},
    "minItems": 1,
    "maxItems": MAX_PATTERNS,
}
_MOMENT_SCHEMA: Final[dict[str, Any]] = {"type": "string", "format": "date-time"}
_WINDOW_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "description": "Hours of days of the week, on the clock of an IANA time zone; `to` is not inside, and may be 24:00.",
    "additionalProperties": False,
    "required": ["days", "from", "to", "zone"],
    "properties": {
        "days": {"type": "array", "items": {"enum": list(DAYS)}, "minItems": 1, "uniqueItems": True},
        "from": {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"},
        "to": {"type": "string", "pattern": "^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"},
        "zone": {"type": "string", "examples": ["Europe/Berlin"]},
    },
}
_MOST_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["max", "currency"],
    "properties": {"max": _AMOUNT_SCHEMA, "currency": {"const": ap2.CURRENCY}},
}
POLICY_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "title": "Policy",
    "description": "Limits of a session; one left out does not limit. `*.acme.dev` is every name below acme.dev.",
    "additionalProperties": False,
    "properties": {
        **dict.fromkeys(AMOUNTS, _AMOUNT_SCHEMA),
        "max_tx_per_minute": {"type": "integer", "minimum": 1, "maximum": MAX_COUNT},
        **dict.fromkeys(LISTS, _NAMES_SCHEMA),
        "windows": {"type": "array", "items": _WINDOW_SCHEMA, "minItems": 1, "maxItems": MAX_WINDOWS},
        "checkpoint_at": {
            "type": "array",
            "description": "Fractions of the budget, ascending, at which spending is told of.",
            "items": {"type": "string", "pattern": r"^0\.[0-9]{1,4}$"},
            "minItems": 1,
            "maxItems": MAX_CHECKPOINTS,
            "uniqueItems": True,
        },
        "expires_at": _MOMENT_SCHEMA,
    },
    "examples": [{"max_per_tx": "0.50", "allowed_recipients": ["*.acme.dev"]}],
}
POLICY_IN_SCHEMA: Final[dict[str, Any]] = POLICY_SCHEMA | {
    "properties": POLICY_SCHEMA["properties"]
    | {
        "payment.amount_range": _MOST_SCHEMA,
        "payment.budget": _MOST_SCHEMA,
        "payment.allowed_payees": {
            "type": "object",
            "additionalProperties": False,
            "required": ["allowed"],
            "properties": {"allowed": _NAMES_SCHEMA},
        },
        "payment.execution_date": {
            "type": "object",
            "additionalProperties": False,
            "required": ["not_after"],
            "properties": {"not_after": _MOMENT_SCHEMA},
        },
        ap2.LIST: {
            "type": "array",
            "description": "The same, as the Agent Payments Protocol lists them.",
            "items": {"type": "object", "required": ["type"], "properties": {"type": {"enum": list(ap2.ALIASES)}}},
            "minItems": 1,
            "maxItems": ap2.MAX_CONSTRAINTS,
        },
    },
}
"""What is read: the policy's own keys, and the names that a mandate of the Agent Payments Protocol has for them."""

_UUID: Final = re.compile(UUID_PATTERN.replace("$", r"\Z"))
_MOMENT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})\Z"
)


class Shape(BaseModel):
    """A JSON object with just these members."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def wrong(rule: str, would_pass: str, within: str = "") -> PydanticCustomError:
    """Return the error of a field that breaks a rule, or of a member within it, for a reader to raise."""
    return PydanticCustomError("wrong", "{rule}", {"rule": rule, "would_pass": would_pass, "within": within})


def refused_as_wrong(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a reader of the domain's as a reader of a field: its refusal is the field's error."""

    def reader(value: Any) -> Any:
        try:
            return read(value)
        except InvalidInput as refusal:
            facts = refusal.facts
            within = str(facts["field"]).partition(".")[2]  # the reader does not know the field's own name
            raise wrong(str(facts["rule"]), str(facts["would_pass"]), within) from None

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


def time_of(text: object) -> datetime | None:
    """Return a time that `time_text` has written, or None of none."""
    return datetime.fromisoformat(text) if isinstance(text, str) else None


# --- What comes in ---------------------------------------------------------------------------------------------------
AmountIn = Annotated[
    int,
    BeforeValidator(refused_as_wrong(money.parse)),
    WithJsonSchema({**_AMOUNT_SCHEMA, "description": "USDC, at least 0.000001."}),
]
IdIn = Annotated[
    UUID, BeforeValidator(_read_id), WithJsonSchema({"type": "string", "format": "uuid", "pattern": UUID_PATTERN})
]
MomentIn = Annotated[datetime, BeforeValidator(_read_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
AgentIn = Annotated[
    str,
    BeforeValidator(refused_as_wrong(_read_agent)),
    WithJsonSchema(
        {"type": "string", "maxLength": 261, "pattern": r"^agent://[a-z0-9.-]+$", "examples": [AGENT_EXAMPLE]}
    ),
]
PolicyIn = Annotated[Policy, BeforeValidator(refused_as_wrong(_read_policy)), WithJsonSchema(POLICY_IN_SCHEMA)]
CapabilityIn = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64),
    AfterValidator(refused_as_wrong(_read_capability)),
    Field(examples=["code.lint"]),
]
Line = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_one_line)]
"""A name or a title."""
InvoiceNumber = Annotated[
    str, StringConstraints(min_length=1, max_length=64), AfterValidator(_one_line), Field(examples=["INV-1"])
]
Words = Annotated[str, StringConstraints(min_length=1, max_length=4000), AfterValidator(_not_blank)]
"""A reason, an answer, a description."""
HashIn = Annotated[str, StringConstraints(pattern=HASH_PATTERN), Field(examples=[sha256(b"").hexdigest()])]
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
