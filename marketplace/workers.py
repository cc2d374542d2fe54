"""What the market does by the clock. Lives here: Celery entries of a few lines. What they do is in the verb modules."""

from celery import shared_task
from django.utils import timezone

from marketplace import tasks


@shared_task(name="marketplace.task_sweep")
def task_sweep() -> int:
    """End tasks whose time is up. May run twice at once: each task is claimed by its row."""
    return tasks.expire_due(now=timezone.now())
