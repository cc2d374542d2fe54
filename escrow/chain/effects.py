"""What each event of the contract does to its balances: the rules at the top of IBudgetPool, one for each event. Pure.

With them a pool is rebuilt from logs alone, and a log that one side has and the other has not yet is worth a known amount.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from escrow.chain.events import PoolEvent

FREE: Final = "free"
DISPUTED: Final = "disputed"
FEES: Final = "fees"


def line(provider: str) -> str:
    """The place of one provider's money in a pool."""
    return f"line {provider}"


def effects(event: str, fields: Mapping[str, Any]) -> dict[str, int]:
    """By how much an event changes each place of its pool, in micro-USDC. `fields` has the names of the dataclasses."""
    name = fields.get("provider", "")
    match event:
        case "PoolOpened":
            return {FREE: fields["deposit"]}
        case "PoolToppedUp":
            return {FREE: fields["amount"]}
        case "Credited":
            return {FREE: -fields["amount"], line(name): fields["amount"]}
        case "Withdrawn":
            return {line(name): -(fields["net"] + fields["fee"]), FEES: fields["fee"]}
        case "FeesWithdrawn":
            return {FEES: -fields["amount"]}
        case "Reclaimed":
            return {FREE: -fields["amount"]}
        case "Disputed":
            return {line(name): -fields["amount"], DISPUTED: fields["amount"]}
        case "DisputeResolved":
            to_provider, to_payer = fields["to_provider"], fields["to_payer"]
            return {DISPUTED: -(to_provider + to_payer), line(name): to_provider, FREE: to_payer}
        case _:
            return {}


def effects_of(event: PoolEvent) -> dict[str, int]:
    """The same of an event as the chain told it."""
    return effects(type(event).__name__, vars(event))


def added_up(changes: Iterable[Mapping[str, int]]) -> Counter[str]:
    """The sum of changes, place by place."""
    total: Counter[str] = Counter()
    for change in changes:
        total.update(change)
    return total
