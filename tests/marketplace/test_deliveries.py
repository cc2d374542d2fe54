"""`marketplace.deliveries` and `marketplace.courier`: what is published reaches its endpoint, whatever happens on the way.

Each test has a real receiver on this machine. Time is an argument: nothing here waits for a clock.
"""

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest
from django.conf import settings as configured
from django.db import connection

from escrow import events
from escrow.models import Event
from marketplace import deliveries, outside, webhooks
from marketplace.courier import Courier, Threads
from marketplace.deliveries import Outcome
from marketplace.models import Delivery, Payer, WebhookEndpoint
from tests.marketplace.client import Caller
from tests.marketplace.conftest import World, money, publish
from tests.marketplace.receivers import Inline, Receiver, receiving

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ROOT = Path(__file__).resolve().parents[2]
LINT = "agent://lint.acme.dev"
Receive = Callable[..., Receiver]


@pytest.fixture(autouse=True)
def _on_one_machine(settings) -> None:
    settings.LOCAL_WEBHOOKS = True
    settings.WEBHOOK_JITTER = 0.0


@pytest.fixture
def receive() -> Iterator[Receive]:
    with ExitStack() as stack:
        yield lambda answer=204, port=0: stack.enter_context(receiving(answer, port))


def endpoint(world: World, to: Receiver | str, *filters: str) -> WebhookEndpoint:
    """Make an endpoint of payer A, to which nothing has happened yet."""
    publish()
    url = to if isinstance(to, str) else to.url
    return webhooks.create(url=url, payer=world.a.payer, filters=filters, seed=uuid4())


def tell(world: World, subject: UUID | None = None, type: str = "task.posted") -> UUID:
    """Record an event for payer A, published, and return its subject."""
    subject = subject or uuid4()
    events.record(type=type, subject_type="task", subject_id=subject, payload={"n": 1}, payer_id=world.a.payer.pk)
    publish()
    return subject


def sweep(now: datetime = NOW, *, threads: int = 64) -> int:
    """Do what one beat does, in this thread."""
    return len(Courier(Inline(), threads=threads, turn=0.0, clock=lambda: 0.0).run(now=now))


def sweep_all(now: datetime = NOW) -> int:
    """Sweep until nothing is due."""
    total = 0
    while count := sweep(now):
        total += count
    return total


def secret(of: WebhookEndpoint) -> str:
    return webhooks.secret_of(of.seed)


def statuses(of: WebhookEndpoint) -> list[str]:
    return list(Delivery.objects.filter(endpoint=of).order_by("event").values_list("status", flat=True))


# --- What is delivered to whom ---------------------------------------------------------------------------------------


@pytest.mark.promise("S29")
def test_a_payment_reaches_both_sides_signed(world: World, receive: Receive) -> None:
    buyers, sellers, others = receive(), receive(), receive()
    mine = endpoint(world, buyers)
    theirs = webhooks.create(url=sellers.url, provider=world.one.provider, seed=uuid4())
    webhooks.create(url=others.url, payer=world.b.payer, seed=uuid4())
    webhooks.create(url=others.url, provider=world.two.provider, seed=uuid4())
    paid = world.a.by_session.post("/v1/payments", {"to": LINT, "amount": "0.012"}).json
    publish()
    assert sweep() == 2
    told = Event.objects.get(type="payment.created")
    for receiver, of in ((buyers, mine), (sellers, theirs)):
        [event] = receiver.events(secret(of), NOW)
        assert (event.id, event.position, event.type) == (f"evt_{told.pk}", told.pk, "payment.created")
        assert (event.subject_type, event.subject_id, event.at) == ("payment", paid["id"], told.created_at)
        assert event.payload["amount"] == "0.012"
    assert others.got == []
    headers, _ = buyers.got[0]
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == "AgentMarket-Webhooks/1"
    assert sweep() == 0


def test_only_what_is_published_and_only_from_now_on(world: World, receive: Receive) -> None:
    receiver = receive()
    tell(world)
    endpoint(world, receiver)
    events.record(type="task.posted", subject_type="task", subject_id=uuid4(), payload={}, payer_id=world.a.payer.pk)
    assert sweep() == 0
    publish()
    assert sweep() == 1
    assert len(receiver.got) == 1


