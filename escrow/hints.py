"""Hints to workers: *look now*. Lives here: one of each waits, at most. What is due is asked of the database.

A task has a queue of its own, with its name: its length is how many hints of that kind wait, and a task that is slow, or that
hangs, holds up none of another kind.
"""

from collections.abc import Mapping
from typing import Any

from celery import current_app
from kombu import Producer


def waits(producer: Producer, task: str) -> bool:
    """Return whether a hint waits that no worker has taken: whoever takes it looks at all that is committed now."""
    channel: Any = producer.channel
    return bool(channel.queue_declare(queue=task).message_count)


def send(task: str, *, headers: Mapping[str, object]) -> None:
    """Have a worker look, unless one is about to. Asks the broker once or twice, and never again."""
    with current_app.producer_or_acquire() as producer:
        if not waits(producer, task):
            current_app.send_task(task, producer=producer, retry=False, headers=dict(headers))
