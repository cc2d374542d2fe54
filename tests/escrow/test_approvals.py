"""`escrow.approvals` and what is kept of decisions: a person's word in the way of a payment, and every refusal on record."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction

from escrow import approvals, funding, holds, payments, pools, sessions
from escrow.errors import ApprovalRequired, InsufficientFunds, InvalidInput, PolicyDenied, StateConflict
from escrow.models import Approval, Decision, Denial, Event
from escrow.policy import Policy
from tests.escrow import books
from tests.escrow.books import NOW, USDC, unmoved

pytestmark = pytest.mark.django_db

LIMITED = Policy(approval_above=USDC)


def ask(spending, to, micros: int, key: str = "k") -> payments.Payment:
    """Pay under a key, always with the same request."""
    return payments.send(
        session_id=spending.pk, party_id=to.pk, to=books.LINT, amount_micros=micros, metadata={"file": "a.py"},
        idempotency_key=key, request_hash=b"\1" * 32, now=NOW,
    ).payment  # fmt: skip


def refused(spending, to, micros: int, key: str = "k") -> Approval:
    """Ask for more than a session may spend alone; return what a person is asked."""
    with unmoved(), pytest.raises(ApprovalRequired) as caught:
        ask(spending, to, micros, key)
    return Approval.objects.get(pk=caught.value.facts["approval_id"])


def test_up_to_the_limit_nobody_is_asked() -> None:
    spending, to = books.session(policy=LIMITED), books.party()
    assert ask(spending, to, USDC).amount_micros == USDC
    assert not Approval.objects.exists()


def test_over_the_limit_a_person_is_asked_once_and_a_yes_lets_the_same_request_pass_once() -> None:
    spending, to = books.session(policy=LIMITED), books.party()
    asked = refused(spending, to, USDC + 1)
    assert refused(spending, to, USDC + 1) == asked
    assert (asked.status, asked.kind, asked.to, asked.amount_micros, asked.metadata) == (
        "waiting", "payment", books.LINT, USDC + 1, {"file": "a.py"},
    )  # fmt: skip
    assert asked.expires_at == NOW + timedelta(days=1)
    approvals.approve(approval=asked, by="Ada", now=NOW)
    paid = ask(spending, to, USDC + 1)
    assert paid.amount_micros == USDC + 1
    with unmoved():
        assert ask(spending, to, USDC + 1) == paid
    told = list(Event.objects.filter(subject_type="approval").order_by("pk").values_list("type", flat=True))
    assert told == ["approval.requested", "approval.approved"]


def test_a_yes_is_to_one_request_alone() -> None:
    spending, to = books.session(policy=LIMITED), books.party()
    approvals.approve(approval=refused(spending, to, 2 * USDC), by="Ada", now=NOW)
    other_key = refused(spending, to, 2 * USDC, key="another")
    assert other_key.status == "waiting"
    with unmoved(), pytest.raises(ApprovalRequired):
        payments.send(
            session_id=spending.pk, party_id=to.pk, to=books.LINT, amount_micros=2 * USDC, metadata={},
            idempotency_key="k", request_hash=b"\2" * 32, now=NOW,
        )  # fmt: skip


def test_a_yes_lifts_no_other_rule() -> None:
    limits = Policy(approval_above=USDC, max_per_hour=3 * USDC)
    spending, to = books.session(policy=limits), books.party()
    asked = refused(spending, to, 3 * USDC)
    approvals.approve(approval=asked, by="Ada", now=NOW)
    books.pay(spending, to, 1)
    with unmoved(), pytest.raises(PolicyDenied) as caught:
        ask(spending, to, 3 * USDC)
    assert caught.value.facts["rule"] == "max_per_hour"


def test_nobody_is_asked_for_what_another_rule_refuses() -> None:
    spending, to = books.session(micros=2 * USDC, policy=LIMITED), books.party()
    with unmoved(), pytest.raises(InsufficientFunds):
        ask(spending, to, 3 * USDC)
    assert not Approval.objects.exists()


def test_a_no_is_final_and_says_why() -> None:
    spending, to = books.session(policy=LIMITED), books.party()
    asked = refused(spending, to, 2 * USDC)
    approvals.refuse(approval=asked, reason="too dear", by="Ada", now=NOW)
    with unmoved(), pytest.raises(PolicyDenied, match="too dear") as caught:
        ask(spending, to, 2 * USDC)
    assert (caught.value.facts["rule"], caught.value.retryable) == ("approval_above", False)
    with unmoved(), pytest.raises(StateConflict):
        approvals.approve(approval=asked, by="Ada", now=NOW)


def test_a_no_needs_a_reason() -> None:
    spending, to = books.session(policy=LIMITED), books.party()
    asked = refused(spending, to, 2 * USDC)
    with unmoved(), pytest.raises(InvalidInput):
        approvals.refuse(approval=asked, reason=" ", by="Ada", now=NOW)
    asked.refresh_from_db()
    assert asked.status == "waiting"


def test_silence_is_a_no_and_the_request_asks_anew() -> None:
    spending, to = books.session(policy=LIMITED), books.party()
    asked = refused(spending, to, 2 * USDC)
    end = asked.expires_at
    with unmoved(), pytest.raises(StateConflict) as caught:
        approvals.approve(approval=asked, by="Ada", now=end)
    assert caught.value.facts == {"subject": "approval", "state": "expired"}
    assert approvals.expire_due(now=end - timedelta(microseconds=1), limit=10) == 0
    assert approvals.expire_due(now=end, limit=10) == 1
    again = refused(spending, to, 2 * USDC)
    assert again.pk != asked.pk


def test_a_yes_ends_with_its_time() -> None:
    spending, to = books.session(policy=LIMITED), books.party()
    asked = refused(spending, to, 2 * USDC)
    approvals.approve(approval=asked, by="Ada", now=NOW)
    Approval.objects.filter(pk=asked.pk).update(expires_at=NOW)
    assert refused(spending, to, 2 * USDC).pk == asked.pk
    approvals.expire_due(now=NOW, limit=10)
    assert refused(spending, to, 2 * USDC).pk != asked.pk


def test_a_hold_waits_for_a_person_too() -> None:
    spending, to = books.session(policy=LIMITED), books.party()

    def place() -> holds.Hold:
        return holds.place(
            session=spending, amount_micros=2 * USDC, party=to, to=books.LINT, fingerprint=b"\7" * 32, now=NOW
        )

    with unmoved(), pytest.raises(ApprovalRequired) as caught:
        place()
    assert caught.value.afterwards is not None
    caught.value.afterwards()
    asked = Approval.objects.get(pk=caught.value.facts["approval_id"])
    assert (asked.kind, asked.status) == ("hold", "waiting")
    with unmoved(), pytest.raises(ApprovalRequired) as caught:
        place()
    caught.value.afterwards()
    assert caught.value.facts["approval_id"] == str(asked.pk)
    approvals.approve(approval=asked, by="Ada", now=NOW)
    assert place().amount_micros == 2 * USDC


# --- a recipient that is new ----------------------------------------------------------------------------------------


def test_the_first_payment_to_somebody_has_a_limit_of_its_own() -> None:
    spending, to = books.session(policy=Policy(new_recipient_max=100_000)), books.party()
    with unmoved(), pytest.raises(PolicyDenied) as caught:
        books.pay(spending, to, 100_001)
    limits = {"rule": "new_recipient_max", "limit": "0.10", "would_allow": "0.10"}
    assert caught.value.facts == {**limits, "policy_version": 1}
    books.pay(spending, to, 100_000)
    books.pay(spending, to, 5 * USDC)
    with unmoved(), pytest.raises(PolicyDenied):
        books.pay(spending, books.party(), 100_001)


def test_whom_another_session_of_the_pool_has_paid_is_not_new() -> None:
    pool, to = books.pool(), books.party()
    books.pay(books.session(pool), to, 1)
    books.pay(books.session(pool, policy=Policy(new_recipient_max=1)), to, USDC)
    elsewhere = books.session(policy=Policy(new_recipient_max=1))
    with unmoved(), pytest.raises(PolicyDenied):
        books.pay(elsewhere, to, USDC)


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_every_decision_is_kept_with_its_rule_its_version_and_its_facts() -> None:
    limits = Policy(max_per_tx=500_000, denied_recipients=("bad.acme.dev",))
    spending, to = books.session(micros=USDC, policy=limits), books.party()
    paid = books.pay(spending, to, 500_000)
    held = books.hold(spending, to, 400_000)
    for micros, agent in ((500_001, books.LINT), (1, "agent://bad.acme.dev"), (200_000, books.LINT)):
        with unmoved(), pytest.raises((PolicyDenied, InsufficientFunds)):
            books.pay(spending, to, micros, agent=agent)
    sessions.pause(session=spending, now=NOW)
    with unmoved(), pytest.raises(StateConflict):
        books.pay(spending, to, 1)
    found = {
        (row.kind, row.is_allowed, row.rule, row.policy_version, row.to, row.amount_micros)
        for row in Decision.objects.filter(session=spending)
    }
    assert found == {
        ("payment", True, "", 1, books.LINT, 500_000),
        ("hold", True, "", 1, books.LINT, 400_000),
        ("payment", False, "max_per_tx", 1, books.LINT, 500_001),
        ("payment", False, "denied_recipients", 1, "agent://bad.acme.dev", 1),
        ("payment", False, "insufficient_funds", 1, books.LINT, 200_000),
        ("payment", False, "session_paused", 1, books.LINT, 1),
    }
    assert {row.pk for row in Decision.objects.filter(is_allowed=True)} == {paid.pk, held.pk}
    facts = Denial.objects.get(rule="insufficient_funds").facts
    assert (facts["budget"], facts["spent"], facts["remaining"]) == (1_000_000, 900_000, 100_000)


def test_a_denial_cannot_be_changed() -> None:
    spending = books.session(policy=Policy(max_per_tx=1))
    with unmoved(), pytest.raises(PolicyDenied):
        books.pay(spending, books.party(), 2)
    record = pytest.raises(IntegrityError, match="what was decided stays on record")
    with unmoved(), record, transaction.atomic():
        Denial.objects.all().update(rule="")


def test_a_dry_session_says_where_its_budget_went() -> None:
    spending, to = books.session(micros=USDC), books.party()
    books.pay(spending, to, 900_000)
    with unmoved(), pytest.raises(InsufficientFunds) as caught:
        books.pay(spending, to, 100_001)
    assert caught.value.facts["checkpoint"] == {"budget": "1.00", "spent": "0.90", "remaining": "0.10"}


def test_decisions_of_all_kinds_are_in_one_order() -> None:
    spending, to = books.session(policy=Policy(max_per_tx=USDC)), books.party()
    made = []
    for _ in range(6):
        made.append(books.hold(spending, to, 2).pk)
        made.append(books.pay(spending, to, 1).pk)
        with unmoved(), pytest.raises(PolicyDenied):
            books.pay(spending, to, USDC + 1)
        made.append(Denial.objects.latest("id").pk)
    assert list(Decision.objects.order_by("id").values_list("pk", flat=True)) == made


@pytest.mark.parametrize("whose", ["payer_id", "session_id"])
def test_a_page_of_decisions_walks_along_indexes_and_sorts_nothing(whose: str) -> None:
    rows = Decision.objects.filter(policy_version__isnull=False, **{whose: books.pool().payer_id})
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")  # the tables are empty
    plan = rows.order_by("-id")[:21].explain()
    assert plan.count("Index Scan Backward") == 3
    assert "Merge Append" in plan


# --- freeze ---------------------------------------------------------------------------------------------------------


def test_a_frozen_account_spends_nothing_from_any_pool_until_it_is_unfrozen() -> None:
    pool, to = books.pool(), books.party()
    spending, other = books.session(pool), books.session()
    held = books.hold(spending, to, USDC)
    frozen = pools.freeze(payer_id=pool.payer_id, reason="a key has leaked", now=NOW)
    assert [each.pk for each in frozen] == [pool.pk]
    refusals = [
        lambda: books.pay(spending, to, 1),
        lambda: books.hold(spending, to, 1),
        lambda: books.session(pool, 1),
        lambda: sessions.top_up(session=spending, amount_micros=1, now=NOW),
        lambda: sessions.open_child(parent=spending, budget_micros=1, policy=Policy(), now=NOW),
        lambda: pools.open(payer_id=pool.payer_id, deposit_micros=USDC, now=NOW),
        lambda: pools.top_up(pool=pool, amount_micros=1, now=NOW),
    ]
    for refusal in refusals:
        with unmoved(), pytest.raises(StateConflict) as caught:
            refusal()
        assert caught.value.facts == {"subject": "pool", "state": "frozen"}
    books.pay(other, to, 1)
    holds.give_back(hold=held, now=NOW)
    pools.unfreeze(payer_id=pool.payer_id)
    books.pay(spending, to, 1)
    told = list(Event.objects.filter(payer_id=pool.payer_id, type__startswith="pool.").values_list("type", flat=True))
    assert told[-2:] == ["pool.frozen", "pool.unfrozen"]


def test_a_pool_that_the_chain_opens_after_all_is_as_frozen_as_the_others() -> None:
    pool = books.pool()
    late = pools.open(payer_id=pool.payer_id, deposit_micros=USDC, now=NOW)
    books.bind(late)
    pools.opening_failed(late, reason="x")
    pools.freeze(payer_id=pool.payer_id, reason="x", now=NOW)
    late.refresh_from_db()
    funding.opened(late, deposit_micros=USDC, ref="0x1:0", at=NOW)
    with unmoved(), pytest.raises(StateConflict) as caught:
        books.session(late, USDC)
    assert caught.value.facts == {"subject": "pool", "state": "frozen"}
    pools.unfreeze(payer_id=pool.payer_id)
    assert books.session(late, USDC).status == "open"