@pytest.mark.parametrize(
    ("filters", "types"),
    [
        ((), ["task.posted", "payment.created", "payment.refunded", "taskx.posted"]),
        (("payment.created",), ["payment.created"]),
        (("payment.*",), ["payment.created", "payment.refunded"]),
        (("task.*", "payment.refunded"), ["task.posted", "payment.refunded"]),
        (("nothing.happens",), []),
    ],
)
def test_an_endpoint_is_told_of_the_types_that_it_names(
    world: World, receive: Receive, filters: tuple[str, ...], types: list[str]
) -> None:
    receiver = receive()
    of = endpoint(world, receiver, *filters)
    for type in ("task.posted", "payment.created", "payment.refunded", "taskx.posted"):
        tell(world, type=type)
    sweep_all()
    assert [event.type for event in receiver.events(secret(of), NOW)] == types
    of.refresh_from_db()
    assert of.position == events.published()


@pytest.mark.promise("S29")
def test_every_event_of_a_long_feed_is_delivered_once(world: World, receive: Receive, settings) -> None:
    settings.WEBHOOK_FAN_OUT, settings.WEBHOOK_PER_ENDPOINT = 7, 64
    receiver = receive()
    of = endpoint(world, receiver)
    for _ in range(40):
        events.record(
            type="task.posted", subject_type="task", subject_id=uuid4(), payload={}, payer_id=world.a.payer.pk
        )
    publish()
    sweep_all()
    mine = Event.objects.filter(payer_id=world.a.payer.pk, pk__gt=of.position).order_by("pk")
    assert receiver.ids == [f"evt_{event.pk}" for event in mine]
    assert len(receiver.ids) == 40


def test_the_rest_of_the_feed_waits_in_the_feed(world: World, receive: Receive, settings) -> None:
    settings.WEBHOOK_MAX_PENDING, settings.WEBHOOK_FAN_OUT = 5, 5
    receiver = receive(500)
    of = endpoint(world, receiver)
    for _ in range(12):
        tell(world)
    for _ in range(5):
        deliveries.fan_out_due(now=NOW, limit=9)
    assert statuses(of) == ["pending"] * 5
    receiver.answer = 204
    sweep_all()
    assert statuses(of) == ["delivered"] * 12


# --- What goes wrong, and comes right --------------------------------------------------------------------------------


def test_the_pauses_grow_to_about_three_days_and_then_it_is_given_up(world: World, receive: Receive) -> None:
    receiver = receive(500)
    of = endpoint(world, receiver)
    tell(world)
    now, pauses = NOW, []
    before = money()
    while True:
        assert sweep(now) == 1
        row = Delivery.objects.get()
        if row.status == "dead":
            break
        pauses.append((row.next_at - now).total_seconds())
        assert sweep(row.next_at - timedelta(seconds=1)) == 0
        now = row.next_at
    assert [round(pause) for pause in pauses] == [5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400]
    assert (row.attempts, row.last_status, row.last_error) == (10, 500, "The answer was 500.")
    assert timedelta(days=3) < now - NOW < timedelta(days=3, hours=4)
    assert len(set(receiver.ids)) == 1
    assert len({body for _, body in receiver.got}) == 1
    assert len({headers["webhook-signature"] for headers, _ in receiver.got}) == 10
    of.refresh_from_db()
    assert of.status == "active"
    assert money() == before


def test_jitter_spreads_what_failed_together(world: World, receive: Receive, settings) -> None:
    settings.WEBHOOK_JITTER = 0.1
    endpoint(world, receive(503))
    for _ in range(20):
        tell(world)
    sweep_all()
    pauses = {(row.next_at - NOW).total_seconds() for row in Delivery.objects.all()}
    assert len(pauses) == 20
    assert all(4.5 <= pause <= 5.6 for pause in pauses)


def _reset(door: BaseHTTPRequestHandler) -> None:
    door.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    door.connection.close()


def _garbage(door: BaseHTTPRequestHandler) -> None:
    door.wfile.write(b"<html>not HTTP</html>\r\n")


