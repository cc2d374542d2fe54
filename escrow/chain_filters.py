"""What the admin's lists of the chain can be narrowed to. Lives here: the choices, and which rows each keeps."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.admin import SimpleListFilter
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from escrow import gauges
from escrow.models import Batch, ChainAction

Status = ChainAction.Status


class Show(SimpleListFilter):
    """What needs somebody, unless something else is asked for."""

    title = "what to show"
    parameter_name = "show"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The choices."""
        return [
            ("unknown", "unknown"),
            ("stuck", "stuck"),
            ("flying", "in flight"),
            ("all", "all, ended ones too"),
        ]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """Leave out what has ended, unless it is asked or searched for."""
        chosen = self.value()
        if chosen == "unknown":
            return queryset.filter(status__in=ChainAction.WAITING, last_outcome=gauges.UNKNOWN)
        if chosen == "stuck":
            since = timezone.now() - timedelta(seconds=settings.ACTION_STALE_SECONDS)
            return queryset.filter(status__in=ChainAction.WAITING, created_at__lt=since)
        if chosen == "flying":
            return queryset.filter(status__in=ChainAction.IN_FLIGHT)
        if chosen == "all" or request.GET.get("q") or request.GET.get("status__exact"):
            return queryset
        lately = Q(status=Status.REVERTED, mined_at__gte=timezone.now() - timedelta(days=1))
        return queryset.filter(Q(status__in=[*ChainAction.LIVE, Status.PARKED]) | lately)

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Call the choice of nothing what it is."""
        found = list(super().choices(changelist))
        found[0]["display"] = "not ended"
        yield from found


class Age(SimpleListFilter):
    """For how long it has been asked for."""

    title = "age"
    parameter_name = "older_than"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The choices, in seconds."""
        return [
            ("300", "over 5 minutes"),
            ("900", "over 15 minutes"),
            ("3600", "over an hour"),
            ("86400", "over a day"),
        ]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[ChainAction]") -> "QuerySet[ChainAction]":
        """Keep the older ones."""
        chosen = self.value() or ""
        if chosen not in dict(self.lookup_choices):
            return queryset
        return queryset.filter(created_at__lt=timezone.now() - timedelta(seconds=int(chosen)))


class TurnedDown(SimpleListFilter):
    """Whether the contract has refused it."""

    title = "turned down"
    parameter_name = "turned_down"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """One choice."""
        return [("yes", "yes")]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Batch]") -> "QuerySet[Batch]":
        """Keep those that were refused at least once."""
        return queryset.filter(turns__gt=0) if self.value() == "yes" else queryset
