"""What a review bought and what came of it: the facts, for a report that somebody else writes."""

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal

from examples.findings import Finding


@dataclass(frozen=True)
class Paid:
    """One paid call that was delivered. `elapsed_ms` is the payment over HTTP alone, not the work."""

    payment_id: str
    agent: str
    amount: str
    file: str
    elapsed_ms: float


@dataclass(frozen=True)
class Refund:
    """One paid call that could not be served, and whose money came back."""

    payment_id: str
    agent: str
    amount: str
    file: str
    reason: str


@dataclass(frozen=True)
class ReviewResult:
    path: str
    files: tuple[str, ...]
    session_id: str
    #: what the session has left
    remaining: str
    payments: tuple[Paid, ...]
    #: three payments of one file one after the other, before anything else ran
    three_payments_ms: float
    #: the same three with the work they paid for
    three_calls_ms: float
    refunds: tuple[Refund, ...]
    findings: tuple[Finding, ...]
    #: Markdown
    brief: str
    brief_task_id: str
    brief_invoice_id: str
    rejected_task_id: str
    rejected_invoice_id: str
    dispute_id: str

    @property
    def micropayments(self) -> str:
        """The sum of the delivered calls, as a decimal string."""
        whole, _, fraction = str(sum((Decimal(paid.amount) for paid in self.payments), Decimal(0))).partition(".")
        return f"{whole}.{fraction.rstrip('0'):0<2}"

    def percentile_ms(self, percent: int) -> float:
        """Of the payments over HTTP alone (nearest rank)."""
        ordered = sorted(paid.elapsed_ms for paid in self.payments)
        return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else 0.0

    def summary(self) -> str:
        calls = Counter(paid.agent for paid in self.payments)
        return "\n".join(
            [
                f"{len(self.files)} files of {self.path}: {len(self.findings)} findings",
                *(f"  {count} calls to {agent}" for agent, count in sorted(calls.items())),
                f"{len(self.payments)} micropayments, {self.micropayments} USDC in all",
                f"  p50 {self.percentile_ms(50):.1f} ms, p95 {self.percentile_ms(95):.1f} ms",
                f"  three in a row {self.three_payments_ms:.1f} ms, with the work {self.three_calls_ms:.1f} ms",
                *(f"refunded: {refund.amount} from {refund.agent}: {refund.reason}" for refund in self.refunds),
                f"brief: task {self.brief_task_id}, accepted, invoice {self.brief_invoice_id} approved",
                f"empty brief: task {self.rejected_task_id}, rejected; dispute {self.dispute_id} waits for a ruling",
                f"left in session {self.session_id}: {self.remaining} USDC",
            ]
        )
