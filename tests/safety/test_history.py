"""That the second reading of the rules can fail: each rule broken once is found, and what is within all of them passes."""

from typing import Any

import pytest

from tests.marketplace.conftest import World
from tests.safety.history import History, Violation

pytestmark = pytest.mark.django_db(transaction=True)

SHUT = [{"days": ["mon"], "from": "00:00", "to": "00:01", "zone": "Pacific/Kiritimati"}]
SHUT += [{"days": ["thu"], "from": "00:00", "to": "00:01", "zone": "Pacific/Kiritimati"}]
OPEN = [{"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "00:00", "to": "24:00", "zone": "UTC"}]
WITHIN: dict[str, Any] = {
    "max_per_tx": "0.40", "max_total": "0.80", "max_per_hour": "0.80", "max_per_day": "0.80", "max_tx_per_minute": 2,
    "allowed_recipients": ["*.acme.dev"], "denied_recipients": ["evil.acme.dev"], "allowed_capabilities": ["code.lint"],
    "windows": OPEN, "approval_above": "0.40", "new_recipient_max": "0.40", "expires_at": "2999-01-01T00:00:00Z",
}  # fmt: skip
"""Two payments, or holds, of 0.40 are just within it."""
BROKEN: dict[str, Any] = {
    "max_per_tx": "0.399999", "max_total": "0.799999", "max_per_hour": "0.799999", "max_per_day": "0.799999",
    "max_tx_per_minute": 1, "allowed_recipients": ["acme.dev", "check.example.dev"], "denied_recipients": ["*.acme.dev"],
    "allowed_capabilities": ["review"], "windows": SHUT, "approval_above": "0.399999", "new_recipient_max": "0.399999",
    "expires_at": "2020-01-01T00:00:00Z",
}  # fmt: skip


def spend(world: World, path: str, **more: Any) -> None:
    """Ask for 0.40 twice, out of a session whose policy has no rule."""
    for _ in range(2):
        body = {"to": "agent://lint.acme.dev", "amount": "0.40", "capability": "code.lint", **more}
        assert world.a.by_session.post(path, body).status == 201


def judged(world: World, policy: dict[str, Any], *bystanders: int) -> int:
    """Judge what happened as if that had been the policy; return how many payments and holds were judged."""
    history = History(frozenset(bystanders))
    opened = [step for step in history.read() if step.reason not in ("payment", "hold")]
    for step in opened:
        history._keep(step)
    history.judge({str(world.a.session.pk): policy})
    return history.judged


@pytest.mark.parametrize("path", ["/v1/payments", "/v1/holds"])
def test_what_is_just_within_every_rule_passes(market: World, path: str) -> None:
    spend(market, path)
    assert judged(market, WITHIN) == 2


@pytest.mark.parametrize("path", ["/v1/payments", "/v1/holds"])
def test_each_rule_that_was_broken_is_found(market: World, path: str, subtests: pytest.Subtests) -> None:
    spend(market, path)
    assert BROKEN.keys() == WITHIN.keys()
    for rule, limit in BROKEN.items():
        with subtests.test(rule=rule), pytest.raises(Violation):
            judged(market, {**WITHIN, rule: limit})


def test_money_of_a_bystander_that_moved_is_found(market: World) -> None:
    spend(market, "/v1/payments")
    with pytest.raises(Violation, match="a bystander's money moved"):
        judged(market, WITHIN, market.a.session.account_id)


def test_history_that_was_rewritten_is_found(market: World) -> None:
    spend(market, "/v1/payments")
    history = History()
    history.accept()
    history.check_unchanged()
    history.steps.pop(1)
    with pytest.raises(Violation, match="rewritten"):
        history.check_unchanged()
