"""What every row of the market is. Lives here: the primary key and the time of making, and nothing else."""

from django.db import models
from django.db.models.functions import Now

from escrow.models.types import UuidV7


class Row(models.Model):
    """A row whose id is a UUID of version 7, so that ids sort by age and a cursor needs no other column."""

    id = models.UUIDField(primary_key=True, editable=False, db_default=UuidV7())
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        abstract = True
