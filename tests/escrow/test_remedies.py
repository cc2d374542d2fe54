"""What a person does about what is stuck: one effect, a reason, on record for good; a refusal changes nothing."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from escrow import funding, grants, pools, remedies
from escrow.errors import EscrowError, InvalidInput, StateConflict
from escrow.models import ChainAction, ChainCursor, Event, Pulse, Remedy, Setback, SignerNonce
from escrow.remedies import Order
from tests.escrow import books
from tests.escrow.books import unmoved

pytestmark = pytest.mark.django_db
ADDRESS = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
VERBS = {
    "retry": remedies.retry,
    "rebroadcast": remedies.rebroadcast,
    "bump": remedies.bump,
    "release": remedies.release,
    "park": remedies.park,
}


def order(seen: int = 0, by: str = "ada", reason: str = "The node was down.") -> Order:
    return Order(by=by, reason=reason, seen=seen, now=timezone.now())


def action(status: str, kind: str = "withdraw", **fields: Any) -> ChainAction:
    later = timezone.now() + timedelta(hours=1)
    made = {"nonce": 7, "signer_address": ADDRESS} if status not in ("planned", "parked") else {}
    return ChainAction.objects.create(
        kind=kind,
        status=status,
        dedupe_key=f"{kind}:{status}",
        next_at=later,
        params={"payouts_before": 0},
        **made,
        **fields,
    )


def state(of: ChainAction) -> tuple[object, ...]:
    of = ChainAction.objects.get(pk=of.pk)
    return of.status, of.params, of.next_at, of.attempts, of.nonce, of.error


@pytest.mark.parametrize(
    ("status", "open_to"),
    [
        ("planned", ["park"]),
        ("signed", ["rebroadcast", "bump", "release"]),
        ("broadcast", ["rebroadcast", "bump", "release"]),
        ("mined", []),
        ("safe", []),
        ("final", []),
        ("reverted", ["retry"]),
        ("parked", ["retry"]),
    ],
)
def test_each_status_has_its_remedies_and_every_other_is_refused_without_effect(
    status: str, open_to: list[str]
) -> None:
    of = action(status, pool=books.pool())
    assert remedies.open_to(of) == open_to
    before = state(of)
    for name in VERBS.keys() - set(open_to):
        with unmoved(), pytest.raises(StateConflict):
            VERBS[name](action=of, order=order())
    assert state(of) == before
    assert Remedy.objects.count() == 0


def test_a_parked_action_is_planned_again() -> None:
    of = action("parked", attempts=20)
    asked = order()
    done = remedies.retry(action=of, order=asked)
    assert state(of)[:4] == ("planned", {"payouts_before": 0}, asked.now, 0)
    assert (done.kind, done.action, done.by, done.reason, done.at) == (
        "retry",
        of,
        "ada",
        "The node was down.",
        asked.now,
    )


TOLD = ["mint", "open_pool", "top_up", "dispute"]


@pytest.mark.parametrize("status", ["parked", "reverted"])
@pytest.mark.parametrize("kind", [*TOLD, "settle"])
def test_what_was_told_as_failed_is_asked_for_anew_and_not_retried(kind: str, status: str) -> None:
    of = action(status, kind=kind)
    assert remedies.Kind.RETRY not in remedies.open_to(of)
    before, said = state(of), "goes with another" if kind == "settle" else "asks anew"
    with unmoved(), pytest.raises(StateConflict, match=said):
        remedies.retry(action=of, order=order())
    assert (state(of), ChainAction.objects.count(), Remedy.objects.count()) == (before, 1, 0)


@pytest.mark.parametrize("status", ["planned", "signed", "broadcast", "mined", "safe", "final", "dropped"])
@pytest.mark.parametrize("kind", ["open_pool", "settle", "withdraw"])
def test_a_retry_is_refused_for_the_status_before_the_kind(kind: str, status: str) -> None:
    of = action(status, kind=kind)
    before = state(of)
    with unmoved(), pytest.raises(StateConflict, match=f"is {status}: only one that is parked or has reverted"):
        remedies.retry(action=of, order=order())
    assert (state(of), Remedy.objects.count()) == (before, 0)


@pytest.mark.parametrize("kind", [*TOLD, "settle"])
def test_what_was_parked_and_told_before_ends_for_good_with_its_cause(kind: str) -> None:
    of = action("parked", kind=kind, error="transfer amount exceeds balance")
    assert remedies.open_to(of) == ["release"]
    told = Event.objects.count()
    with unmoved():
        done = remedies.release(action=of, order=order())
    cause = "Ended by ada: The node was down. Before: transfer amount exceeds balance"
    status, params, _, _, nonce, error = state(of)
    assert (status, params, nonce, error) == ("dropped", {"payouts_before": 0}, None, cause)
    assert (done.kind, done.by, done.reason) == ("release", "ada", "The node was down.")
    of.refresh_from_db()
    assert (remedies.open_to(of), Event.objects.count()) == ([], told)  # it was told when it was parked
    for verb in VERBS.values():
        with unmoved(), pytest.raises(StateConflict):
            verb(action=of, order=order(seen=done.pk))
    assert (state(of)[0], Remedy.objects.count()) == ("dropped", 1)


def test_an_old_grant_that_ends_leaves_the_opening_that_was_asked_for_since() -> None:
    payer = uuid4()
    grants.give(payer_id=payer, now=timezone.now())
    old = ChainAction.objects.get(kind="mint")
    ChainAction.objects.filter(pk=old.pk).update(status="parked")
    grants.minting_failed(payer, reason="away")
    again = grants.give(payer_id=payer, now=timezone.now())
    assert again is not None
    with unmoved():
        remedies.release(action=old, order=order())
        assert grants.give(payer_id=payer, now=timezone.now()) == again
    again.refresh_from_db()
    assert (again.status, ChainAction.objects.filter(kind="mint").count()) == ("opening", 2)


def test_signed_bytes_are_sent_again_now() -> None:
    of, asked = action("broadcast"), order()
    remedies.rebroadcast(action=of, order=asked)
    assert state(of)[:3] == ("broadcast", {"payouts_before": 0}, asked.now)


@pytest.mark.parametrize(("name", "key"), [("bump", "bump"), ("release", "cancel")])
def test_the_relay_is_left_a_note_for_what_needs_a_signature(name: str, key: str) -> None:
    of, asked = action("broadcast"), order()
    VERBS[name](action=of, order=asked)
    assert state(of)[:3] == ("broadcast", {"payouts_before": 0, key: True}, asked.now)


def test_parking_an_opening_tells_its_owner_that_it_failed() -> None:
    pool = pools.open(payer_id=uuid4(), deposit_micros=5_000_000, now=timezone.now())
    of = ChainAction.objects.get(pool=pool)
    ChainAction.objects.update(error="exceeds balance")
    with unmoved():
        done = remedies.park(action=of, order=order(reason="Its deposit never came."))
    pool.refresh_from_db()
    assert (state(of)[0], state(of)[5]) == ("dropped", "Parked by ada: Its deposit never came. Before: exceeds balance")
    assert (pool.status, pool.reason) == ("failed", "Parked by ada: Its deposit never came.")
    assert done.outcome == "It was told as failed, and has ended."


def test_a_pool_whose_opening_was_given_up_opens_when_somebody_has_it_mined_all_the_same() -> None:
    pool = pools.open(payer_id=uuid4(), deposit_micros=5_000_000, now=timezone.now())
    books.bind(pool)
    remedies.park(action=ChainAction.objects.get(pool=pool), order=order())
    pool.refresh_from_db()
    funding.opened(pool, deposit_micros=5_000_000, ref="0xaa:0", at=timezone.now())
    pool.refresh_from_db()
    assert (pool.status, books.check_pool(pool).available) == ("open", 5_000_000)
    assert list(ChainAction.objects.values_list("kind", "status")) == [("open_pool", "dropped")]


def test_a_parked_grant_ends_and_the_next_request_mints_and_opens_anew() -> None:
    payer = uuid4()
    first = grants.give(payer_id=payer, now=timezone.now())
    with unmoved():
        remedies.park(action=ChainAction.objects.get(kind="mint"), order=order())
        second = grants.give(payer_id=payer, now=timezone.now())
    assert (first is not None, second is not None, first != second) == (True, True, True)
    mints = ChainAction.objects.filter(kind="mint").order_by("pk").values_list("status", flat=True)
    assert list(mints) == ["dropped", "planned"]


def test_parking_what_waits_for_a_person_keeps_the_cause_and_the_place() -> None:
    of = action("planned", error="The token refuses.")
    done = remedies.park(action=of, order=order(reason="It is blacklisted"))
    assert (state(of)[0], done.outcome) == ("parked", "Parked.")
    assert state(of)[5] == "Parked by ada: It is blacklisted. Before: The token refuses."
    assert remedies.open_to(ChainAction.objects.get()) == ["retry"]


@pytest.mark.parametrize("reason", ["", "   ", "\n"])
def test_a_remedy_needs_a_reason(reason: str) -> None:
    of = action("parked")
    before = state(of)
    with unmoved(), pytest.raises(InvalidInput):
        remedies.retry(action=of, order=order(reason=reason))
    assert (state(of), Remedy.objects.count()) == (before, 0)


def test_a_second_click_is_told_who_was_first() -> None:
    of = action("broadcast")
    first = remedies.bump(action=of, order=order(by="ada"))
    ChainAction.objects.filter(pk=of.pk).update(params={"payouts_before": 0})  # the relay has done it
    before = state(of)
    for name in ("bump", "rebroadcast", "release"):
        with unmoved(), pytest.raises(StateConflict, match="Already done by ada") as refused:
            VERBS[name](action=of, order=order(by="bob"))
        assert first.outcome in refused.value.detail
    assert (state(of), Remedy.objects.count()) == (before, 1)
    remedies.bump(action=of, order=order(by="bob", seen=first.pk))  # who has seen it may go on
    assert Remedy.objects.count() == 2


def stopped(nonce: int = 7) -> SignerNonce:
    why = "Nonce 6 is foreign."
    return SignerNonce.objects.create(chain_id=31337, address=ADDRESS, next_nonce=nonce, stopped_reason=why)


def look(nonce: int, *, ago: int = 0) -> None:
    signers = {ADDRESS: {"balance_wei": "1", "nonce": nonce}}
    at = timezone.now() - timedelta(seconds=ago)
    Pulse.objects.create(worker=f"w{nonce}{ago}", at=at, chain_id=31337, signers=signers)


def test_a_stopped_signer_signs_again_from_its_own_nonce_or_from_the_chains(settings: Any) -> None:
    settings.CHAIN_ID = 31337
    signer = stopped()
    look(9)
    first = remedies.clear_signer(signer=signer, order=order())
    signer.refresh_from_db()
    assert (signer.stopped_reason, signer.next_nonce) == ("", 7)
    assert first.outcome == "It signs again, from nonce 7 on. It was stopped: Nonce 6 is foreign."
    with unmoved(), pytest.raises(StateConflict, match="is not stopped"):
        remedies.clear_signer(signer=signer, order=order(seen=first.pk))
    SignerNonce.objects.update(stopped_reason="Nonce 8 is foreign.")
    remedies.clear_signer(signer=signer, order=order(seen=first.pk), adopt_nonce=True)
    signer.refresh_from_db()
    assert (signer.stopped_reason, signer.next_nonce) == ("", 9)


def _in_flight() -> None:
    look(9)
    action("broadcast")


@pytest.mark.parametrize(
    ("arrange", "said"),
    [
        (_in_flight, "are in flight"),
        (lambda: look(6), "never taken back"),
        (lambda: look(9, ago=61), "No worker has looked"),
        (lambda: None, "No worker has looked"),
    ],
)
def test_the_chains_nonce_is_taken_only_when_it_is_known_ahead_and_nothing_flies(
    settings: Any, arrange: Callable[[], None], said: str
) -> None:
    settings.CHAIN_ID = 31337
    signer = stopped()
    arrange()
    with unmoved(), pytest.raises(StateConflict, match=said):
        remedies.clear_signer(signer=signer, order=order(), adopt_nonce=True)
    signer.refresh_from_db()
    assert (signer.stopped_reason, signer.next_nonce, Remedy.objects.count()) == ("Nonce 6 is foreign.", 7, 0)


def test_a_stopped_indexer_reads_on() -> None:
    now = timezone.now()
    cursor = ChainCursor.objects.create(
        chain_id=1,
        contract_address="0x1",
        block_number=4,
        block_hash="0x2",
        block_time=now,
        read_at=now,
        stopped_reason="Gone.",
    )
    done = remedies.clear_cursor(cursor=cursor, order=order())
    cursor.refresh_from_db()
    assert (cursor.stopped_reason, done.outcome) == ("", "It reads on from block 4. It was stopped: Gone.")
    with unmoved(), pytest.raises(StateConflict, match="not stopped"):
        remedies.clear_cursor(cursor=cursor, order=order(seen=done.pk))


def test_what_a_sweep_has_set_aside_is_tried_again() -> None:
    now = timezone.now()
    back = Setback.objects.create(
        sweep="holds", subject="1", failures=10, error="boom", parked_at=now, next_at=now + timedelta(hours=1)
    )
    asked = order()
    done = remedies.try_again(setback=back, order=asked)
    back.refresh_from_db()
    assert (back.parked_at, back.next_at, back.failures) == (None, asked.now, 0)
    assert (done.setback, done.outcome) == ("holds:1", "Tried again with the next sweep. It had failed 10 times: boom")
    back.delete()
    with unmoved(), pytest.raises(StateConflict, match="not stuck any more"):
        remedies.try_again(setback=back, order=order(seen=done.pk))


@pytest.mark.parametrize(
    "change",
    ["UPDATE escrow_remedy SET reason = 'x'", "DELETE FROM escrow_remedy", "TRUNCATE escrow_remedy"],
)
def test_the_record_only_grows(change: str) -> None:
    remedies.retry(action=action("parked"), order=order())
    with transaction.atomic(), connection.cursor() as sql:
        sql.execute("SET CONSTRAINTS ALL IMMEDIATE")
        with pytest.raises(DatabaseError, match="stays on record"), transaction.atomic():
            sql.execute(change)
    assert Remedy.objects.get().reason == "The node was down."


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ["rebroadcast", "bump", "release"])
def test_of_two_people_at_once_one_has_an_effect(name: str) -> None:
    of = action("broadcast", pool=books.pool())
    together = Barrier(2)

    def click(by: str) -> str:
        try:
            together.wait(10)
            VERBS[name](action=ChainAction.objects.get(pk=of.pk), order=order(by=by))
        except EscrowError as error:
            return error.detail
        else:
            return "done"
        finally:
            connection.close()

    with unmoved(), ThreadPoolExecutor(2) as people:
        told = sorted(people.map(click, ("ada", "bob")), key=len)
    assert told[0] == "done"
    assert told[1].startswith("Already done by ")
    assert Remedy.objects.count() == 1
