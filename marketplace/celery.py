"""The Celery apps. Tasks live in each room's `workers.py`; limits and the schedule in `settings.py`.

`app` knows every task, and its workers take them all. `offchain` knows those that ask no node and no signer; its worker takes
nothing else: a node that hangs can hold all other workers, and never what buyers and sellers hear.
`clock` is for beat, which only sends names: without the tasks it needs half the memory.
"""

import os
from typing import Any

from celery import Celery
from celery.beat import PersistentScheduler
from celery.signals import celeryd_after_setup, task_prerun

from escrow import hints, trail

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "marketplace.settings")


def _configured(name: str) -> Celery:
    made = Celery(name)
    made.config_from_object("django.conf:settings", namespace="CELERY")
    return made


@task_prerun.connect
def _begin(task: Any, **_: object) -> None:
    """Have every line and every row of this run name the request that asked for it."""
    trail.start(request=str((task.request.headers or {}).get(trail.HEADER) or ""), task=str(task.name))


@celeryd_after_setup.connect
def _listen(instance: Any, **_: object) -> None:
    """Have a worker of `offchain` take what it knows; a message that it does not know would be lost with it."""
    if instance.app is offchain:
        queues = offchain.amqp.queues
        queues.select(sorted(queues.consume_from.keys() & offchain.tasks.keys()))


class Scheduler(PersistentScheduler):
    """Beat's: it sends no hint while one like it waits, so that none has to expire. No clock but beat's own is asked."""

    def apply_async(self, entry: Any, producer: Any = None, *args: Any, **options: Any) -> Any:
        """Send what is due, or leave it to the hint that waits."""
        if hints.waits(producer, entry.task):
            return None
        return super().apply_async(entry, producer, *args, **options)


clock = _configured("clock")
offchain = _configured("offchain")
offchain.autodiscover_tasks(["escrow"], related_name="offchain")
offchain.autodiscover_tasks(["marketplace"], related_name="workers")
app = _configured("marketplace")
app.autodiscover_tasks(related_name="workers")
app.autodiscover_tasks(["escrow"], related_name="offchain")
app.set_default()
