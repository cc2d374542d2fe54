"""/metrics, for Prometheus. Lives here: who may read it, and the gauges of the database in Prometheus's words.

What is counted is in `escrow.gauges` and `marketplace.meters`; the deliveries of webhooks are counted here.
"""

import secrets
from collections.abc import Iterator
from datetime import datetime
from ipaddress import ip_address
from typing import Final

from django.conf import settings
from django.db import DatabaseError
from django.db.models import Count, Min
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from escrow import clock, gauges
from escrow.gauges import Gauge
from marketplace import meters
from marketplace.models import Delivery

READING: Final = ("GET", "HEAD")
FORWARDED: Final = ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP")
"""A request with one of these came through a proxy, so its address says nothing about who asks."""


@csrf_exempt  # it changes nothing, and a page about cookies is no answer to a program
def show(request: HttpRequest) -> HttpResponse:
    """Show every meter and gauge to whoever may see them."""
    if request.method not in READING:
        return _refused(405, "Only GET.", Allow=", ".join(READING))
    if not _may_look(request):
        return _refused(403, "Send METRICS_TOKEN as a bearer token, or ask from this machine.")
    registry = CollectorRegistry()
    registry.register(_FromDatabase())
    try:
        counted = generate_latest(registry)
    except DatabaseError:
        # The meters still say something; the absence of the gauges is an alarm by itself.
        counted = b""
    return HttpResponse(generate_latest(meters.registry()) + counted, content_type=CONTENT_TYPE_LATEST)


def _may_look(request: HttpRequest) -> bool:
    if settings.METRICS_TOKEN:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and secrets.compare_digest(
            token.strip().encode(), settings.METRICS_TOKEN.encode()
        )
    if settings.BEHIND_PROXY or any(name in request.META for name in FORWARDED):
        return False
    try:
        return ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False


def _refused(status: int, why: str, **headers: str) -> HttpResponse:
    return HttpResponse(why + "\n", status=status, content_type="text/plain; charset=utf-8", headers=headers)


class _FromDatabase(Collector):
    """Reads the gauges anew at each scrape."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        now = clock.now()
        for gauge in [*gauges.read(now), *_deliveries(now)]:
            family = GaugeMetricFamily(gauge.name, gauge.says, labels=gauge.labels)
            for labels, value in gauge.values:
                family.add_metric([labels[name] for name in gauge.labels], value)
            yield family


def _deliveries(now: datetime) -> Iterator[Gauge]:
    waiting = Delivery.objects.filter(status=Delivery.Status.PENDING, next_at__lte=now)
    found = waiting.aggregate(n=Count("pk"), oldest=Min("next_at"))
    yield Gauge("market_deliveries_due", "Deliveries of webhooks that are due.", [({}, float(found["n"]))])
    late = (now - found["oldest"]).total_seconds() if found["oldest"] else 0.0
    yield Gauge("market_deliveries_late_seconds", "For how long the oldest of those has been due.", [({}, late)])
