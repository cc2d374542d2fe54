"""The web's entry: the lane for payments, Django for everything else. One process, one port, any ASGI server."""

from typing import Any, cast

from a2wsgi import WSGIMiddleware
from django.conf import settings

from marketplace.wsgi import application as django  # isort: skip - it sets Django up, which the others need

from marketplace.database import base as database
from marketplace.lane import statement
from marketplace.lane.batches import Batches
from marketplace.lane.door import App, Door

database.give_up_after(settings.WEB_DATABASE_ANSWER_MS / 1_000)
application = Door(
    Batches(statement.connect, batch_size=settings.LANE_BATCH, queue_length=settings.LANE_QUEUE),
    cast("App", WSGIMiddleware(cast("Any", django), workers=settings.WEB_THREADS)),
)
