"""Hints: each has a queue that somebody listens to, one of each waits at most, and no clock makes one worthless."""

import time
from typing import Any

import pytest
from celery.exceptions import QueueNotFound
from celery.signals import before_task_publish
from django.conf import settings

from escrow import hints, intents
from escrow.models import Hold
from marketplace.celery import app
from tests.escrow import books
from tests.stack.fleet import fleet, overdue, until

TASKS = {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}
RELAY = "escrow.relay_sweep"


def test_every_task_has_a_beat_and_a_queue_with_its_name() -> None:
    app.loader.import_default_modules()
    assert {task for task in app.tasks if task.startswith(("escrow.", "marketplace."))} == TASKS
    assert set(app.amqp.queues) == TASKS
    assert {task: app.amqp.router.route({}, task)["queue"].name for task in TASKS} == {task: task for task in TASKS}
    with pytest.raises(QueueNotFound):
        app.send_task("escrow.nobodys_sweep")


@pytest.fixture
def sent() -> Any:
    """The messages that are sent."""
    told: list[tuple[str, str, Any]] = []

    def catch(sender: str, routing_key: str, headers: dict[str, Any], **_: Any) -> None:
        told.append((sender, routing_key, headers["expires"]))

    with app.connection_for_write() as broker:
        broker.default_channel.queue_purge(RELAY)
    before_task_publish.connect(catch)
    yield told
    before_task_publish.disconnect(catch)


def test_a_nudge_says_nothing_while_another_waits(sent: list[Any]) -> None:
    intents.nudge()
    intents.nudge()
    assert sent == [(RELAY, RELAY, None)]
    with app.producer_or_acquire() as producer:
        assert hints.waits(producer, RELAY)
        producer.channel.queue_purge(RELAY)
    intents.nudge()
    assert sent == [(RELAY, RELAY, None)] * 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.timeout(300)
def test_without_a_worker_one_of_each_waits_and_one_whose_clock_is_ahead_takes_them() -> None:
    session = books.session(micros=25_000_000)
    overdue(session, 3)
    often = {of["task"] for of in settings.CELERY_BEAT_SCHEDULE.values() if of["schedule"].total_seconds() <= 5}
    with fleet() as made:
        made.beat()
        until(lambda: all(map(made.waiting, often)), "beat has sent each")
        time.sleep(3)  # beat would have sent six more of the most frequent
        assert {made.waiting(task) for task in often} == {1}
        made.worker("one", app="tests.stack.ahead")
        until(lambda: Hold.objects.filter(status="released").count() == 3, "a message is taken")
        until(lambda: sum(map(made.waiting, often)) <= 1, "all are taken")
