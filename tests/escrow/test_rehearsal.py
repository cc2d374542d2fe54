"""`escrow.rehearsal`: what would be answered is what then is answered, and asking leaves nothing behind."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from django.apps import apps
from django.db import connection, transaction
from django.db.utils import OperationalError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from escrow import authorisation, holds, payments, pools, rehearsal, sessions
from escrow.errors import EscrowError, InvalidInput, InvalidPolicy, NotFound, PolicyDenied
from escrow.models import Account, Approval, Denial, Party, Session
from escrow.policy import Policy
from tests.escrow import books, drawn
from tests.escrow.books import LINT, NOW, USDC

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


def rows() -> dict[str, int]:
    """Return how many rows each table has."""
    tables = [model for model in apps.get_models() if model._meta.managed]
    return {model._meta.db_table: model._base_manager.count() for model in tables}


@contextmanager
def untouched() -> Iterator[None]:
    """Check that no row comes or goes inside, that no money moves, and that the sessions stay as they are."""
    before, kept = rows(), list(Session.objects.order_by("pk").values())
    with books.unmoved():
        yield
    assert rows() == before
    assert list(Session.objects.order_by("pk").values()) == kept


def asked(of: Session, to: Party, micros: int, **more: object) -> rehearsal.Answer:
    with untouched():
        return rehearsal.check(
            session=of,
            party_id=to.pk,
            to=str(more.pop("agent", LINT)),
            amount_micros=micros,
            now=more.pop("now", NOW),
            **more,
        )  # type: ignore[arg-type]


def facts(refusal: EscrowError | None) -> tuple[object, ...] | None:
    """Return what a refusal says; the id of an approval is another one each time."""
    if refusal is None:
        return None
    said = {name: fact for name, fact in refusal.facts.items() if name not in ("approval_id", "policy_version")}
    return type(refusal), refusal.code, refusal.detail, refusal.retryable, said


def sent(
    by: Session, to: Party, micros: int, agent: str, capability: str | None, now: datetime
) -> tuple[EscrowError | None, int | None, object]:
    """Really pay; return the refusal or what is left, and under which version of the policy."""
    before = books.money()
    try:
        payment = payments.send(
            session_id=by.pk, party_id=to.pk, to=agent, amount_micros=micros, metadata={}, idempotency_key=uuid4().hex,
            request_hash=b"\1" * 32, capability=capability or "", now=now,
        ).payment  # fmt: skip
    except EscrowError as refusal:
        assert books.money() == before
        return refusal, None, refusal.facts.get("policy_version")
    return None, payment.remaining_micros, payment.policy_version


@given(
    policy=drawn.policies(most=60),
    orders=st.lists(
        st.tuples(drawn.agents, st.integers(1, 40), st.none() | drawn.capabilities, st.integers(0, 90)),
        min_size=1,
        max_size=6,
    ),
    budget=st.integers(1, 120),
    is_proposed=st.booleans(),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_would_be_answered_is_what_then_is_answered(
    policy: Policy, orders: list[tuple[str, int, str | None, int]], budget: int, is_proposed: bool
) -> None:
    with transaction.atomic():
        pool, parties = books.pool(), {name: books.party(name) for name in drawn.NAMES}
        now = drawn.START + timedelta(days=1, hours=9)
        spending = sessions.open(pool=pool, budget_micros=budget, policy=policy, now=now)
        twin = sessions.open(pool=pool, budget_micros=budget, policy=Policy(), now=now)
        for agent, micros, capability, minutes in orders:
            now += timedelta(minutes=minutes)
            to = parties[agent.removeprefix("agent://")]
            told = asked(spending, to, micros, agent=agent, capability=capability or "", now=now)
            if is_proposed and not Account.objects.filter(sent_micros__gt=0, session=spending).exists():
                by_twin = asked(twin, to, micros, agent=agent, capability=capability or "", now=now, proposed=policy)
                assert (facts(by_twin.refusal), by_twin.remaining_micros) == (
                    facts(told.refusal),
                    told.remaining_micros,
                )
                assert by_twin.policy_version is None
            refusal, left, version = sent(spending, to, micros, agent, capability, now)
            assert (facts(refusal), left) == (facts(told.refusal), told.remaining_micros)
            assert version in (None, told.policy_version)
        transaction.set_rollback(True)


def test_a_yes_says_what_would_be_left() -> None:
    spending = books.session(micros=5 * USDC)
    answer = asked(spending, books.party(), 2 * USDC)
    assert (answer.refusal, answer.remaining_micros, answer.policy_version) == (None, 3 * USDC, 1)


@pytest.mark.parametrize("stop", ["paused", "closed", "frozen", "closing", "no block"])
def test_a_state_that_stops_payments_stops_the_answer_too(stop: str) -> None:
    spending = books.session()
    match stop:
        case "paused":
            sessions.pause(session=spending, now=NOW)
        case "closed":
            sessions.close(session=spending, now=NOW)
        case "frozen":
            pools.freeze(payer_id=spending.pool.payer_id, reason="a stolen key", now=NOW)
        case "closing":
            pools.close(pool=spending.pool, now=NOW)
        case "no block":
            books.settlement_paused(spending.pool)
    told = asked(spending, books.party(), 1).refusal
    assert told is not None
    with pytest.raises(type(told)) as caught:
        books.pay(spending, books.party(), 1)
    assert facts(caught.value) == facts(told)


def test_a_proposed_policy_counts_what_the_session_has_really_spent() -> None:
    spending, to = books.session(), books.party()
    books.pay(spending, to, 4 * USDC)
    books.hold(spending, to, 3 * USDC)
    proposed = Policy(max_per_hour=8 * USDC)
    answer = asked(spending, to, USDC + 1, proposed=proposed)
    assert isinstance(answer.refusal, PolicyDenied)
    assert (answer.refusal.facts["rule"], answer.refusal.facts["spent"], answer.refusal.facts["would_allow"]) == (
        "max_per_hour", "7.00", "1.00",
    )  # fmt: skip
    assert asked(spending, to, USDC, proposed=proposed).refusal is None


def test_a_proposed_policy_is_forgotten() -> None:
    spending, to = books.session(policy=Policy(max_per_tx=USDC)), books.party()
    assert asked(spending, to, 2 * USDC, proposed=Policy(allowed_recipients=("other.dev",))).refusal is not None
    assert asked(spending, to, 2 * USDC, proposed=Policy()).refusal is None
    assert books.pay(spending, to, USDC).policy_version == 1
    with books.unmoved(), pytest.raises(PolicyDenied) as caught:
        books.pay(spending, to, USDC + 1)
    assert (caught.value.facts["rule"], caught.value.facts["policy_version"]) == ("max_per_tx", 1)
    known = authorisation.RULES.opinion(spending.pk, to=LINT, capability=None, now=NOW)
    assert (known.version, known.denial) == (1, None)


def test_a_child_is_asked_about_what_its_parent_allows_too() -> None:
    parent, to = books.session(policy=Policy(max_per_tx=USDC, allowed_capabilities=("code.lint",))), books.party()
    inside = sessions.open_child(parent=parent, budget_micros=5 * USDC, policy=Policy(), now=NOW)
    answer = asked(inside, to, USDC + 1, capability="code.lint", proposed=Policy(approval_above=10))
    assert isinstance(answer.refusal, PolicyDenied)
    assert answer.refusal.facts["rule"] == "max_per_tx"
    with untouched(), pytest.raises(InvalidPolicy, match="max_per_tx"):
        rehearsal.check(
            session=inside, party_id=to.pk, to=LINT, amount_micros=1, proposed=Policy(max_per_tx=2 * USDC), now=NOW
        )


def test_nobody_is_asked_and_nothing_is_kept() -> None:
    spending, to = books.session(policy=Policy(approval_above=USDC)), books.party()
    answer = asked(spending, to, USDC + 1)
    assert answer.refusal is not None
    assert answer.refusal.code == "approval_required"
    assert not Approval.objects.exists()
    assert not Denial.objects.exists()


def test_another_time_moves_the_clock_alone() -> None:
    spending, to = books.session(policy=Policy(max_per_day=USDC, expires_at=NOW + 30 * HOUR)), books.party()
    books.pay(spending, to, USDC)
    for later, rule in ((timedelta(0), "max_per_day"), (24 * HOUR, None), (30 * HOUR, "expires_at")):
        refusal = asked(spending, to, USDC, now=NOW + later).refusal
        assert (refusal.facts["rule"] if refusal else None) == rule


def test_what_cannot_be_paid_at_all_cannot_be_asked_about() -> None:
    spending = books.session()
    with untouched(), pytest.raises(InvalidInput, match="amount"):
        rehearsal.check(session=spending, party_id=uuid4(), to=LINT, amount_micros=2**40, now=NOW)
    with untouched(), pytest.raises(NotFound, match="recipient"):
        rehearsal.check(session=spending, party_id=uuid4(), to=LINT, amount_micros=1, now=NOW)


@pytest.mark.django_db(transaction=True)
def test_no_lock_outlives_the_answer_and_none_is_waited_for_without_end() -> None:
    spending, to = books.session(), books.party()
    books.pay(spending, to, 1)
    for proposed in (None, Policy(max_total=USDC)):
        rehearsal.check(session=spending, party_id=to.pk, to=LINT, amount_micros=1, proposed=proposed, now=NOW)
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'transactionid'")
            assert cursor.fetchone() == (0,)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            Account.objects.select_for_update().get(pk=spending.account_id)
            held.set()
            done.wait(30)
        connection.close()

    other = threading.Thread(target=hold)
    other.start()
    held.wait(30)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = 200")
        for proposed in (None, Policy(max_total=USDC)):
            with pytest.raises(OperationalError, match="lock timeout"):
                rehearsal.check(session=spending, party_id=to.pk, to=LINT, amount_micros=1, proposed=proposed, now=NOW)
    finally:
        done.set()
        other.join()
        with connection.cursor() as cursor:
            cursor.execute("RESET lock_timeout")
    assert books.pay(spending, to, 1).policy_version == 1


def test_a_hold_is_answered_alike() -> None:
    spending, to = books.session(policy=Policy(max_per_tx=USDC)), books.party()
    told = asked(spending, to, USDC + 1).refusal
    with books.unmoved(), pytest.raises(PolicyDenied) as caught:
        holds.place(session=spending, amount_micros=USDC + 1, party=to, to=LINT, now=NOW)
    assert facts(caught.value) == facts(told)
