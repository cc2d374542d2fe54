"""What the harness has asked for, in its own words. Lives here: a record that takes nothing from the ledger."""

from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID


@dataclass(frozen=True)
class Order:
    """A payment that was asked for under a key and answered."""

    key: str
    pool: UUID
    pool_key: bytes
    address: str
    micros: int
    payment: str
    """The payment's id, as the answer named it."""
    over_http: bool


@dataclass
class Asked:
    """All that was asked: what each provider of each pool must have been paid, and what each pool must have taken in."""

    orders: dict[str, Order] = field(default_factory=dict)
    owed: Counter[tuple[bytes, str]] = field(default_factory=Counter)
    deposited: Counter[bytes] = field(default_factory=Counter)
    recent: list[Order] = field(default_factory=list)
    """Since the last judgement."""
    seconds: list[str] = field(default_factory=list)
    """Keys that were answered with a second payment, or as not charged though they have one."""
    wrong: list[str] = field(default_factory=list)
    """Answers and refusals that nothing explains."""
    refused: int = 0
    """Refusals that were an answer, since the last judgement."""

    def paid(self, order: Order) -> None:
        """Note an answer. The same key again must be the same payment."""
        before = self.orders.get(order.key)
        if before is not None:
            if before.payment != order.payment:
                self.seconds.append(f"key {order.key} was answered with {before.payment} and with {order.payment}")
            return
        self.orders[order.key] = order
        self.recent.append(order)
        self.owed[order.pool_key, order.address] += order.micros

    def judged(self) -> None:
        """Begin anew with what counts from one judgement to the next."""
        self.recent.clear()
        self.seconds.clear()
        self.wrong.clear()
        self.refused = 0

    def of_pools(self, pools: set[UUID]) -> list[Order]:
        """Return the orders of these pools since the last judgement."""
        return [order for order in self.recent if order.pool in pools]
