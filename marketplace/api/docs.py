"""What the service says of itself: the OpenAPI document and the pages of the error codes; and the 404 of /v1."""

import json
import sys
from functools import cache

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from drf_spectacular.generators import SchemaGenerator

from marketplace.api import error_pages, errors
from marketplace.api.problems import KINDS


@cache
def openapi() -> bytes:
    """Return the OpenAPI document as JSON. It is the same for the life of the process."""
    generated = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return json.dumps(generated, separators=(",", ":")).encode()


@require_safe
def document(request: HttpRequest) -> HttpResponse:
    """Answer the OpenAPI document."""
    return HttpResponse(openapi(), content_type="application/json")


@require_safe
def error_page(request: HttpRequest, code: str) -> HttpResponse:
    """Say what a code means and what helps, for a person."""
    if code not in KINDS:
        raise Http404(code)
    return render(request, "market/error.html", {**error_pages.page(code), "codes": sorted(KINDS)})


@require_safe
def error_index(request: HttpRequest) -> HttpResponse:
    """List every code with its status and what it means."""
    return render(request, "market/errors.html", {"kinds": KINDS.items()})


@csrf_exempt
def unmatched(request: HttpRequest) -> HttpResponse:
    """Answer any other address under /v1 with a problem, whatever the method."""
    return errors.answer(Http404(), request)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer an address that nothing is at: a problem, since most callers are programs."""
    return errors.answer(exception, request)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a request that Django itself refused."""
    return errors.answer(exception, request)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer a fault outside of the API's views."""
    fault = sys.exc_info()[1]
    return errors.answer(fault if isinstance(fault, Exception) else RuntimeError("unhandled fault"), request)
