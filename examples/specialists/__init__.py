"""Five agents that sell: three check source per file, two write (or claim to write) review briefs per outcome.

Here is only what they offer, so that it can be listed without loading any of their tools.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Specialist:
    """An agent and its one offering. `name` is also its module here."""

    name: str
    agent: str
    capability: str
    pricing: Literal["per_call", "per_outcome"]
    price: str
    unit: str
    description: str


SPECIALISTS: dict[str, Specialist] = {
    specialist.name: specialist
    for specialist in (
        Specialist(
            "lint", "agent://lint.acme.dev", "lint", "per_call", "0.012", "file",
            "Finds likely bugs and dead code in a Python file, with ruff.",
        ),
        Specialist(
            "security", "agent://security.acme.dev", "security", "per_call", "0.025", "file",
            "Finds risky calls and settings in a Python file, with bandit.",
        ),
        Specialist(
            "complexity", "agent://complexity.acme.dev", "complexity", "per_call", "0.008", "file",
            "Finds functions that are too complex to change safely, with radon.",
        ),
        Specialist(
            "brief", "agent://brief.acme.dev", "review-brief", "per_outcome", "2.40", "brief",
            "Turns the findings of a review into a brief: what to look at first, and why.",
        ),
        Specialist(
            "sloppy", "agent://sloppy.acme.dev", "review-brief", "per_outcome", "2.40", "brief",
            "Delivers an empty brief and invoices for it. Here to be disputed.",
        ),
    )
}  # fmt: skip
