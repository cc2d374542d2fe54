"""What each web process counts by itself: requests, and how long they took. Lives here: the two meters and who reads them.

Everything about money is counted from the database instead (`escrow.gauges`). No label takes values without end: a path is
its route, a method one of those that HTTP has.
"""

import os
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.multiprocess import MultiProcessCollector

SHARED: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Names the directory in which the processes of one server count together; `marketplace.server` makes it."""
METHODS: Final = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"))
UNMATCHED: Final = "none"
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_requests: Final = Counter(
    "market_http_requests", "Requests that were answered.", ["through", "method", "route", "status"]
)
_seconds: Final = Histogram(
    "market_http_request_seconds", "From the request to its answer.", ["through", "route"], buckets=_BUCKETS
)


def count(*, through: str, method: str, route: str, status: int, seconds: float) -> None:
    """Count one answer of the lane or of Django."""
    _requests.labels(through, method if method in METHODS else "other", route, str(status)).inc()
    _seconds.labels(through, route).observe(seconds)


def registry() -> CollectorRegistry:
    """Return what there is to be read: of all processes of this server, where there are several."""
    if not os.environ.get(SHARED):
        return REGISTRY
    together = CollectorRegistry()
    MultiProcessCollector(together)  # type: ignore[no-untyped-call]
    return together
