"""From answers about policies to shapes. Lives here: a payment that nobody made, and the past under another policy."""

from escrow import money
from escrow.backtest import Example, Report, Tally
from escrow.rehearsal import Answer
from marketplace.api import policy_shapes
from marketplace.api.fields import time_of
from marketplace.api.problems import KINDS

_FACTS = ("rule", "limit", "spent", "remaining", "would_allow")


def check(answer: Answer) -> policy_shapes.Check:
    """Show what a payment would be answered."""
    refusal = answer.refusal
    facts = {} if refusal is None else refusal.facts
    members = {name: facts.get(name) for name in _FACTS}
    if answer.remaining_micros is not None:
        members["remaining"] = money.render(answer.remaining_micros)
    code = None if refusal is None else refusal.code if refusal.code in KINDS else "conflict"
    return policy_shapes.Check.model_validate(
        {
            **members,
            "allowed": refusal is None,
            "code": code,
            "available_at": time_of(facts.get("available_at")),
            "detail": None if refusal is None else refusal.detail,
            "policy_version": answer.policy_version,
        }
    )


def backtest(report: Report, *, days: int) -> policy_shapes.Backtest:
    """Show what a policy would have made of the past."""
    rules = sorted(report.by_rule.items(), key=lambda found: (-found[1].count, found[0]))
    return policy_shapes.Backtest(
        days=days,
        decisions=report.decisions,
        refused=_tally(report.refused),
        by_rule=[
            policy_shapes.RuleTally(rule=rule, count=tally.count, amount=tally.amount_micros) for rule, tally in rules
        ],
        examples=[_example(found) for found in report.examples],
        still_refused=_tally(report.still_refused),
        newly_allowed=_tally(report.newly_allowed),
        waiting=_tally(report.waiting),
    )


def _tally(tally: Tally) -> policy_shapes.Tally:
    return policy_shapes.Tally(count=tally.count, amount=tally.amount_micros)


def _example(found: Example) -> policy_shapes.Example:
    past, facts = found.past, found.refusal.facts
    return policy_shapes.Example.model_validate(
        {
            "at": past.at,
            "session_id": past.session_id,
            "kind": past.kind,
            "to": past.to,
            "amount": past.amount_micros,
            "capability": past.capability,
            **{name: facts.get(name) for name in ("rule", "limit", "spent", "would_allow")},
            "detail": found.refusal.detail,
        }
    )
