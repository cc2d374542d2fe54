"""What came of it, added up by fault. Lives here: the sums, the table and the JSON. What counts is the judge's to say."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Result:
    """One run: which fault, or which faults of a history, and what the judge found."""

    fault: str
    seed: int
    lost: int
    doubled: int
    unexplained: int
    recovery: float
    """Seconds from the fault's end until everything was in order again."""
    lines: tuple[str, ...] = ()
    """What is wrong, and in a history every step."""
    inside: tuple[tuple[str, int], ...] = ()
    """Of a history: how often each fault happened in it."""
    info: str = ""
    orders: int = 0
    """Answered payments that were judged."""
    landed: int = 0
    """Micro-USDC that the chain credited."""
    refused: int = 0
    """Refusals that were taken for an answer."""

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.doubled or self.unexplained)

    def document(self) -> dict[str, Any]:
        """Return what goes over a pipe as JSON."""
        return asdict(self)

    @classmethod
    def of(cls, document: dict[str, Any]) -> "Result":
        """Read what `document` made."""
        inside = tuple((str(name), int(times)) for name, times in document.pop("inside"))
        return cls(**{**document, "lines": tuple(document["lines"])}, inside=inside)


@dataclass
class Row:
    """The sums of one fault."""

    runs: int = 0
    lost: int = 0
    doubled: int = 0
    unexplained: int = 0
    recoveries: list[float] = field(default_factory=list)
    orders: int = 0
    landed: int = 0
    refused: int = 0

    def add(self, result: Result, runs: int = 1) -> None:
        """Add a run's, or of a fault inside a history its times and the history's outcome."""
        self.runs += runs
        self.lost += result.lost
        self.doubled += result.doubled
        self.unexplained += result.unexplained
        self.recoveries.append(result.recovery)
        self.orders += result.orders
        self.landed += result.landed
        self.refused += result.refused

    def document(self) -> dict[str, Any]:
        """Return the sums as JSON."""
        worst, usual = max(self.recoveries, default=0.0), median(self.recoveries or [0.0])
        return {
            "runs": self.runs,
            "lost": self.lost,
            "doubled": self.doubled,
            "unexplained": self.unexplained,
            "orders": self.orders,
            "landed_micros": self.landed,
            "refused": self.refused,
            "recovery_s": round(worst, 2),
            "recovery_median_s": round(usual, 2),
        }


@dataclass
class Table:
    """All results. A fault inside a history has a row of its own that the totals leave out: the history counts once."""

    rows: dict[str, Row] = field(default_factory=dict)
    inside: dict[str, Row] = field(default_factory=dict)
    failed: list[Result] = field(default_factory=list)
    info: list[str] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Add one run."""
        self.rows.setdefault(result.fault, Row()).add(result)
        for name, times in result.inside:
            self.inside.setdefault(name, Row()).add(result, times)
        if not result.clean:
            self.failed.append(result)
        if result.info:
            self.info.append(f"{result.fault}: {result.info}")

    @property
    def total(self) -> Row:
        """Return the sums of everything."""
        total = Row()
        for row in self.rows.values():
            total.runs += row.runs
            total.lost += row.lost
            total.doubled += row.doubled
            total.unexplained += row.unexplained
            total.recoveries += row.recoveries
            total.orders += row.orders
            total.landed += row.landed
            total.refused += row.refused
        return total

    def document(self, seconds: float) -> dict[str, Any]:
        """Return everything as JSON."""
        by_fault = {name: row.document() for name, row in sorted({**self.inside, **self.rows}.items())}
        failed = [{"fault": r.fault, "seed": r.seed, "lines": list(r.lines)} for r in self.failed]
        return {
            **self.total.document(),
            "seconds": round(seconds, 1),
            "by_fault": by_fault,
            "failed": failed,
            "info": self.info,
        }

    def show(self, write: Callable[[str], object]) -> None:
        """Write the table, and how to replay what failed."""
        shape = "{:<28} {:>7} {:>6} {:>8} {:>12} {:>10} {:>10}\n"
        write(shape.format("fault", "runs", "lost", "doubled", "unexplained", "median s", "worst s"))
        rows = [*sorted(self.rows.items()), *((f"  {name}", row) for name, row in sorted(self.inside.items()))]
        for name, row in [*rows, ("all", self.total)]:
            said = row.document()
            sums = (said["runs"], said["lost"], said["doubled"], said["unexplained"])
            write(shape.format(name, *sums, said["recovery_median_s"], said["recovery_s"]))
        said = self.total.document()
        write(
            f"judged: {said['orders']} payments, {said['landed_micros']} micro-USDC landed, {said['refused']} refused\n"
        )
        for line in self.info:
            write(f"{line}\n")
        for result in self.failed:
            write(f"\n{result.fault}, seed {result.seed}:\n" + "".join(f"  {line}\n" for line in result.lines))
