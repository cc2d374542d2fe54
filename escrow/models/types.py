"""What the models share: the primary key's default and the shape of a table of moves."""

from collections.abc import Mapping, Set
from typing import Final

from django.db import models


class UuidV7(models.Func):
    """PostgreSQL's ``uuidv7()``: ids that sort by time, so that pages and inserts stay local (RFC 9562, section 5.7)."""

    function = "uuidv7"
    output_field: Final = models.UUIDField()


Moves = Mapping[str, Set[str]]
"""From each status to those that may follow it."""
