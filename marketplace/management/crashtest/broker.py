"""The Celery app of the harness's own workers: the market's, whose workers die when an order in a file says so.

Lives here: what such a worker loads (`celery -A marketplace.management.crashtest.broker worker`). A file named after a task,
in CRASH_ORDERS, arms the next child that begins that task, once; what Valkey then does with the message is its own doing.
"""

import json
import os
from pathlib import Path
from typing import Any, Final

from celery import states
from celery.signals import task_postrun, task_prerun
from django.conf import settings

from escrow import crashpoints
from marketplace.celery import app

VISIBILITY_SECONDS: Final = 3
"""After so long Valkey gives out again what a dead worker had taken; in production it takes minutes."""

app.conf.broker_transport_options = {
    **app.conf.broker_transport_options,
    "visibility_timeout": VISIBILITY_SECONDS,
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
}


@task_prerun.connect(weak=False)
def _arm(task: Any, **_: Any) -> None:
    order = Path(os.environ["CRASH_ORDERS"]) / task.name
    taken = order.with_suffix(f".{os.getpid()}.taken")
    try:
        order.rename(taken)
    except FileNotFoundError:
        return
    asked = json.loads(taken.read_text(encoding="utf-8"))
    for name, value in asked["settings"].items():
        setattr(settings, name, value)
    crashpoints.arm(asked["point"], passes=asked["passes"])


@task_postrun.connect(weak=False)
def _tell(task_id: str, state: str = "", retval: object = None, **_: Any) -> None:
    done = Path(os.environ["CRASH_ORDERS"]) / f"{task_id}.done"
    draft = done.with_suffix(".draft")
    draft.write_text(state if state == states.SUCCESS else f"{state}: {retval!r}", encoding="utf-8")
    draft.rename(done)  # whoever looks for it finds all of it


__all__ = ["app"]
