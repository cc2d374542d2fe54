"""What must happen on chain. Lives here: recording it with the change that asks for it. Signing and sending is the relay's."""

from collections.abc import Callable, Mapping
from typing import Final
from uuid import UUID

from django.db import transaction

from escrow.models import ChainAction, Pool

_listeners: Final[list[Callable[[], None]]] = []


def on_record(listener: Callable[[], None]) -> None:
    """Have a function called after each commit that recorded something: a hint only, the sweep comes anyway."""
    _listeners.append(listener)


def record(
    kind: ChainAction.Kind,
    *,
    dedupe_key: str,
    pool: Pool | None,
    subject_id: UUID | None = None,
    params: Mapping[str, object] | None = None,
) -> ChainAction:
    """Record a chain action in the caller's database transaction; the same key twice is the same action."""
    action, created = ChainAction.objects.get_or_create(
        dedupe_key=dedupe_key,
        defaults={"kind": kind, "pool": pool, "subject_id": subject_id, "params": dict(params or {})},
    )
    if created:
        transaction.on_commit(_nudge, robust=True)
    return action


def _nudge() -> None:
    for listener in _listeners:
        listener()
