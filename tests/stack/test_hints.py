"""Hints: each has a queue that somebody listens to, one of each waits at most, and no clock makes one worthless."""

import socket
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

import pytest
import yaml
from celery.exceptions import QueueNotFound
from celery.signals import before_task_publish
from django.conf import settings

from escrow import hints, intents
from escrow.models import Hold
from marketplace.celery import app
from marketplace.management.stack.stack import WORKERS
from tests.escrow import books
from tests.stack.fleet import ROOT, fleet, overdue, until

TASKS = {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}
ASKING = {"escrow.relay_sweep", "escrow.index_sweep", "escrow.settle_sweep", "escrow.pulse_sweep", "escrow.reconcile"}
RELAY = "escrow.relay_sweep"

LISTENS = """
import sys, types
import django
django.setup()
from celery.signals import celeryd_after_setup
from celery.utils.imports import symbol_by_name
app = symbol_by_name(sys.argv[1])
app.loader.import_default_modules()
app.finalize()
celeryd_after_setup.send(sender="a", instance=types.SimpleNamespace(app=app), conf=app.conf)
print(*sorted(app.amqp.queues.consume_from), *sorted({"web3", "eth_account"} & sys.modules.keys()))
"""


def listens(name: str) -> set[str]:
    """Return what a worker of an app takes, and which libraries it has loaded that can ask a node or sign."""
    found = "marketplace.celery:app" if name == "marketplace" else name
    words = [sys.executable, "-c", LISTENS, found]
    env = {"DJANGO_SETTINGS_MODULE": "marketplace.settings", "PYTHONPATH": f"{ROOT}:{ROOT}/sdk/src"}
    return set(subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout.split())


def test_a_worker_that_is_told_nothing_takes_everything() -> None:
    assert listens("marketplace") == TASKS | {"web3", "eth_account"}


def test_the_second_worker_takes_what_asks_no_node_and_has_loaded_nothing_that_could() -> None:
    assert listens(WORKERS["offchain"]) == TASKS - ASKING


def test_every_task_has_a_beat_and_a_queue_with_its_name() -> None:
    app.loader.import_default_modules()
    assert {task for task in app.tasks if task.startswith(("escrow.", "marketplace."))} == TASKS
    assert set(app.amqp.queues) == TASKS
    assert {task: app.amqp.router.route({}, task)["queue"].name for task in TASKS} == {task: task for task in TASKS}
    with pytest.raises(QueueNotFound):
        app.send_task("escrow.nobodys_sweep")


def test_compose_and_the_dev_stack_start_both_workers_and_narrow_neither() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    started = {name: of["command"] for name, of in services.items() if "worker" in of.get("command", ())}
    assert {name: words[words.index("-A") + 1] for name, words in started.items()} == WORKERS
    assert not {"-Q", "--queues", "-X", "--exclude-queues"} & {word for words in started.values() for word in words}


NUDGES = """
import django
django.setup()
from kombu.exceptions import OperationalError
from escrow import intents
try:
    intents.nudge()
except OperationalError:
    print("nobody is there")
"""


def test_a_broker_that_is_away_is_asked_once_by_whoever_has_a_caller_waiting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        asked: list[None] = []

        def close_on_all() -> None:
            with suppress(OSError):
                while True:
                    door.accept()[0].close()
                    asked.append(None)

        host = threading.Thread(target=close_on_all)
        host.start()
        env = {"DJANGO_SETTINGS_MODULE": "marketplace.settings", "PYTHONPATH": f"{ROOT}:{ROOT}/sdk/src"}
        env["REDIS_URL"] = f"redis://127.0.0.1:{door.getsockname()[1]}/0"
        ran = subprocess.run(
            [sys.executable, "-c", NUDGES], cwd=ROOT, env=env, capture_output=True, text=True, check=True
        )
        door.shutdown(socket.SHUT_RDWR)
    host.join()
    assert (ran.stdout, len(asked)) == ("nobody is there\n", 1)


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
        for _ in range(2):  # from the first time to the second five seconds go by: ten rounds of the most frequent
            made.discard("escrow.timer_sweep")
            until(lambda: made.waiting("escrow.timer_sweep"), "beat has come round to it")
        assert {made.waiting(task) for task in often} == {1}
        made.worker("one", app="tests.stack.ahead")
        until(lambda: Hold.objects.filter(status="released").count() == 3, "a message is taken")
        until(lambda: sum(map(made.waiting, often)) <= 1, "all are taken")
