"""What callers get of their own side: who a key says they are, keys, events, earnings; and the health of the service."""

from typing import Annotated, Literal

from pydantic import Field

from marketplace.api.fields import Amount, Id, JsonObject, Moment, Shape
from marketplace.api.shapes import USDC, Page


class Event(Shape):
    position: int
    type: str
    at: Moment
    subject_type: str
    subject_id: Id
    payload: JsonObject


class EventPage(Shape):
    """Events, oldest first, and the position to go on from."""

    items: list[Event]
    next: int


class Me(Shape):
    scope: Literal["payer", "session", "provider"]
    payer_id: Id | None
    provider_id: Id | None
    session_id: Id | None
    key_id: str
    read_only: bool
    chain_id: int


class Balance(Shape):
    payable: Amount
    settling: Amount
    credited: Amount
    withdrawn: Amount
    disputed: Amount
    currency: USDC = "USDC"
    address: str


class Key(Shape):
    id: Id
    key_id: str
    scope: Literal["payer", "session", "provider"]
    session_id: Id | None
    read_only: bool
    name: str
    ceiling: Annotated[Amount | None, Field(description="What its session was given for this key alone.")]
    rotated_from: Annotated[Id | None, Field(description="The key that this one takes the place of.")]
    created_at: Moment
    expires_at: Moment | None
    revoked_at: Moment | None
    last_used_at: Moment | None


class IssuedKey(Key):
    """A key with its clear text. It is shown in this answer, and to the same request with the same Idempotency-Key."""

    api_key: str


class KeyPage(Page[Key]): ...


class Health(Shape):
    status: Literal["ok"]


class ReadinessCheck(Shape):
    """One part that the service stands on."""

    name: str
    ok: bool
    detail: Annotated[str, Field(description="What was seen, for a person.")]


class Readiness(Shape):
    """What the service stands on. ``status`` is ``ready`` only when all of it is there."""

    status: Literal["ready", "not_ready"]
    checks: Annotated[
        list[ReadinessCheck],
        Field(
            description="`database`, `worker`, `chain_id`, `contract`, `signers`, `signer_funds`, `oldest_action`, `indexer`, "
            "`broker`. Without the database only it and the broker are judged."
        ),
    ]
    reason: Annotated[str, Field(description="The parts that are missing, in words; empty when none is.")]