def _huge(door: BaseHTTPRequestHandler) -> None:
    door.wfile.write(b"HTTP/1.0 500 Oh\r\n\r\n" + b"secret of the receiver " * 50_000)


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (500, 500, "The answer was 500."),
        (404, 404, "The answer was 404."),
        (302, 302, "The answer is a redirect; they are not followed."),
        (_reset, None, "The connection was reset."),
        (_garbage, None, "The answer is not HTTP."),
        (_huge, 500, "The answer was 500."),
    ],
)
def test_a_failure_is_noted_shortly_and_tried_again_with_the_same_id(
    world: World, receive: Receive, answer: Any, status: int | None, error: str
) -> None:
    receiver = receive(answer)
    of = endpoint(world, receiver)
    tell(world)
    assert sweep() == 1
    row = Delivery.objects.get()
    assert (row.status, row.attempts, row.last_status, row.last_error) == ("pending", 1, status, error)
    receiver.answer = 200
    assert sweep(row.next_at) == 1
    row.refresh_from_db()
    assert (row.status, row.attempts, row.last_status, row.last_error) == ("delivered", 2, 200, "")
    assert len(receiver.got) == 2
    assert len(set(receiver.ids)) == 1
    of.refresh_from_db()
    assert of.failing_since is None


@pytest.mark.parametrize("days", [1, 3])
def test_after_days_of_silence_everything_comes_in_order(world: World, receive: Receive, days: int) -> None:
    receiver = receive()
    of = endpoint(world, receiver)
    subjects = [uuid4() for _ in range(3)]
    down = receive(503)
    WebhookEndpoint.objects.filter(pk=of.pk).update(url=down.url)
    now = NOW
    while now < NOW + timedelta(days=days):
        tell(world, subjects[now.hour % 3])
        sweep_all(now)
        now += timedelta(hours=3)
    assert set(statuses(of)) == {"pending"}
    WebhookEndpoint.objects.filter(pk=of.pk).update(url=receiver.url)
    first = Delivery.objects.filter(endpoint=of, attempts__gt=0).order_by("next_at")[0]  # the others wait behind these
    sweep_all(max(now, first.next_at))
    told = receiver.events(secret(of), max(now, first.next_at))
    assert set(statuses(of)) == {"delivered"}
    assert sorted(event.position for event in told) == sorted(
        Event.objects.filter(payer_id=world.a.payer.pk, type="task.posted").values_list("pk", flat=True)
    )
    for subject in subjects:
        of_it = [event.position for event in told if event.subject_id == str(subject)]
        assert of_it == sorted(of_it)
    assert len(told) == days * 8


def test_a_subjects_later_event_waits_for_its_earlier_one_and_others_do_not(world: World, receive: Receive) -> None:
    receiver = receive(500)
    of = endpoint(world, receiver)
    first = tell(world)
    tell(world, first)
    assert sweep_all() == 1
    receiver.answer = 204
    tell(world)
    assert sweep_all() == 1  # only the other subject's: the first one's next attempt is later
    assert statuses(of) == ["pending", "pending", "delivered"]
    again = Delivery.objects.filter(endpoint=of).order_by("event")[0].next_at
    assert sweep_all(again) == 2
    positions = [event.position for event in receiver.events(secret(of), again) if event.subject_id == str(first)]
    assert positions == sorted(positions)


def test_what_is_given_up_does_not_hold_up_its_subject_for_ever(world: World, receive: Receive) -> None:
    receiver = receive(500)
    of = endpoint(world, receiver)
    subject = tell(world)
    tell(world, subject)
    sweep()
    Delivery.objects.filter(attempts=1).update(attempts=9, next_at=NOW)
    assert sweep() == 1
    receiver.answer = 204
    assert sweep() == 1
    assert statuses(of) == ["dead", "delivered"]


def test_an_attempt_that_was_cut_off_is_made_again_with_the_same_id(
    world: World, receive: Receive, monkeypatch
) -> None:
    """The process ends between the answer and writing it down."""
    receiver = receive()
    of = endpoint(world, receiver)
    tell(world)
    with monkeypatch.context() as patch:
        patch.setattr(deliveries, "record", _killed)
        with pytest.raises(SystemExit):
            sweep()
    row = Delivery.objects.get()
    assert (row.status, row.attempts, row.next_at) == ("pending", 1, NOW + timedelta(seconds=30))
    assert sweep(NOW + timedelta(seconds=29)) == 0
    assert sweep(NOW + timedelta(seconds=30)) == 1
    assert receiver.ids == [f"evt_{row.event_id}"] * 2
    assert statuses(of) == ["delivered"]


