"""What a policy would have done. Lives here: replaying the decisions of the past under a proposed policy, and the report.

The rules are those of `escrow.policy` and, for what is counted, of `escrow_judge`, in its order. Where the past comes from
is its caller's. The money itself is not replayed: what a session could not pay for want of funds stays refused.
"""

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Final

from escrow import policy
from escrow.errors import PolicyDenied
from escrow.policy import Policy

MAX_EXAMPLES: Final = 20
RETURN: Final = "return"
"""The kind of an entry that is no decision: money that came back to its session, from a hold or by a refund."""
RULES: Final = frozenset(limit.name for limit in fields(Policy)) - {"checkpoint_at"}
_SPANS: Final = {"max_per_hour": timedelta(hours=1), "max_per_day": timedelta(days=1)}
_MINUTE: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Past:
    """One decision. ``party`` is the recipient as its pool knows it; ``rule`` is what refused, None when nothing did."""

    at: datetime
    session_id: Hashable
    kind: str
    to: str
    party: Hashable
    capability: str | None
    amount_micros: int
    was_allowed: bool
    rule: str | None = None


@dataclass(slots=True)
class Tally:
    """How many decisions, and what they come to."""

    count: int = 0
    amount_micros: int = 0

    def add(self, amount_micros: int) -> None:
        self.count += 1
        self.amount_micros += amount_micros


@dataclass(frozen=True, slots=True)
class Example:
    """A decision that would be another one, and the refusal that it would get."""

    past: Past
    refusal: PolicyDenied


@dataclass(slots=True)
class Report:
    """What would have become of the decisions: still allowed, refused, still refused and newly allowed are all of them."""

    decisions: int = 0
    still_allowed: Tally = field(default_factory=Tally)
    refused: Tally = field(default_factory=Tally)
    """Allowed then, refused by the proposed policy: the money would not have been spent."""
    still_refused: Tally = field(default_factory=Tally)
    newly_allowed: Tally = field(default_factory=Tally)
    waiting: Tally = field(default_factory=Tally)
    """Of the still allowed ones, those that a person would be asked for. It is taken that they would have been approved."""
    by_rule: dict[str, Tally] = field(default_factory=dict)
    """The refused ones, by the rule that refuses."""
    examples: list[Example] = field(default_factory=list)
    """The first of the refused ones."""


def replay(history: Iterable[Past], proposed: Policy, *, since: datetime | None = None) -> Report:
    """Return what a policy would have made of a history, which comes in the order of time.

    What came before ``since`` counts against the limits and is not reported. Only what the proposed policy allows counts. A
    decision that something else than a policy refused stays refused; what came back lowers the total of its session, also when
    the proposed policy would have kept it. In memory: the last day of what was allowed, a sum for
    each session under a total, and the recipients when a first payment is limited.
    """
    report, counted = Report(), _Counted(proposed)
    for past in history:
        if past.kind == RETURN:
            counted.give_back(past)
            continue
        refusal = _elsewhere(past) or counted.refusal(past)
        waits = proposed.approval_above is not None and past.amount_micros > proposed.approval_above
        passes = refusal is None and (past.was_allowed or not waits)
        if passes:
            counted.add(past)
        if since is None or past.at >= since:
            _note(
                report, past, passes=passes, waits=waits, refusal=refusal if isinstance(refusal, PolicyDenied) else None
            )
    return report


def _elsewhere(past: Past) -> bool | None:
    """Return True for a refusal that no policy changes."""
    return True if not past.was_allowed and past.rule not in RULES else None


def _note(report: Report, past: Past, *, passes: bool, waits: bool, refusal: PolicyDenied | None) -> None:
    report.decisions += 1
    amount = past.amount_micros
    if passes:
        (report.still_allowed if past.was_allowed else report.newly_allowed).add(amount)
        if waits:
            report.waiting.add(amount)
    elif not past.was_allowed:
        report.still_refused.add(amount)
    elif refusal is not None:
        report.refused.add(amount)
        report.by_rule.setdefault(str(refusal.facts["rule"]), Tally()).add(amount)
        if len(report.examples) < MAX_EXAMPLES:
            report.examples.append(Example(past, refusal))


class _Sliding:
    """The sum of each session over a time that slides: of `(at - span, at]`, as the database counts it."""

    def __init__(self, span: timedelta) -> None:
        self._span = span
        self._entries: deque[tuple[datetime, Hashable, int]] = deque()
        self._sums: dict[Hashable, int] = {}

    def of(self, session_id: Hashable, at: datetime) -> int:
        while self._entries and self._entries[0][0] <= at - self._span:
            _, gone, amount = self._entries.popleft()
            self._sums[gone] -= amount
            if not self._sums[gone]:
                del self._sums[gone]
        return self._sums.get(session_id, 0)

    def add(self, session_id: Hashable, at: datetime, amount: int) -> None:
        self._entries.append((at, session_id, amount))
        self._sums[session_id] = self._sums.get(session_id, 0) + amount


class _Counted:
    """The policy with what it has allowed so far."""

    def __init__(self, proposed: Policy) -> None:
        self._policy = proposed
        self._totals: dict[Hashable, int] | None = None if proposed.max_total is None else {}
        self._sums = {rule: _Sliding(span) for rule, span in _SPANS.items() if getattr(proposed, rule) is not None}
        self._minute = None if proposed.max_tx_per_minute is None else _Sliding(_MINUTE)
        self._known: set[Hashable] | None = None if proposed.new_recipient_max is None else set()

    def refusal(self, past: Past) -> PolicyDenied | None:
        """Return what the policy says of a payment more, None when it allows it; approvals are not asked for here."""
        try:
            policy.check(self._policy, to=past.to, capability=past.capability, now=past.at)
        except PolicyDenied as denial:
            return denial
        for rule, limit, spent in self._limits(past):
            if spent + (1 if rule == "max_tx_per_minute" else past.amount_micros) > limit:
                return policy.exceeded(rule, limit=limit, spent=spent, amount_micros=past.amount_micros)
        return None

    def _limits(self, past: Past) -> Iterable[tuple[str, int, int]]:
        """Return each limit that this payment comes under, and what counts against it already."""
        limits = self._policy
        if limits.max_per_tx is not None:
            yield "max_per_tx", limits.max_per_tx, 0
        if self._known is not None and past.party not in self._known and limits.new_recipient_max is not None:
            yield "new_recipient_max", limits.new_recipient_max, 0
        if self._totals is not None and limits.max_total is not None:
            yield "max_total", limits.max_total, self._totals.get(past.session_id, 0)
        for rule, sums in self._sums.items():
            yield rule, getattr(limits, rule), sums.of(past.session_id, past.at)
        if self._minute is not None and limits.max_tx_per_minute is not None:
            yield "max_tx_per_minute", limits.max_tx_per_minute, self._minute.of(past.session_id, past.at)

    def add(self, past: Past) -> None:
        """Count what has been allowed."""
        if self._totals is not None:
            self._totals[past.session_id] = self._totals.get(past.session_id, 0) + past.amount_micros
        for sums in self._sums.values():
            sums.add(past.session_id, past.at, past.amount_micros)
        if self._minute is not None:
            self._minute.add(past.session_id, past.at, 1)
        if self._known is not None:
            self._known.add(past.party)

    def give_back(self, past: Past) -> None:
        """Take from a total what came back, as the database does; an hour and a day count what went out."""
        if self._totals is not None:
            self._totals[past.session_id] = max(self._totals.get(past.session_id, 0) - past.amount_micros, 0)
