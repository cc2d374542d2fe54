"""A provider that delivers nothing and invoices for it, so that there is something to dispute."""

from typing import Any

from agentmarket import Seller, Task
from examples.specialists import SPECIALISTS


def sell(seller: Seller) -> None:
    @seller.task("review-brief", price=SPECIALISTS["sloppy"].price)
    def write(task: Task) -> dict[str, Any]:
        return {"markdown": ""}