def _killed(*_: object, **__: object) -> None:
    raise SystemExit


def test_a_fault_of_ours_leaves_it_for_later_and_the_others_alone(world: World, receive: Receive, monkeypatch) -> None:
    receiver = receive()
    of = endpoint(world, receiver)
    bad, good = tell(world), tell(world)
    plain = deliveries.attempt

    def attempt(claimed: deliveries.Claimed) -> Outcome:
        if claimed.delivery.subject_id == bad:
            raise RuntimeError("a fault")
        return plain(claimed)

    monkeypatch.setattr(deliveries, "attempt", attempt)
    assert sweep() == 2
    assert [event.subject_id for event in receiver.events(secret(of), NOW)] == [str(good)]
    assert statuses(of) == ["pending", "delivered"]


def test_who_answers_again_gets_at_once_what_waits(world: World, receive: Receive) -> None:
    receiver = receive(500)
    of = endpoint(world, receiver)
    for _ in range(6):
        tell(world)
    sweep_all()
    Delivery.objects.update(next_at=NOW + timedelta(hours=20))
    receiver.answer = 204
    tell(world)
    assert sweep_all() == 7
    assert statuses(of) == ["delivered"] * 7


def test_a_late_word_on_an_attempt_that_was_taken_over_changes_nothing(world: World, receive: Receive) -> None:
    of = endpoint(world, receive())
    tell(world)
    deliveries.fan_out_due(now=NOW, limit=9)
    [slow] = deliveries.claim(of, now=NOW, limit=9)
    assert deliveries.claim(of, now=NOW, limit=9) == []
    sweep(NOW + timedelta(seconds=31))
    deliveries.record(slow, Outcome(None, "slow"), now=NOW + timedelta(minutes=1))
    assert statuses(of) == ["delivered"]
    deliveries.record(slow, Outcome(200), now=NOW + timedelta(minutes=1))
    assert Delivery.objects.get().delivered_at == NOW + timedelta(seconds=31)


def test_a_name_that_moves_into_our_network_is_not_called(
    world: World, receive: Receive, settings, monkeypatch
) -> None:
    """Vetted when it was made, and again at every attempt."""
    settings.LOCAL_WEBHOOKS = False
    receiver = receive()
    port = receiver.url.split(":")[2].split("/")[0]
    endpoint(world, f"https://hooks.acme.dev:{port}/")
    monkeypatch.setattr(outside, "_look_up", lambda host, seconds: ("127.0.0.1",))
    tell(world)
    assert sweep() == 1
    row = Delivery.objects.get()
    assert (row.last_status, row.last_error) == (None, "The host has an address that is not on the public internet.")
    WebhookEndpoint.objects.update(url=f"http://127.0.0.1:{port}/")  # even if the row were changed past the API
    sweep(row.next_at)
    row.refresh_from_db()
    assert (row.last_status, row.last_error) == (None, "url must begin with https://.")
    assert receiver.got == []


# --- Turning an endpoint off and on ----------------------------------------------------------------------------------


def test_five_days_of_failure_turn_it_off_and_its_owner_is_told(world: World, receive: Receive) -> None:
    dead, alive = receive(500), receive()
    of = endpoint(world, dead)
    endpoint(world, alive)
    now = NOW
    for _ in range(40):
        tell(world)
        sweep_all(now)
        of.refresh_from_db()
        if of.status == "disabled":
            break
        now += timedelta(hours=6)
    assert of.status == "disabled"
    assert of.reason == "Nothing could be delivered for 5 days. The answer was 500."
    assert timedelta(days=5) <= now - NOW <= timedelta(days=6)
    assert "dead" in statuses(of)
    publish()
    tried = len(dead.got)
    sweep_all(now)
    last = alive.got[-1]
    assert b'"type":"webhook.disabled"' in last[1]
    assert str(of.pk).encode() in last[1]
    assert len(dead.got) == tried
    feed = world.a.by_payer.get("/v1/events?limit=200").json["items"]
    assert [event["subject_id"] for event in feed if event["type"] == "webhook.disabled"] == [str(of.pk)]


