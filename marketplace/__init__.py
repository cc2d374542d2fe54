"""The Django project and the market: who sells, what it costs, who asked for it. Money lives in `escrow`.

The Celery app is imported here so that a `shared_task` finds it in every process that Django sets up.
"""

from marketplace.celery import app as celery_app

__all__ = ["celery_app"]
