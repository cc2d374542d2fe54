"""The answer to a new payment, for both doors that give it. Lives here: its shape, and its JSON made without the shape."""

from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from escrow import money
from marketplace.api import actions, shapes
from marketplace.api.fields import time_text


def sent(
    *,
    id: UUID,
    session_id: UUID,
    to: str,
    provider_id: UUID,
    amount_micros: int,
    metadata: dict[str, object],
    capability: str,
    created_at: datetime,
    remaining_micros: int,
) -> shapes.Payment:
    """Show a payment as it was when it was sent, whatever has become of it: a repeated request gets the same answer."""
    return shapes.Payment(
        id=id,
        session_id=session_id,
        to=to,
        agent=to,
        provider_id=provider_id,
        amount=amount_micros,
        refunded=0,
        status="payable",
        kind="call",
        metadata=metadata,
        capability=capability or None,
        created_at=created_at,
        remaining=remaining_micros,
        redeemed_at=None,
        batch_id=None,
        tx_hash=None,
        next_actions=actions.of_sent(id),
    )


def sent_json(
    *,
    id: str,
    session_id: str,
    to: str,
    provider_id: str,
    amount: str,
    metadata: str,
    capability: str,
    created_at: datetime,
    remaining_micros: int,
) -> str:
    """Return the JSON of `sent` without making the shape: the lane's answer.

    ``amount``, ``metadata`` and ``capability`` are JSON already.
    """
    return _SENT % {
        "id": id,
        "session_id": session_id,
        "to": to,
        "provider_id": provider_id,
        "amount": amount,
        "metadata": metadata,
        "capability": capability,
        "created_at": time_text(created_at),
        "remaining": money.render(remaining_micros),
    }


def _sent_template() -> str:
    """Return the JSON of `sent` with a place for each value, made from the shape, so that the two cannot differ."""
    ids = {name: UUID(int=number) for number, name in enumerate(("id", "session_id", "provider_id"), start=1)}
    at = datetime(2000, 1, 1, tzinfo=UTC)
    shape = sent(**ids, to="<to>", amount_micros=1, metadata={}, capability="", created_at=at, remaining_micros=2)
    places = {str(value): f"%({name})s" for name, value in ids.items()} | {
        "<to>": "%(to)s",
        '"metadata":{}': '"metadata":%(metadata)s',
        '"capability":null': '"capability":%(capability)s',
        f'"{money.render(1)}"': '"%(amount)s"',
        f'"{money.render(2)}"': '"%(remaining)s"',
        time_text(at): "%(created_at)s",
    }
    text = shape.model_dump_json().replace("%", "%%")
    for value, place in places.items():
        text = text.replace(value, place)
    return text


_SENT: Final = _sent_template()
