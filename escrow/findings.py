"""What a comparison of the books with the chain finds: differences with both sources and a cause, and the verdict.

Pure words and numbers. Who reads the books is `escrow.books`, who reads the chain `escrow.chain.custody`, who compares
`escrow.reconcile`.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from escrow import money


class Cause(StrEnum):
    """Why two sources differ."""

    IN_FLIGHT = "in_flight"
    """A log that is mined and not in the ledger yet, or one that the ledger took before its block was final."""
    DONATED = "donated"
    """USDC that somebody sent to the contract's address outside of every deposit: nobody's, and never credited."""
    MISSING_LOG = "missing_log"
    """The contract has told something that the indexer has passed over."""
    REORGED = "reorged"
    """A log of a block that the chain does not have any more."""
    UNBACKED = "unbacked_deposit"
    """A deposit that was taken before its block was final, whose block is gone, and that was not mined again."""
    FOREIGN = "foreign"
    """None of ours: a log that the chain never told, or a chain transaction of our key that we did not sign."""
    BUG = "bug"
    """Nothing else explains it: two of our own tables, or a table and the contract, contradict each other."""


EXPLAINED: Final = (Cause.IN_FLIGHT, Cause.DONATED)
STALE: Final = timedelta(minutes=10)
"""A comparison as of an older block says too little about now."""


class Verdict(StrEnum):
    """The outcome in one word; `exit_code` says it in one number."""

    EQUAL = "equal"
    EXPLAINED = "explained"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True)
class Difference:
    """Two sources that should say the same and do not. The two numbers are micro-USDC, or counts where `what` counts."""

    rule: str
    """The invariant it breaks: R1 to R10 of docs/operations/reconcile.md."""
    pool: str
    what: str
    ledger_micros: int
    other_micros: int
    cause: Cause
    sources: tuple[str, str]
    """What said the first number, and what said the second."""
    detail: str = ""

    @property
    def is_explained(self) -> bool:
        """Whether it will pass by itself, or harms nobody."""
        return self.cause in EXPLAINED

    def document(self) -> dict[str, object]:
        """Return it as JSON."""
        return {
            "rule": self.rule,
            "pool": self.pool,
            "what": self.what,
            "ledger_micros": self.ledger_micros,
            "other_micros": self.other_micros,
            "difference_micros": self.ledger_micros - self.other_micros,
            "sources": list(self.sources),
            "cause": self.cause.value,
            "detail": self.detail,
        }

    def __str__(self) -> str:
        ours, theirs = self.sources
        said = f"{self.what} of {self.pool}: {ours} has {self.ledger_micros}, {theirs} has {self.other_micros}"
        return f"{self.rule} {said} ({self.cause}){f': {self.detail}' if self.detail else ''}"


@dataclass(frozen=True)
class Report:
    """The outcome of one comparison: at which block, of what, and everything that differs."""

    tier: str
    block: int
    block_hash: str
    read_at: datetime
    pools: int
    compared: int
    held_micros: int
    """The contract's balance of USDC at the block; of one pool, what the contract keeps for it."""
    liabilities: dict[str, int] = field(default_factory=dict)
    """What is owed, by class, by the transfers alone."""
    flying_micros: int = 0
    """By how much the contract must have more than the ledger at this block, for the logs between the two; or less."""
    others_micros: int = 0
    """What the contract holds in pools that others opened past us."""
    surplus_micros: int = 0
    """USDC at the contract's address that it does not account for: given to it, and owed to nobody."""
    differences: list[Difference] = field(default_factory=list)
    in_flight: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def unexplained(self) -> list[Difference]:
        """The differences that a person must look at."""
        return [one for one in self.differences if not one.is_explained]

    @property
    def equal(self) -> bool:
        """Whether the books equal the chain, but for what is explained. An alarm is another matter."""
        return not self.unexplained

    @property
    def verdict(self) -> Verdict:
        """The outcome in one word."""
        if self.unexplained or self.alarms:
            return Verdict.UNEXPLAINED
        return Verdict.EXPLAINED if self.in_flight or self.differences else Verdict.EQUAL

    @property
    def exit_code(self) -> int:
        """0: equal and nothing on its way; 1: every difference is explained; 2: one is not, or there is an alarm."""
        return [Verdict.EQUAL, Verdict.EXPLAINED, Verdict.UNEXPLAINED].index(self.verdict)

    def document(self) -> dict[str, object]:
        """Return the report as JSON, amounts as decimal strings."""
        return {
            "verdict": self.verdict.value,
            "equal": self.equal,
            "at": self.tier,
            "block": self.block,
            "block_hash": self.block_hash,
            "read_at": self.read_at.isoformat(),
            "pools": self.pools,
            "compared": self.compared,
            "held": money.render(self.held_micros),
            "liabilities": {name: money.render(micros) for name, micros in self.liabilities.items()},
            "differences": [difference.document() for difference in self.differences],
            "in_flight": self.in_flight,
            "alarms": self.alarms,
            "seconds": round(self.seconds, 3),
        }


def stale(read_at: datetime, now: datetime) -> list[str]:
    """Return the alarm of an indexer that has read nothing for too long, if it has."""
    if now - read_at <= STALE:
        return []
    return [f"The indexer has read nothing since {read_at.isoformat()}; is the worker running?"]
