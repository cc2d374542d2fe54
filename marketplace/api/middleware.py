"""What happens to every request. Lives here: its id, the meter, and JSON instead of HTML for faults outside of any view."""

import time
from collections.abc import Callable
from uuid import uuid4

from django.http import HttpRequest, HttpResponse

from escrow import trail
from marketplace import meters
from marketplace.api import errors


class RequestId:
    """Gives each request an id, and each answer the header ``X-Request-Id`` that names it.

    The id is always ours: one that came from outside could be made to point at somebody else's lines in the log.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = str(uuid4())
        request.request_id = request_id  # type: ignore[attr-defined]
        begun = time.perf_counter()
        with trail.follow(request_id):
            response = self.get_response(request)
        route = request.resolver_match.route if request.resolver_match else meters.UNMATCHED
        meters.count(
            through="django",
            method=request.method or "",
            route=route,
            status=response.status_code,
            seconds=time.perf_counter() - begun,
        )
        response["X-Request-Id"] = errors.request_id(request)
        return response
