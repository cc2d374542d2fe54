"""Sessions inside sessions: a budget of a budget, under at most the same policy, and the way back."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from escrow import budgets, families, holds, ledger, pools, refunds, sessions
from escrow.budgets import SessionBalances
from escrow.errors import InsufficientFunds, InvalidInput, InvalidPolicy, PolicyDenied, StateConflict
from escrow.families import MAX_DEPTH
from escrow.models import Event, Payment, Session
from escrow.policy import Policy
from tests.escrow import books
from tests.escrow.books import NOW, USDC, balance, unmoved, wait_for_a_lock

pytestmark = pytest.mark.django_db


def child(of: Session, micros: int = 5 * USDC, policy: Policy = books.FREE) -> Session:
    """Open a session inside another."""
    return sessions.open_child(parent=of, budget_micros=micros, policy=policy, now=NOW)


def test_a_childs_budget_is_its_parents_money() -> None:
    parent = books.session(micros=25 * USDC)
    inside = child(parent, 5 * USDC)
    assert (inside.parent_id, inside.pool_id) == (parent.pk, parent.pool_id)
    assert (balance(parent.account), balance(inside.account)) == (20 * USDC, 5 * USDC)
    books.pay(inside, books.party(), 8_000)
    assert budgets.of(parent) == SessionBalances(25 * USDC, 0, 0, 20 * USDC, delegated=5 * USDC)
    assert budgets.of(inside) == SessionBalances(5 * USDC, 8_000, 0, 5 * USDC - 8_000)


def test_a_child_is_given_no_more_than_its_parent_has() -> None:
    parent = books.session(micros=5 * USDC)
    with unmoved(), pytest.raises(InsufficientFunds) as caught:
        child(parent, 5 * USDC + 1)
    assert caught.value.facts["remaining"] == "5.00"


def test_what_a_closed_child_has_left_goes_back_to_its_parent() -> None:
    parent = books.session(micros=25 * USDC)
    inside, to = child(parent, 5 * USDC), books.party()
    books.pay(inside, to, 1 * USDC)
    held = books.hold(inside, to, 2 * USDC)
    sessions.close(session=inside, now=NOW)
    assert balance(parent.account) == 22 * USDC
    assert budgets.of(parent) == SessionBalances(25 * USDC, 0, 0, 22 * USDC, delegated=3 * USDC)
    holds.give_back(hold=held, now=NOW)
    assert balance(parent.account) == 24 * USDC
    assert budgets.of(parent).delegated == 1 * USDC


def test_a_refund_to_a_closed_child_goes_to_the_nearest_session_above_it_that_is_open() -> None:
    pool = books.pool(100 * USDC)
    top = books.session(pool, 25 * USDC)
    middle = child(top, 10 * USDC)
    low = child(middle, 5 * USDC)
    to = books.party()
    paid = [books.pay(low, to, USDC) for _ in range(3)]
    sessions.close(session=low, now=NOW)
    refunds.pay(payment=paid[0], reason="x", now=NOW)
    assert balance(middle.account) == 5 * USDC + 2 * USDC + USDC
    sessions.close(session=middle, now=NOW)
    refunds.pay(payment=paid[1], reason="x", now=NOW)
    assert balance(top.account) == 15 * USDC + 8 * USDC + USDC
    sessions.close(session=top, now=NOW)
    before = balance(ledger.free(pool))
    refunds.pay(payment=paid[2], reason="x", now=NOW)
    assert balance(ledger.free(pool)) == before + USDC == 100 * USDC


def test_reading_a_session_asks_no_more_the_more_there_are_inside_it(django_assert_max_num_queries: Any) -> None:
    parent, to = books.session(micros=25 * USDC), books.party()
    for number in range(6):
        inside = child(parent, 2 * USDC)
        low = child(inside, USDC)
        books.pay(low, to, 1_000)
        books.hold(inside, to, 20_000)
        if number % 2:
            sessions.close(session=inside, now=NOW)
    with django_assert_max_num_queries(10):
        read = budgets.of(parent)
    assert read == SessionBalances(25 * USDC, 0, 0, 25 * USDC - 6 * USDC - 3 * 21_000, delegated=6 * USDC + 3 * 21_000)


def test_closing_a_parent_closes_all_inside_it_first() -> None:
    pool = books.pool(100 * USDC)
    top = books.session(pool, 25 * USDC)
    low = child(child(top, 10 * USDC), 4 * USDC)
    sessions.pause(session=low, now=NOW)
    sessions.close(session=top, now=NOW)
    assert set(Session.objects.values_list("status", flat=True)) == {"closed"}
    assert balance(ledger.free(pool)) == 100 * USDC
    assert budgets.of(top) == SessionBalances(25 * USDC, 0, 0, 0)


def test_a_closing_pool_takes_everything_back_from_sessions_inside_sessions() -> None:
    pool = books.pool(100 * USDC)
    child(child(books.session(pool, 25 * USDC)), USDC)
    pools.close(pool=pool, now=NOW)
    assert balance(ledger.free(pool)) == 100 * USDC


@pytest.mark.promise("S5", "S15")
def test_a_childs_policy_is_at_most_its_parents() -> None:
    parent = books.session(policy=Policy(max_per_tx=500_000, allowed_recipients=("*.acme.dev",)))
    inside = child(parent, policy=Policy(max_per_tx=100_000))
    assert inside.policy == {"max_per_tx": "0.10", "allowed_recipients": ["*.acme.dev"]}
    with unmoved(), pytest.raises(InvalidPolicy) as caught:
        child(parent, policy=Policy(max_per_tx=500_001))
    assert caught.value.facts["field"] == "policy.max_per_tx"
    with unmoved(), pytest.raises(InvalidPolicy) as caught:
        child(parent, policy=Policy(allowed_recipients=("lint.example.dev",)))
    assert caught.value.facts["field"] == "policy.allowed_recipients"


def test_a_child_ends_no_later_than_its_parent() -> None:
    end = NOW + timedelta(hours=1)
    parent = sessions.open(pool=books.pool(), budget_micros=USDC, policy=Policy(), now=NOW, expires_at=end)
    asked = sessions.open_child(
        parent=parent, budget_micros=1, policy=Policy(), now=NOW, expires_at=end + timedelta(days=1)
    )
    assert asked.expires_at == end
    assert child(parent, 1).expires_at == end


def test_children_have_shares_of_their_parents_limits_over_time() -> None:
    now = timezone.now()
    parent, to = books.session(policy=Policy(max_per_hour=3 * USDC, max_tx_per_minute=10)), books.party()
    inside = sessions.open_child(
        parent=parent, budget_micros=5 * USDC, policy=Policy(max_per_hour=2 * USDC, max_tx_per_minute=4), now=now
    )
    now = timezone.now()  # later than what the database's clock said of the opening
    with unmoved(), pytest.raises(PolicyDenied) as caught:
        books.pay(parent, to, USDC + 1, now=now)
    assert caught.value.facts == {
        "rule": "max_per_hour", "limit": "3.00", "spent": "2.00", "would_allow": "1.00", "policy_version": 1,
    }  # fmt: skip
    books.pay(parent, to, USDC, now=now)
    books.pay(inside, to, 2 * USDC, now=now)
    for spender in (parent, inside):
        with unmoved(), pytest.raises(PolicyDenied):
            books.pay(spender, to, 1, now=now)
    with unmoved(), pytest.raises(PolicyDenied) as caught:
        sessions.open_child(parent=parent, budget_micros=1, policy=Policy(), now=now)
    assert caught.value.facts["rule"] == "max_per_hour"


def test_money_that_was_handed_on_earlier_makes_no_room_later() -> None:
    now = timezone.now()
    later = now + timedelta(hours=2)
    parent, to = books.session(policy=Policy(max_per_hour=3 * USDC)), books.party()
    saved = [
        sessions.open_child(parent=parent, budget_micros=3 * USDC, policy=Policy(max_per_hour=USDC), now=now)
        for _ in range(3)
    ]
    for child_session in saved:
        books.pay(child_session, to, USDC, now=later)
    for spender in (parent, *saved):
        with unmoved(), pytest.raises(PolicyDenied):
            books.pay(spender, to, 1, now=later)


def test_a_share_that_is_not_named_is_the_budget_or_what_is_left() -> None:
    now = timezone.now()
    parent = books.session(policy=Policy(max_per_hour=3 * USDC, max_per_day=30 * USDC, max_tx_per_minute=10))
    first, second = (
        sessions.open_child(parent=parent, budget_micros=2 * USDC, policy=Policy(), now=now) for _ in range(2)
    )
    assert first.policy == {"max_per_hour": "2.00", "max_per_day": "2.00", "max_tx_per_minute": 5}
    assert second.policy == {"max_per_hour": "1.00", "max_per_day": "2.00", "max_tx_per_minute": 2}


def test_a_share_comes_back_when_its_span_is_over() -> None:
    now = timezone.now()
    parent, to = books.session(policy=Policy(max_per_hour=3 * USDC)), books.party()
    inside = sessions.open_child(parent=parent, budget_micros=3 * USDC, policy=Policy(), now=now)
    sessions.close(session=inside, now=now)
    almost = now + timedelta(hours=1) - timedelta(microseconds=1)
    with unmoved(), pytest.raises(PolicyDenied):
        books.pay(parent, to, 1, now=almost)
    books.pay(parent, to, 3 * USDC, now=now + timedelta(hours=1))


def test_the_budgets_of_children_count_against_the_total() -> None:
    parent, to = books.session(policy=Policy(max_total=3 * USDC)), books.party()
    inside = child(parent, 2 * USDC)
    with unmoved(), pytest.raises(PolicyDenied) as caught:
        child(parent, USDC + 1)
    assert caught.value.facts == {"rule": "max_total", "limit": "3.00", "spent": "2.00", "would_allow": "1.00"}
    with unmoved(), pytest.raises(PolicyDenied):
        books.pay(parent, to, USDC + 1)
    sessions.top_up(session=inside, amount_micros=USDC, now=NOW)
    for refused in (
        lambda: books.pay(parent, to, 1),
        lambda: sessions.top_up(session=inside, amount_micros=1, now=NOW),
    ):
        with unmoved(), pytest.raises(PolicyDenied):
            refused()
    sessions.close(session=inside, now=NOW)
    books.pay(parent, to, 3 * USDC)


def test_a_change_of_policy_keeps_shares_and_gives_no_more_than_is_left() -> None:
    now = timezone.now()
    parent = books.session(policy=Policy(max_per_hour=3 * USDC))
    inside = sessions.open_child(parent=parent, budget_micros=USDC, policy=Policy(), now=now)
    kept = sessions.change_policy(session=inside, policy=Policy(max_per_tx=1), now=now)
    assert kept.policy == {"max_per_tx": "0.000001", "max_per_hour": "1.00"}
    with unmoved(), pytest.raises(PolicyDenied):
        sessions.change_policy(session=inside, policy=Policy(max_per_hour=3 * USDC + 1), now=now)
    other = sessions.open_child(parent=parent, budget_micros=USDC, policy=Policy(), now=now)
    with pytest.raises(PolicyDenied):
        sessions.change_policy(session=inside, policy=Policy(max_per_hour=2 * USDC + 1), now=now)
    with pytest.raises(InvalidPolicy) as caught:
        sessions.change_policy(session=parent, policy=Policy(max_per_hour=2 * USDC - 1), now=now)
    assert caught.value.facts["field"] == "policy.max_per_hour"
    assert [row.policies.count() for row in (parent, inside, other)] == [1, 2, 1]
    sessions.change_policy(session=parent, policy=Policy(max_per_hour=2 * USDC), now=now)


def test_a_top_up_of_a_child_is_its_parents_money() -> None:
    pool = books.pool(100 * USDC)
    parent = books.session(pool, 10 * USDC)
    inside = child(parent, USDC)
    sessions.top_up(session=inside, amount_micros=2 * USDC, now=NOW)
    assert (balance(parent.account), balance(inside.account)) == (7 * USDC, 3 * USDC)
    with unmoved(), pytest.raises(InsufficientFunds, match="The session it is in has"):
        sessions.top_up(session=inside, amount_micros=7 * USDC + 1, now=NOW)


def test_no_session_is_deeper_than_the_limit() -> None:
    at = books.session()
    for _ in range(MAX_DEPTH - 1):
        at = child(at, USDC)
    with unmoved(), pytest.raises(InvalidInput):
        child(at, 1)


def test_no_more_sessions_are_open_inside_one_than_a_halt_can_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "MAX_OPEN", 2)
    top = books.session()
    inside = child(top)
    low = child(inside, USDC)
    for parent in (top, inside, low):
        with unmoved(), pytest.raises(StateConflict) as caught:
            child(parent, 1)
        assert caught.value.facts == {"subject": "session", "state": "full"}
    sessions.close(session=low, now=NOW)
    child(inside, 1)


def test_no_more_sessions_are_opened_and_closed_in_a_day_than_a_payment_can_look_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(families, "MAX_CLOSED_A_DAY", 2)
    parent = books.session()
    for _ in range(2):
        sessions.close(session=child(parent, USDC), now=NOW)
    with unmoved(), pytest.raises(StateConflict) as caught:
        child(parent, 1)
    assert caught.value.facts == {"subject": "session", "state": "full"}
    day = timedelta(days=1)
    sessions.open_child(parent=parent, budget_micros=1, policy=Policy(), now=NOW + day)


# --- pause, resume, a new policy ------------------------------------------------------------------------------------


def test_a_paused_session_and_those_inside_it_spend_nothing_until_resumed() -> None:
    parent, to = books.session(), books.party()
    inside = child(parent)
    held = books.hold(parent, to, USDC)
    sessions.pause(session=parent, now=NOW, reason="it pays the wrong agent")
    for spender in (parent, inside):
        with unmoved(), pytest.raises(StateConflict) as caught:
            books.pay(spender, to, 1)
        assert caught.value.facts == {"subject": "session", "state": "paused"}
        with unmoved(), pytest.raises(StateConflict):
            books.hold(spender, to, 1)
        with unmoved(), pytest.raises(StateConflict):
            child(spender, 1)
    holds.give_back(hold=held, now=NOW)
    with unmoved(), pytest.raises(StateConflict, match="resume that one"):
        sessions.resume(session=inside, now=NOW)
    sessions.top_up(session=parent, amount_micros=USDC, now=NOW)
    sessions.resume(session=parent, now=NOW)
    books.pay(parent, to, 1)
    books.pay(inside, to, 1)
    told = Counter(Event.objects.filter(type__startswith="session.").values_list("type", flat=True))
    assert (told["session.paused"], told["session.resumed"]) == (2, 2)


def test_pausing_and_resuming_twice_is_once() -> None:
    spending = books.session()
    assert {sessions.pause(session=spending, now=NOW).status for _ in range(2)} == {"paused"}
    assert {sessions.resume(session=spending, now=NOW).status for _ in range(2)} == {"open"}
    assert Event.objects.filter(type="session.paused").count() == 1
    sessions.close(session=spending, now=NOW)
    for verb in (sessions.pause, sessions.resume):
        with unmoved(), pytest.raises(StateConflict):
            verb(session=spending, now=NOW)


def test_a_new_policy_is_a_new_version_and_the_old_one_is_kept() -> None:
    spending, to = books.session(policy=Policy(max_per_tx=500_000)), books.party()
    first = books.pay(spending, to, 500_000)
    sessions.change_policy(session=spending, policy=Policy(max_per_tx=100_000), now=NOW)
    with unmoved(), pytest.raises(PolicyDenied) as caught:
        books.pay(spending, to, 100_001)
    assert caught.value.facts["policy_version"] == 2
    second = books.pay(spending, to, 100_000)
    assert (first.policy_version, second.policy_version) == (1, 2)
    kept = [(row.version, row.policy) for row in spending.policies.order_by("version")]
    assert kept == [(1, {"max_per_tx": "0.50"}), (2, {"max_per_tx": "0.10"})]


def test_a_kept_policy_cannot_be_changed() -> None:
    row = books.session().policies.get()
    row.policy = {"max_per_tx": "9.00"}
    with pytest.raises(IntegrityError, match="a change is another version"), transaction.atomic():
        row.save()


def test_a_narrower_policy_of_a_parent_holds_for_those_inside_it() -> None:
    parent, to = books.session(policy=Policy(allowed_recipients=("*.acme.dev",))), books.party()
    inside = child(parent, policy=Policy(max_per_tx=500_000))
    apart = child(parent, policy=Policy(allowed_recipients=("lint.acme.dev",)))
    sessions.change_policy(
        session=parent, policy=Policy(max_per_tx=100_000, allowed_recipients=("b.acme.dev",)), now=NOW
    )
    inside.refresh_from_db()
    apart.refresh_from_db()
    assert inside.policy == {"max_per_tx": "0.10", "allowed_recipients": ["b.acme.dev"]}
    assert inside.policy_version == 2
    assert apart.status == "paused"
    with unmoved(), pytest.raises(PolicyDenied):
        books.pay(inside, to, 1, agent="agent://lint.acme.dev")


def test_a_childs_new_policy_is_at_most_its_parents_too() -> None:
    inside = child(books.session(policy=Policy(max_per_tx=100_000)))
    with pytest.raises(InvalidPolicy):
        sessions.change_policy(session=inside, policy=Policy(max_per_tx=100_001), now=NOW)
    assert inside.policies.count() == 1


# --- checkpoints ----------------------------------------------------------------------------------------------------


def told_checkpoints() -> list[tuple[str, str]]:
    events = Event.objects.filter(type="session.checkpoint").order_by("pk")
    return [(event.payload["checkpoint"], event.payload["remaining"]) for event in events]


@pytest.mark.promise("S12")
def test_checkpoints_are_told_when_they_are_passed() -> None:
    spending, to = books.session(micros=10 * USDC), books.party()
    books.pay(spending, to, 4_999_999)
    assert told_checkpoints() == []
    books.pay(spending, to, 1)
    assert told_checkpoints() == [("0.5", "5.00")]
    books.hold(spending, to, 3_100_000)
    assert told_checkpoints()[1:] == [("0.8", "1.90")]
    books.pay(spending, to, 1_900_000)
    assert told_checkpoints()[2:] == [("0.95", "0.00")]


@pytest.mark.promise("S12")
def test_a_payment_past_several_checkpoints_tells_of_the_last() -> None:
    spending = books.session(micros=10 * USDC)
    books.pay(spending, books.party(), 9_600_000)
    assert told_checkpoints() == [("0.95", "0.40")]


def test_a_hold_tells_of_the_checkpoint_of_the_policy_that_it_was_placed_under() -> None:
    spending = books.session(micros=10 * USDC, policy=Policy(checkpoint_at=(1_000,)))
    sessions.change_policy(session=sessions.reread(spending.pk), policy=Policy(checkpoint_at=(2_000, 3_000)), now=NOW)
    books.hold(spending, books.party(), 3 * USDC)
    assert told_checkpoints() == [("0.3", "7.00")]


@pytest.mark.promise("S12")
def test_a_policy_names_its_own_checkpoints_and_a_top_up_moves_them() -> None:
    spending, to = books.session(micros=10 * USDC, policy=Policy(checkpoint_at=(2_500,))), books.party()
    books.pay(spending, to, 2_500_000)
    sessions.top_up(session=spending, amount_micros=10 * USDC, now=NOW)
    books.pay(spending, to, 2_499_999)
    assert told_checkpoints() == [("0.25", "7.50")]
    books.pay(spending, to, 1)
    assert told_checkpoints()[1:] == [("0.25", "15.00")]


# --- at once --------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_fifty_children_at_once_are_given_no_more_than_there_is() -> None:
    parent = books.session(micros=10 * USDC)
    gate = threading.Barrier(25)

    def ask(number: int) -> str:
        try:
            gate.wait()
            child(parent, 300_000 if number % 2 else 500_000)
        except (InsufficientFunds, StateConflict) as refusal:
            return refusal.code
        else:
            return "opened"
        finally:
            connection.close()

    with ThreadPoolExecutor(25) as pool:
        told = Counter(pool.map(ask, range(50)))
    given = sum(ledger.budget_of(each.account) for each in parent.children.select_related("account"))
    assert set(told) == {"opened", "insufficient_funds"}
    assert given + balance(parent.account) == 10 * USDC
    assert balance(parent.account) < 500_000


@pytest.mark.django_db(transaction=True)
def test_closing_a_parent_while_those_inside_it_pay_loses_nothing() -> None:
    pool = books.pool(100 * USDC)
    parent, to = books.session(pool, 20 * USDC), books.party()
    inside = [child(parent, 2 * USDC) for _ in range(5)]
    gate = threading.Barrier(11)

    def spend(number: int) -> int:
        try:
            gate.wait()
            for _ in range(10):
                books.pay(inside[number % 5], to, 1_000)
        except StateConflict:
            pass
        finally:
            connection.close()
        return number

    def end() -> None:
        try:
            gate.wait()
            sessions.close(session=parent, now=NOW)
        finally:
            connection.close()

    with ThreadPoolExecutor(11) as threads:
        ending = threads.submit(end)
        list(threads.map(spend, range(10)))
        ending.result()
    owed = balance(ledger.payable(pool, to))
    assert balance(ledger.free(pool)) + owed == 100 * USDC
    assert budgets.of(parent).remaining == 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("how", ["freeze", "pause"])
def test_after_a_freeze_has_answered_nothing_commits(how: str) -> None:
    pool = books.pool(100 * USDC)
    spending, to = books.session(pool, 50 * USDC), books.party()
    gate, halted = threading.Barrier(9), threading.Event()

    def spend(_: int) -> int:
        late = 0
        try:
            gate.wait()
            while True:
                was_halted = halted.is_set()
                books.pay(spending, to, 1_000)
                late += was_halted
        except StateConflict:
            return late
        finally:
            connection.close()

    def halt() -> int:
        try:
            gate.wait()
            while not Payment.objects.filter(session=spending).count() >= 20:
                pass
            if how == "freeze":
                pools.freeze(payer_id=pool.payer_id, reason="x", now=NOW)
            else:
                sessions.pause(session=spending, now=NOW)
            paid = Payment.objects.filter(session=spending).count()
            halted.set()
            return paid
        finally:
            connection.close()

    with ThreadPoolExecutor(9) as threads:
        halting = threads.submit(halt)
        assert sum(threads.map(spend, range(8))) == 0
        paid = halting.result()
    assert Payment.objects.filter(session=spending).count() == paid >= 20


def test_one_that_a_new_policy_leaves_nothing_cannot_be_resumed_past_it() -> None:
    acme, example = Policy(allowed_recipients=("*.acme.dev",)), Policy(allowed_recipients=("*.example.dev",))
    root = books.session(micros=25 * USDC)
    inside, to = child(root, 5 * USDC, acme), books.party()
    sessions.change_policy(session=root, policy=example, now=NOW)
    assert Session.objects.get(pk=inside.pk).status == "paused"
    with unmoved():
        with pytest.raises(StateConflict, match="allows nothing of its own"):
            sessions.resume(session=inside, now=NOW)
        sessions.pause(session=root, now=NOW)
        sessions.resume(session=root, now=NOW)
        with pytest.raises(StateConflict):
            books.pay(Session.objects.get(pk=inside.pk), to, 8_000)
    sessions.change_policy(session=root, policy=acme, now=NOW)
    sessions.resume(session=inside, now=NOW)
    books.pay(inside, to, 8_000)


def test_one_inside_of_one_that_a_new_policy_leaves_nothing_is_left_nothing_either() -> None:
    acme, example = Policy(allowed_recipients=("*.acme.dev",)), Policy(allowed_recipients=("*.example.dev",))
    root, to = books.session(micros=25 * USDC), books.party()
    inside = child(root, 5 * USDC, acme)
    innermost = child(inside, 2 * USDC)
    sessions.change_policy(session=root, policy=example, now=NOW)
    with unmoved():
        for _ in range(2):
            assert {each.status for each in Session.objects.filter(pk__in=[inside.pk, innermost.pk])} == {"paused"}
            with pytest.raises(StateConflict):
                books.pay(innermost, to, 8_000)
            sessions.pause(session=root, now=NOW)
            sessions.resume(session=root, now=NOW)
        with pytest.raises(StateConflict):
            sessions.resume(session=innermost, now=NOW)


def test_one_that_was_paused_while_the_policy_above_it_changed_is_resumed_under_what_both_allow() -> None:
    root, to = books.session(micros=25 * USDC), books.party()
    inside = child(root, 5 * USDC, Policy(max_per_tx=USDC))
    sessions.pause(session=inside, now=NOW)
    sessions.change_policy(session=root, policy=Policy(max_per_tx=1_000), now=NOW)
    sessions.resume(session=inside, now=NOW)
    with unmoved(), pytest.raises(PolicyDenied, match="over the limit"):
        books.pay(inside, to, 1_001)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("where", ["in the pool", "in a session"])
def test_a_freeze_holds_a_session_that_was_opened_while_it_waited(where: str) -> None:
    pool = books.pool(100 * USDC)
    outer, to = books.session(pool, 50 * USDC), books.party()
    frozen, seen = threading.Event(), threading.Event()

    def freeze() -> None:
        try:
            with transaction.atomic():
                pools.freeze(payer_id=pool.payer_id, reason="x", now=NOW)
                frozen.set()
                seen.wait(20)
        finally:
            connection.close()

    def spend(late: Session) -> str:
        try:
            return str(books.pay(late, to, 1_000).status)
        except StateConflict as refusal:
            return str(refusal.facts["state"])
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as threads:
        with transaction.atomic():
            late = books.session(pool, USDC) if where == "in the pool" else child(outer, USDC)
            freezing = threads.submit(freeze)
            wait_for_a_lock(1)
        frozen.wait(20)
        spending = threads.submit(spend, late)
        wait_for_a_lock(1, unless=spending.done)
        seen.set()
        freezing.result()
        assert spending.result() == "frozen"


@pytest.mark.parametrize("rule", ["max_per_hour", "max_per_day", "max_tx_per_minute"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_limit_over_time_that_comes_later_is_shared_at_every_depth(rule: str, depth: int) -> None:
    root = books.session(micros=25 * USDC)
    over = root
    for level in range(1, depth):
        over = child(over, (25 - level) * USDC)
    inside, to = [child(over, 5 * USDC) for _ in range(3)], books.party()
    limit = 1 if rule == "max_tx_per_minute" else USDC
    with unmoved(), pytest.raises(InvalidPolicy, match=rule):
        sessions.change_policy(session=root, policy=Policy(**{rule: limit}), now=NOW)  # type: ignore[arg-type]
    assert Session.objects.filter(policy__has_key=rule).count() == 0
    for each in inside[1:]:
        sessions.close(session=each, now=NOW)
    sessions.change_policy(session=root, policy=Policy(**{rule: limit}), now=NOW)  # type: ignore[arg-type]
    books.pay(inside[0], to, USDC)
    with unmoved(), pytest.raises(PolicyDenied):
        books.pay(inside[0], to, USDC)