def test_one_success_in_between_keeps_it_on(world: World, receive: Receive) -> None:
    receiver = receive(500)
    of = endpoint(world, receiver)
    tell(world)
    sweep()
    of.refresh_from_db()
    assert of.failing_since == NOW
    receiver.answer = 204
    tell(world)
    sweep_all(NOW + timedelta(days=4))
    receiver.answer = 500
    tell(world)
    sweep_all(NOW + timedelta(days=6))
    Delivery.objects.filter(status="pending").update(attempts=9, next_at=NOW)
    sweep_all(NOW + timedelta(days=6))
    of.refresh_from_db()
    assert (of.status, of.failing_since) == ("active", NOW + timedelta(days=6))
    assert "dead" in statuses(of)


def test_gone_turns_it_off_at_once(world: World, receive: Receive) -> None:
    receiver = receive(410)
    of = endpoint(world, receiver)
    tell(world)
    sweep()
    of.refresh_from_db()
    assert (of.status, of.reason) == ("disabled", "The endpoint answered 410: it wants no more.")
    assert statuses(of) == ["pending"]
    tell(world)
    assert sweep(NOW + timedelta(days=1)) == 0


def test_a_replay_turns_it_on_and_nothing_is_missing(world: World, receive: Receive) -> None:
    receiver = receive(410)
    of = endpoint(world, receiver)
    start = of.position
    tell(world)
    sweep()
    for _ in range(3):
        tell(world)
    receiver.answer = 204
    with_money = money()
    of = webhooks.replay(endpoint=of, now=NOW)
    assert (of.status, of.reason, of.failing_since) == ("active", "", None)
    sweep_all(NOW + timedelta(minutes=1))
    assert [status for status in statuses(of) if status != "delivered"] == []
    told = receiver.events(secret(of), NOW + timedelta(minutes=1))
    mine = Event.objects.filter(payer_id=world.a.payer.pk, pk__gt=start)
    assert {event.position for event in told} == set(mine.values_list("pk", flat=True))
    assert [event.type for event in told].count("webhook.disabled") == 1
    assert money() == with_money


def test_a_replay_of_what_was_given_up(world: World, receive: Receive) -> None:
    receiver = receive(500)
    of = endpoint(world, receiver)
    tell(world)
    sweep()
    Delivery.objects.update(attempts=9, next_at=NOW)
    sweep()
    assert statuses(of) == ["dead"]
    receiver.answer = 204
    webhooks.replay(endpoint=of, now=NOW)
    assert sweep() == 1
    row = Delivery.objects.get()
    assert (row.status, row.attempts) == ("delivered", 1)
    assert len(set(receiver.ids)) == 1


def test_a_replay_from_a_position_delivers_again_under_the_same_ids(world: World, receive: Receive) -> None:
    receiver = receive()
    of = endpoint(world, receiver)
    start = of.position
    for _ in range(4):
        tell(world)
    sweep_all()
    first = list(receiver.ids)
    webhooks.replay(endpoint=of, now=NOW, after=int(first[1].removeprefix("evt_")))
    sweep_all()
    assert receiver.ids[4:] == first[2:]
    webhooks.replay(endpoint=of, now=NOW, after=start)
    sweep_all()
    assert receiver.ids[6:] == first
    assert statuses(of) == ["delivered"] * 4


def test_what_is_old_is_forgotten_and_what_waits_is_not(world: World, receive: Receive) -> None:
    receiver = receive(500)
    of = endpoint(world, receiver)
    tell(world)
    sweep()
    for status in ("dead", "delivered"):
        Delivery.objects.create(endpoint=of, subject_id=uuid4(), status=status, next_at=NOW)
    Delivery.objects.update(created_at=NOW)
    assert deliveries.forget(now=NOW + configured.WEBHOOK_KEEP, limit=9) == 0
    assert deliveries.forget(now=NOW + configured.WEBHOOK_KEEP + timedelta(seconds=1), limit=9) == 2
    assert statuses(of) == ["pending"]


# --- Many at once ----------------------------------------------------------------------------------------------------


@pytest.fixture
def lively(transactional_db: None, settings) -> Iterator[Callable[..., Courier]]:
    """Return a maker of couriers with threads of their own, whose connections are closed in the end."""
    settings.LOCAL_WEBHOOKS = True
    pools: list[ThreadPoolExecutor] = []

    def make(threads: int, turn: float = 1.0) -> Courier:
        pools.append(Threads(threads))
        return Courier(pools[-1], threads=threads, turn=turn)

    yield make
    for pool in pools:
        barrier = threading.Barrier(pool._max_workers)
        for closing in [pool.submit(_close, barrier) for _ in range(pool._max_workers)]:
            closing.result(30)
        pool.shutdown()


