"""`escrow.holds`: placed under the policy; captured, released or expired once."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from django.db import connection

from escrow import budgets, holds, invoices, ledger, payments, pools, refunds, sessions
from escrow.budgets import SessionBalances
from escrow.errors import InsufficientFunds, InvalidInput, PolicyDenied, StateConflict
from escrow.models import Event, Hold, Invoice, Party, Payment, Session
from escrow.policy import Policy
from tests.escrow import books
from tests.escrow.books import LINT, NOW, USDC, balance, unmoved
from tests.escrow.test_settlement import settle

pytestmark = pytest.mark.django_db


def test_a_hold_takes_money_from_the_session() -> None:
    spending, to = books.session(micros=25 * USDC), books.party()
    held = books.hold(spending, to, 10 * USDC)
    assert (held.status, held.amount_micros) == ("held", 10 * USDC)
    assert budgets.of(spending) == SessionBalances(25 * USDC, 0, 10 * USDC, 15 * USDC)


@pytest.mark.parametrize(
    ("limits", "rule"),
    [
        (Policy(max_per_tx=USDC - 1), "max_per_tx"),
        (Policy(max_total=USDC - 1), "max_total"),
        (Policy(allowed_recipients=("other.acme.dev",)), "allowed_recipients"),
        (Policy(denied_recipients=("*.acme.dev",)), "denied_recipients"),
        (Policy(expires_at=NOW), "expires_at"),
    ],
)
def test_a_hold_is_under_the_same_policy_as_a_payment(limits: Policy, rule: str) -> None:
    spending, to = books.session(policy=limits), books.party()
    with unmoved(), pytest.raises(PolicyDenied) as caught:
        books.hold(spending, to, USDC)
    assert caught.value.facts["rule"] == rule
    assert not Hold.objects.exists()


def test_a_hold_over_what_is_left_is_refused() -> None:
    spending, to = books.session(micros=10), books.party()
    with unmoved(), pytest.raises(InsufficientFunds):
        books.hold(spending, to, 11)


@pytest.mark.parametrize("ended", ["session", "pool"])
def test_a_hold_needs_an_open_session_in_an_open_pool(ended: str) -> None:
    spending = books.session()
    if ended == "session":
        sessions.close(session=spending, now=NOW)
    else:
        pools.close(pool=spending.pool, now=NOW)
    with unmoved(), pytest.raises(StateConflict):
        books.hold(spending, books.party(), 1)


# --- capture ------------------------------------------------------------------------------------------------------


def for_a_call(spending: Session, to: Party, micros: int = 10 * USDC, seconds: int = 900) -> Hold:
    return books.hold(spending, to, micros, expires_in=seconds)


def capture(held: Hold, micros: int | None = None, now: datetime = NOW) -> Payment:
    return holds.capture(hold=held, amount_micros=micros, now=now)


def test_a_captured_hold_is_a_payment_like_any_other() -> None:
    spending, to = books.session(micros=25 * USDC), books.party()
    held = holds.place(
        session=spending, amount_micros=10_000, party=to, to=LINT, metadata={"file": "a.py"}, expires_in=900, now=NOW
    )
    payment = capture(held)
    held.refresh_from_db()
    assert (held.status, held.payment_id, balance(held.account)) == ("captured", payment.pk, 0)
    assert (payment.kind, payment.status, payment.amount_micros, payment.metadata, payment.to) == (
        "call", "payable", 10_000, {"file": "a.py"}, LINT,
    )  # fmt: skip
    assert payment.remaining_micros == balance(spending.account) == 25 * USDC - 10_000
    assert payments.redeem(payment=payment, party_id=to.pk, request_hash="a" * 64, now=NOW).redeemed_at == NOW
    refunds.pay(payment=payment, reason="It broke after all.", amount_micros=4_000, now=NOW)
    [record] = settle(spending.pool).records.all()
    assert record.amount_micros == 6_000


def test_a_part_is_captured_and_the_rest_goes_back() -> None:
    spending, to = books.session(micros=25 * USDC), books.party()
    held = for_a_call(spending, to, 10 * USDC)
    payment = capture(held, 3 * USDC)
    assert (payment.amount_micros, payment.remaining_micros) == (3 * USDC, 22 * USDC)
    assert (balance(held.account), balance(spending.account)) == (0, 22 * USDC)
    assert balance(ledger.payable(spending.pool, to)) == 3 * USDC
    told = Event.objects.get(type="hold.captured")
    assert (told.payload["amount"], told.payload["released"]) == ("3.00", "7.00")
    assert told.payload["payment_id"] == str(payment.pk)


def test_a_captured_hold_is_captured_once_and_names_its_payment() -> None:
    held = for_a_call(books.session(), books.party())
    payment = capture(held, USDC)
    for micros in (USDC, None, 2 * USDC):
        with unmoved(), pytest.raises(StateConflict, match=str(payment.pk)) as caught:
            capture(held, micros)
        assert caught.value.facts == {"subject": "hold", "state": "captured"}
    with unmoved(), pytest.raises(StateConflict):
        holds.release(hold=held, now=NOW)


@pytest.mark.parametrize("micros", [0, -1, 11])
def test_no_more_than_is_held_is_captured(micros: int) -> None:
    held = for_a_call(books.session(), books.party(), 10)
    with unmoved(), pytest.raises(InvalidInput) as caught:
        capture(held, micros)
    assert caught.value.facts["would_pass"] == '"0.00001" or less'
    held.refresh_from_db()
    assert held.status == "held"


def test_a_released_hold_is_not_captured() -> None:
    held = for_a_call(books.session(), books.party())
    holds.release(hold=held, now=NOW)
    with unmoved(), pytest.raises(StateConflict) as caught:
        capture(held)
    assert caught.value.facts == {"subject": "hold", "state": "released"}


def test_the_policy_is_not_asked_again_at_the_capture() -> None:
    spending, to = books.session(micros=10, policy=Policy(max_total=10, max_tx_per_minute=1)), books.party()
    held = for_a_call(spending, to, 10)
    Session.objects.filter(pk=spending.pk).update(policy=Policy(denied_recipients=("*.acme.dev",)).to_document())
    assert capture(held).amount_micros == 10


def test_a_hold_of_a_closed_session_is_a_promise_that_is_kept() -> None:
    of = books.pool(100 * USDC)
    spending, to = books.session(of, 25 * USDC), books.party()
    held = for_a_call(spending, to, 10 * USDC)
    sessions.close(session=spending, now=NOW)
    payment = capture(held, 4 * USDC)
    assert (payment.status, payment.remaining_micros) == ("payable", 0)
    assert (balance(spending.account), balance(ledger.free(of))) == (0, 96 * USDC)
    assert budgets.of(spending).spent == 4 * USDC


def test_a_pool_on_its_way_out_still_pays_what_was_set_aside_and_one_past_its_end_does_not() -> None:
    of = books.pool()
    held, late = (for_a_call(books.session(of), books.party(), 10) for _ in range(2))
    pools.close(pool=of, now=NOW)
    assert capture(held).amount_micros == 10
    Hold.objects.filter(pk=late.pk).update(expires_at=of.expires_at + timedelta(hours=1))
    with unmoved(), pytest.raises(StateConflict) as expired:
        capture(late, now=of.expires_at)
    assert expired.value.facts == {"subject": "pool", "state": "expired"}
    of.refresh_from_db()
    pools.reclaimed(of, amount_micros=-balance(ledger.world(of)), ref="0x1:0", at=NOW)
    with unmoved(), pytest.raises(StateConflict) as closed:
        capture(late)
    assert closed.value.facts == {"subject": "pool", "state": "closed"}


# --- what expires -------------------------------------------------------------------------------------------------


def test_a_hold_is_captured_until_it_expires_and_not_a_microsecond_longer() -> None:
    spending, to = books.session(micros=25 * USDC), books.party()
    in_time, late = for_a_call(spending, to, 10), for_a_call(spending, to, 20)
    end = NOW + timedelta(seconds=900)
    assert in_time.expires_at == late.expires_at == end
    capture(in_time, now=end - timedelta(microseconds=1))
    with unmoved(), pytest.raises(StateConflict) as caught:
        capture(late, now=end)  # the sweep has not come yet
    assert caught.value.facts == {"subject": "hold", "state": "expired"}


def test_what_has_expired_is_released_by_itself() -> None:
    spending, to = books.session(micros=25 * USDC), books.party()
    short, longer, of_task = (
        for_a_call(spending, to, 10),
        for_a_call(spending, to, 20, 901),
        books.hold(spending, to, 40),
    )
    end = NOW + timedelta(seconds=900)
    with unmoved():
        assert holds.release_expired(now=end - timedelta(microseconds=1), limit=9) == 0
    assert holds.release_expired(now=end, limit=9) == 1
    assert holds.release_expired(now=end, limit=9) == 0
    assert [Hold.objects.get(pk=held.pk).status for held in (short, longer, of_task)] == ["released", "held", "held"]
    assert balance(spending.account) == 25 * USDC - 60
    assert holds.release_expired(now=NOW + timedelta(days=99), limit=9) == 1
    assert Hold.objects.get(pk=of_task.pk).status == "held"


def test_a_sweep_takes_no_more_than_its_limit_the_oldest_first() -> None:
    spending, to = books.session(), books.party()
    for seconds in (30, 10, 20):
        for_a_call(spending, to, seconds, seconds)
    assert holds.release_expired(now=NOW + timedelta(hours=1), limit=2) == 2
    assert [held.amount_micros for held in Hold.objects.filter(status="held").select_related("account")] == [30]


def test_a_hold_lasts_no_longer_than_half_of_what_its_pool_has_left() -> None:
    of = books.pool(expires_in=timedelta(hours=2))
    held = for_a_call(books.session(of, USDC), books.party(), 10, 7 * 24 * 3600)
    assert held.expires_at == NOW + timedelta(hours=1)


@pytest.mark.parametrize("seconds", [0, -1, 7 * 24 * 3600 + 1])
def test_a_hold_lasts_a_second_to_seven_days(seconds: int) -> None:
    spending, to = books.session(), books.party()
    with unmoved(), pytest.raises(InvalidInput) as caught:
        for_a_call(spending, to, 10, seconds)
    assert caught.value.facts["would_pass"] == "604800 or less"


# --- release ------------------------------------------------------------------------------------------------------


def test_a_release_gives_all_back_once() -> None:
    spending, to = books.session(micros=25 * USDC), books.party()
    held = for_a_call(spending, to, 10 * USDC)
    holds.release(hold=held, now=NOW)
    assert balance(spending.account) == 25 * USDC
    with unmoved():
        assert holds.release(hold=held, now=NOW).status == "released"


def test_a_release_after_the_session_goes_to_the_pool() -> None:
    of = books.pool(100 * USDC)
    spending = books.session(of, 25 * USDC)
    held = for_a_call(spending, books.party(), 10 * USDC)
    sessions.close(session=spending, now=NOW)
    holds.release(hold=held, now=NOW)
    assert balance(ledger.free(of)) == 100 * USDC
    assert Session.objects.get().status == "closed"


# --- a task's or an invoice's -------------------------------------------------------------------------------------


def test_what_belongs_to_a_task_is_neither_captured_nor_released_by_hand() -> None:
    held = books.hold(books.session(), books.party())
    for verb in (holds.capture, holds.release):
        with unmoved(), pytest.raises(StateConflict, match="task or an invoice") as caught:
            verb(hold=held, now=NOW)
        assert caught.value.facts == {"subject": "hold", "state": "held"}


def test_what_is_set_aside_for_a_call_takes_no_invoice() -> None:
    held = for_a_call(books.session(), books.party())
    with unmoved(), pytest.raises(StateConflict, match="its buyer's to capture"):
        books.invoice(held, USDC)
    assert not Invoice.objects.exists()


def test_a_claimed_part_is_a_debt_and_the_rest_goes_back() -> None:
    spending, to = books.session(micros=25 * USDC), books.party()
    held = books.hold(spending, to, 10 * USDC)
    payment = holds.claim(
        hold=held, amount_micros=3 * USDC, kind=Payment.Kind.INVOICE, idempotency_key="invoice of a test"
    )
    assert (payment.amount_micros, payment.remaining_micros) == (3 * USDC, 22 * USDC)
    assert (balance(held.account), balance(spending.account)) == (0, 22 * USDC)
    assert balance(ledger.payable(spending.pool, to)) == 3 * USDC


def test_a_task_s_hold_ends_once() -> None:
    claimed = books.hold(books.session(), books.party(), 10)
    invoice = invoices.approve(invoice=books.invoice(claimed, 10), now=NOW)
    claimed.refresh_from_db()
    assert (claimed.status, claimed.payment_id) == ("captured", invoice.payment_id)
    with unmoved(), pytest.raises(StateConflict):
        holds.give_back(hold=claimed, now=NOW)
    released = books.hold(books.session(), books.party(), 10)
    holds.give_back(hold=released, now=NOW)
    with unmoved(), pytest.raises((StateConflict, InvalidInput)):
        holds.claim(hold=released, amount_micros=1, kind=Payment.Kind.INVOICE, idempotency_key="x")


# --- at once ------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_captures_releases_and_the_sweep_at_once_end_a_hold_once() -> None:
    spending, to = books.session(micros=1_000), books.party()
    for _ in range(4):
        held = for_a_call(spending, to, 100)
        before = balance(spending.account)
        start = threading.Barrier(12)

        def attempt(number: int, held: Hold = held, start: threading.Barrier = start) -> str:
            start.wait(30)
            try:
                match number % 3:
                    case 0:
                        return f"captured {capture(held, 60).amount_micros}"
                    case 1:
                        return str(holds.release(hold=held, now=NOW).status)
                    case _:
                        return f"swept {holds.release_expired(now=NOW + timedelta(hours=1), limit=9)}"
            except StateConflict:
                return "refused"
            finally:
                connection.close()

        with ThreadPoolExecutor(12) as threads:
            answers = Counter(threads.map(attempt, range(12)))
        held.refresh_from_db()
        if held.status == "captured":
            assert (answers["captured 60"], answers["swept 1"], answers["released"]) == (1, 0, 0)
            assert balance(spending.account) == before + 40
        else:
            assert answers["captured 60"] == 0
            assert balance(spending.account) == before + 100
        assert balance(held.account) == 0
        books.check_conservation()


# --- what stops a capture -----------------------------------------------------------------------------------------


def test_a_paused_session_captures_nothing_until_it_is_resumed() -> None:
    spending, to = books.session(), books.party()
    held, other = for_a_call(spending, to, 10), for_a_call(spending, to, 20)
    sessions.pause(session=spending, now=NOW, reason="look first")
    with unmoved(), pytest.raises(StateConflict) as caught:
        capture(held)
    assert caught.value.facts == {"subject": "session", "state": "paused"}
    assert holds.release(hold=other, now=NOW).status == "released"  # what comes back comes back
    sessions.resume(session=spending, now=NOW)
    assert capture(held).amount_micros == 10


def test_a_frozen_pool_captures_nothing_until_it_is_free_again() -> None:
    spending = books.session()
    held = for_a_call(spending, books.party(), 10)
    pools.freeze(payer_id=spending.pool.payer_id, reason="a key was lost", now=NOW)
    with unmoved(), pytest.raises(StateConflict) as caught:
        capture(held)
    assert caught.value.facts == {"subject": "pool", "state": "frozen"}
    with unmoved():
        assert holds.release_expired(now=NOW, limit=9) == 0
    pools.unfreeze(payer_id=spending.pool.payer_id)
    assert capture(held).amount_micros == 10


def test_a_hold_of_a_closed_child_gives_its_rest_to_the_session_above_it() -> None:
    above = books.session(micros=25 * USDC)
    child = sessions.open_child(parent=above, budget_micros=10 * USDC, policy=Policy(), now=NOW)
    held = for_a_call(child, books.party(), 4 * USDC)
    sessions.close(session=child, now=NOW)
    capture(held, USDC)
    assert (balance(child.account), balance(above.account)) == (0, 24 * USDC)


def test_a_captured_payment_is_for_what_the_hold_was_for() -> None:
    spending, to = books.session(policy=Policy(allowed_capabilities=("code.lint",))), books.party()
    place = {"session": spending, "party": to, "to": LINT, "amount_micros": 10, "expires_in": 900, "now": NOW}
    with unmoved(), pytest.raises(PolicyDenied) as caught:
        holds.place(**place)
    assert caught.value.facts["rule"] == "allowed_capabilities"
    held = holds.place(**place, capability="code.lint")
    payment = capture(held)
    assert (held.capability, payment.capability) == ("code.lint", "code.lint")
    # The policy decided on the hold; the payment that follows from it is no decision of its own.
    assert (held.policy_version, payment.policy_version) == (1, None)
