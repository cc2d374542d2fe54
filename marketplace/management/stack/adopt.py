"""Points the running Django at a stack that came up after Django did, so that a command can call the domain itself."""

import importlib
import os
from collections.abc import Mapping

from django.conf import settings
from django.db import connections

import marketplace.settings
from marketplace.celery import app


def adopt(environment: Mapping[str, str]) -> None:
    """Set the variables, read the settings again, and drop connections to what was configured before."""
    os.environ.update(environment)
    fresh = importlib.reload(marketplace.settings)
    for name in filter(str.isupper, dir(fresh)):
        setattr(settings, name, getattr(fresh, name))
    connections.close_all()
    connections.settings["default"].update(connections.configure_settings(fresh.DATABASES)["default"])
    app.conf.update(broker_url=settings.CELERY_BROKER_URL)