def _close(barrier: threading.Barrier) -> None:
    barrier.wait(30)
    connection.close()


def _payers(count: int) -> list[Payer]:
    return [Payer.objects.create(name=f"payer {number}") for number in range(count)]


def _tell(payer: Payer) -> None:
    events.record(type="task.posted", subject_type="task", subject_id=uuid4(), payload={}, payer_id=payer.pk)


def test_endpoints_that_hang_do_not_hold_up_the_others(lively, receive: Receive, settings) -> None:
    """Nine of ten endpoints never answer while the tenth gets everything."""
    settings.WEBHOOK_TIMEOUT_SECONDS = 60.0
    released = threading.Event()
    hanging, healthy = receive(lambda _door: released.wait(60)), receive()
    payers = _payers(10)
    try:
        for payer in payers[:9]:
            webhooks.create(url=hanging.url, payer=payer, seed=uuid4())
        WebhookEndpoint.objects.update(failing_since=NOW)
        webhooks.create(url=healthy.url, payer=payers[9], seed=uuid4())
        for payer in payers:
            for _ in range(10):
                _tell(payer)
        publish()
        courier = lively(8)
        while len(healthy.got) < 10:
            for task in courier.run(now=NOW):
                if courier._busy.total() == 0:
                    task.result(60)
            assert len(hanging.got) <= 4
        assert len(set(healthy.ids)) == 10
    finally:
        released.set()


def test_an_endpoint_that_begins_to_hang_has_its_own_few_threads_only(lively, receive: Receive, settings) -> None:
    settings.WEBHOOK_TIMEOUT_SECONDS = 60.0
    released = threading.Event()
    hanging, healthy = receive(lambda _door: released.wait(60)), receive()
    slow, quick = _payers(2)
    try:
        webhooks.create(url=hanging.url, payer=slow, seed=uuid4())
        webhooks.create(url=healthy.url, payer=quick, seed=uuid4())
        for _ in range(20):
            _tell(slow)
            _tell(quick)
        publish()
        courier = lively(8)
        while len(healthy.got) < 20:
            courier.run(now=NOW)
        assert len(hanging.got) <= settings.WEBHOOK_PER_ENDPOINT
        assert len(set(healthy.ids)) == 20
    finally:
        released.set()


def test_a_turn_delivers_one_after_the_other_and_ends(lively, receive: Receive) -> None:
    receiver = receive()
    payer = _payers(1)[0]
    of = webhooks.create(url=receiver.url, payer=payer, seed=uuid4())
    for _ in range(30):
        _tell(payer)
    publish()
    for task in lively(2, turn=0.0).run(now=NOW):
        task.result(60)
    assert len(receiver.got) == 2
    for task in lively(2, turn=60.0).run(now=NOW):
        task.result(60)
    assert statuses(of) == ["delivered"] * 30
    assert len(set(receiver.ids)) == len(receiver.ids) == 30


def test_a_turn_ends_with_the_first_failure(lively, receive: Receive) -> None:
    receiver = receive(500)
    payer = _payers(1)[0]
    webhooks.create(url=receiver.url, payer=payer, seed=uuid4())
    for _ in range(9):
        _tell(payer)
    publish()
    [task] = lively(1, turn=60.0).run(now=NOW)
    task.result(60)
    assert len(receiver.got) == 1


def test_two_workers_deliver_each_event_once_and_in_order(lively, receive: Receive) -> None:
    receiver = receive()
    payer = _payers(1)[0]
    of = webhooks.create(url=receiver.url, payer=payer, seed=uuid4())
    subjects = [uuid4() for _ in range(5)]
    for number in range(60):
        events.record(
            type="task.posted", subject_type="task", subject_id=subjects[number % 5], payload={}, payer_id=payer.pk
        )
    publish()
    couriers = [lively(4), lively(4)]

    def work(one: Courier) -> None:
        try:
            while Delivery.objects.filter(status="delivered").count() < 60:
                one.run(now=NOW)
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as workers:
        list(workers.map(work, couriers))
    assert len(receiver.ids) == len(set(receiver.ids)) == 60
    told = receiver.events(secret(of), NOW)
    for subject in subjects:
        positions = [event.position for event in told if event.subject_id == str(subject)]
        assert all(earlier < later for earlier, later in pairwise(positions))
        assert len(positions) == 12


