"""The page of reserves: what the contract holds beside what is owed, as bars. Lives here: reading a report for people."""

from typing import Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from escrow import money, reserves
from escrow.models import ReserveReport

CLASSES: Final = {
    "available": ("in pools, free", "#4c78a8"),
    "in_sessions": ("in sessions", "#72b7b2"),
    "held": ("set aside", "#9ecae9"),
    "payable": ("owed to providers", "#f58518"),
    "settling": ("in signed batches", "#ffbf79"),
    "credited": ("landed, not paid out", "#54a24b"),
    "disputed": ("in dispute", "#e45756"),
    "fees": ("fees", "#79706e"),
}
"""Each class in words, and its colour."""
VERDICTS: Final = {
    "equal": "Every comparison of the books with the chain holds.",
    "explained": "Every comparison holds; something is on its way.",
    "unexplained": "Some comparison does not hold, and nobody can say why yet. We are looking at it.",
}
ALARM: Final = "Every comparison holds, but there is an alarm. We are looking at it."
SHOWN: Final = 24
WIDTH: Final = 1_000


@require_safe
def page(request: HttpRequest) -> HttpResponse:
    """Show the newest report, and the verdicts of the ones before."""
    report = reserves.newest()
    if report is None:
        return render(request, "market/reserves.html", {"report": None})
    newest_first = reserves.reports().order_by("-created_at", "-pk")[:SHOWN]
    context = {
        "report": report,
        "says": _says(report),
        "token": settings.USDC_ADDRESS,
        "url": request.build_absolute_uri("/").rstrip("/"),
        "held": money.render(report.held_micros),
        "owed": money.render(report.owed_micros),
        "difference": money.render(report.held_micros - report.owed_micros),
        "bars": _bars(report),
        "held_width": _width(report.held_micros, report),
        "runs": list(newest_first),
    }
    return render(request, "market/reserves.html", context)


def _says(report: ReserveReport) -> str:
    """Return the verdict in words. An alarm alone, such as a signer that has stopped, is no comparison that fails."""
    is_alarm_alone = report.alarms and report.unexplained == len(report.alarms)
    return ALARM if is_alarm_alone else VERDICTS[report.verdict]


def _bars(report: ReserveReport) -> list[dict[str, object]]:
    """Return the parts of what is owed, side by side: where each begins and how wide it is."""
    found: list[dict[str, object]] = []
    so_far = 0
    for name, (words, colour) in CLASSES.items():
        micros = int(report.liabilities.get(name, 0))
        place = {"x": _width(so_far, report), "width": _width(micros, report)}
        found.append({"words": words, "colour": colour, "amount": money.render(micros), **place})
        so_far += micros
    return found


def _width(micros: int, report: ReserveReport) -> int:
    return micros * WIDTH // max(report.held_micros, report.owed_micros, 1)
