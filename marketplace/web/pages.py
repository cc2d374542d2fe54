"""Pages for people. Lives here: the landing page and the catalogue. Programs use the API."""

from typing import Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from escrow import money
from marketplace import agents, offerings

CATALOGUE_LIMIT: Final = 200
"""Agents on the one page; a search by capability narrows them."""


@require_safe
def landing(request: HttpRequest) -> HttpResponse:
    """Say what this is and where to go on."""
    return render(request, "market/landing.html", {"chain_id": settings.CHAIN_ID})


@require_safe
def catalogue(request: HttpRequest) -> HttpResponse:
    """List agents with what they sell now."""
    capability = request.GET.get("capability", "").replace("\x00", "")[:64] or None
    found = agents.search(capability=capability).order_by("uri")[:CATALOGUE_LIMIT]
    rows = [
        (agent, [(offering, money.render(offering.price_micros)) for offering in offerings.current(agent)])
        for agent in found
    ]
    return render(request, "market/catalogue.html", {"rows": rows, "capability": capability})