DOOMED = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
import django
django.setup()
from datetime import datetime
from marketplace import deliveries
from marketplace.courier import Courier, Threads

def record(*_, **__):
    print("answered", flush=True)
    threading.Event().wait()

deliveries.record = record
Courier(Threads(1), threads=1, turn=1.0).run(now=datetime.fromisoformat(sys.argv[1]))
"""


def test_a_worker_that_is_killed_between_answer_and_record_delivers_again_under_the_same_id(
    lively, receive: Receive
) -> None:
    """A real process and a real SIGKILL, at the worst moment."""
    receiver = receive()
    payer = _payers(1)[0]
    of = webhooks.create(url=receiver.url, payer=payer, seed=uuid4())
    _tell(payer)
    publish()
    place = connection.settings_dict
    host = f"{place['HOST']}:{place['PORT']}" if place["PORT"] else place["HOST"]
    url = f"postgres://{place['USER']}@{quote(host, safe=':')}/{place['NAME']}"
    environment = {
        **os.environ,
        "DATABASE_URL": url,
        "LOCAL_WEBHOOKS": "1",
        "DJANGO_SETTINGS_MODULE": "marketplace.settings",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'sdk' / 'src'}",
    }
    command = [sys.executable, "-c", DOOMED, NOW.isoformat()]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, cwd=ROOT, text=True) as doomed:
        assert doomed.stdout is not None
        assert doomed.stdout.readline() == "answered\n"
        doomed.send_signal(signal.SIGKILL)
    row = Delivery.objects.get()
    assert (row.status, row.attempts, row.last_status) == ("pending", 1, None)
    made = lively(1)
    assert made.run(now=NOW + timedelta(seconds=29)) == []
    [task] = made.run(now=NOW + timedelta(seconds=30))
    task.result(60)
    assert receiver.ids == [f"evt_{row.event_id}"] * 2
    assert len({body for _, body in receiver.got}) == 1
    assert statuses(of) == ["delivered"]


def test_a_sweep_does_not_wait_for_its_receivers(lively, receive: Receive) -> None:
    released = threading.Event()
    hanging = receive(lambda _door: released.wait(60))
    payer = _payers(1)[0]
    webhooks.create(url=hanging.url, payer=payer, seed=uuid4())
    _tell(payer)
    publish()
    try:
        [task] = lively(2).run(now=NOW)
        hanging.wait(1)
        assert not task.done()
    finally:
        released.set()
    task.result(60)


def test_the_beat_delivers(lively, receive: Receive, monkeypatch) -> None:
    """What Celery calls, as it calls it."""
    from marketplace import workers

    made = lively(2)
    monkeypatch.setattr(workers, "courier", lambda: made)
    receiver = receive()
    payer = _payers(1)[0]
    webhooks.create(url=receiver.url, payer=payer, seed=uuid4())
    _tell(payer)
    publish()
    assert workers.webhook_sweep() == 1
    receiver.wait(1)
    assert workers.webhook_forget() == 0


def test_from_a_payment_over_http_to_a_handler_that_verifies_it(world: World, receive: Receive) -> None:
    """End to end: what a newcomer does."""
    receiver = receive()
    made = world.one.by_provider.post("/v1/webhooks", {"url": receiver.url, "events": ["payment.*"]}).json
    paid = world.a.by_session.post("/v1/payments", {"to": LINT, "amount": "0.012", "metadata": {"n": 7}}).json
    publish()
    assert sweep() == 1
    [event] = receiver.events(made["secret"], NOW)
    seen = Caller(world.one.by_provider.key).get(f"/v1/payments/{event.subject_id}").json
    assert (event.type, seen["id"], seen["amount"]) == ("payment.created", paid["id"], "0.012")
    listed = world.one.by_provider.get(f"/v1/webhooks/{made['id']}/deliveries").json["items"]
    assert [(row["webhook_id"], row["status"], row["last_status"]) for row in listed] == [(event.id, "delivered", 204)]
