"""What the market does by the clock. Lives here: Celery entries of a few lines. What they do is in the verb modules."""

from functools import cache

from celery import shared_task
from django.conf import settings

from escrow import clock
from marketplace import deliveries, tasks
from marketplace.courier import Courier, Threads


@shared_task(name="marketplace.task_sweep")
def task_sweep() -> int:
    """End tasks whose time is up. May run twice at once: each task is claimed by its row."""
    return tasks.expire_due(now=clock.now())


@cache
def courier() -> Courier:
    """Return this process's threads for deliveries."""
    threads = settings.WEBHOOK_THREADS
    pool = Threads(threads, thread_name_prefix="webhook")
    return Courier(pool, threads=threads, turn=settings.WEBHOOK_TURN_SECONDS)


@shared_task(name="marketplace.webhook_sweep")
def webhook_sweep() -> int:
    """Hand out what is due to webhooks. Does not wait for them."""
    return len(courier().run(now=clock.now()))


@shared_task(name="marketplace.webhook_forget")
def webhook_forget() -> int:
    """Delete old deliveries."""
    return deliveries.forget(now=clock.now(), limit=settings.WEBHOOK_MAX_PENDING)
