"""A line of the log is one line, and never holds a whole API key."""

import json
import logging
import sys
from typing import Any

import pytest
from celery.signals import before_task_publish

from escrow import intents, trail
from escrow.models import Attempt, ChainAction
from marketplace import logs
from marketplace.celery import app as celery_app

KEY = "am_test_" + "a" * 12 + "_" + "b" * 38


def record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("escrow", logging.WARNING, __file__, 1, message, arguments, None)
    made.__dict__.update(extra)
    return made


def test_json_has_the_facts() -> None:
    line = json.loads(logs.Json().format(record("paid %s", 8000, request_id="r-1")))
    assert line.pop("at").endswith("+00:00")
    assert line == {"level": "warning", "logger": "escrow", "message": "paid 8000", "request_id": "r-1"}


def test_both_forms_cut_the_secret_out_of_a_key() -> None:
    for form in (logs.Json(), logs.Text()):
        line = form.format(record("refused %s", KEY))
        assert "am_test_aaaaaaaaaaaa_***" in line
        assert "bbb" not in line


def test_a_key_in_a_traceback_is_cut_too() -> None:
    try:
        raise ValueError(KEY)
    except ValueError:
        made = record("failed")
        made.exc_info = sys.exc_info()
    for form in (logs.Json(), logs.Text()):
        assert "bbb" not in form.format(made)


def test_a_message_cannot_pretend_to_be_a_second_line() -> None:
    for form in (logs.Json(), logs.Text()):
        assert "\n" not in form.format(record("name: %s", "x\n12:00:00 ERROR escrow: paid twice"))


def test_a_message_to_a_worker_carries_the_id_of_the_request_and_the_worker_goes_on_with_it() -> None:
    sent: list[Any] = []

    def catch(headers: Any = None, **_: Any) -> None:
        sent.append(headers)

    with celery_app.connection_for_write() as broker:
        broker.default_channel.queue_purge("escrow.relay_sweep")  # a nudge of another test
    before_task_publish.connect(catch)
    try:
        with trail.follow("r-1"):
            intents.nudge()
    finally:
        before_task_publish.disconnect(catch)
    assert sent[0][trail.HEADER] == "r-1"

    seen = []

    @celery_app.task(name="tests.stack.echo")
    def echo() -> None:
        with trail.follow(trail.request_id(), action=7):
            seen.append(json.loads(logs.Json().format(record("at work"))))

    try:
        echo.apply(headers={trail.HEADER: "r-1"})
        echo.apply()
    finally:
        trail.start()
        celery_app.tasks.pop("tests.stack.echo")
    named = [(line.get("request_id"), line["action"], line["task"]) for line in seen]
    assert named == [("r-1", 7, "tests.stack.echo"), (None, 7, "tests.stack.echo")]


@pytest.mark.django_db
def test_what_the_chain_tells_leads_back_to_the_request() -> None:
    action = ChainAction.objects.create(kind="open_pool", dedupe_key="a", request_id="r-9")
    Attempt.objects.create(action=action, tx_hash="0x9", raw=b"", max_fee_wei=1, tip_wei=1)
    for tx_hash, expected in (("0x9", ("r-9", action.pk)), ("0x8", (None, None))):
        with intents.behind(tx_hash):
            line = json.loads(logs.Json().format(record("it has left the chain")))
        assert (line.get("request_id"), line.get("action")) == expected
